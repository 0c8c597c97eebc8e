"""Gymnasium environments shared among worker processes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pgrad.data.masked import Masked
from pgrad.data.tree import Tree, map_tree
from pgrad.environments.create import Recipe
from pgrad.environments.history import require_same_world
from pgrad.environments.masks import choices
from pgrad.environments.replay import merge, split
from pgrad.environments.shared import STEP, STEP_ACTIVE, Form, board, board_forms, forms_of
from pgrad.environments.spaces import Array, buffers, flat
from pgrad.environments.team import Team
from pgrad.errors import UsageError, WorldError
from pgrad.worlds.buffers import on_device
from pgrad.worlds.gym.between import Given, to_numpy, to_tensors
from pgrad.worlds.protocol import Step

TIMEOUT = 120.0
"""Seconds a worker may take to answer."""


class WorkerWorld:
    """B environments in worker processes: a `World`, to the last bit a `GymnasiumWorld` with the same seeds.

    Actions and answers are written into memory that all processes see; the workers step only while the world
    is asked to. They are never forked from this process, where threads of torch may be running. WorldError
    tells of a worker that died or did not answer within `timeout` seconds; the world is closed then.
    """

    def __init__(
        self,
        recipe: Recipe,
        seeds: Sequence[int],
        workers: int,
        *,
        device: torch.device | str = "cpu",
        timeout: float = TIMEOUT,
    ) -> None:
        """One environment for each seed, in slices of nearly the same size."""
        self.n_envs = len(seeds)
        self.device = torch.device(device)
        self._team = Team(recipe, seeds, workers, timeout)
        try:
            self.name, self.observation_space, self.action_space = self._team.hear()[0]
            self._view = self._share()
        except BaseException:
            self.close()
            raise
        self._ended = torch.from_numpy(self._board.flags[2])
        self.ended = self._ended.to(self.device, copy=True)
        self._given = Given(self.action_space, self.name)
        self._forms: list[Form] = []  # of the actions
        self._actions: list[Array] = []

    def _share(self) -> Step:
        """Lay out the memory that all write into, show it to the workers; what is in it."""
        obs, slices = buffers(self.observation_space, self.n_envs), self._team.slices
        forms = board_forms(len(slices), self.n_envs, sum(choices(self.action_space)), flat(obs))
        self._board = board(self._team.share("share", forms, list(enumerate(slices))))
        parts = iter(self._board.obs)
        shared = map_tree(lambda _: torch.from_numpy(next(parts)), obs)
        reward, flags = torch.from_numpy(self._board.reward), torch.from_numpy(self._board.flags)
        return Step(shared, reward, flags[0], flags[1])

    def reset(self, group: int = 1) -> Tree:
        """Start a new episode in every environment; see `World.reset`."""
        if any(part.start % group for part in self._team.slices):
            raise UsageError(
                f"groups of {group} environments must not be shared by workers: {self.n_envs} environments "
                f"have {self.n_envs // group} groups, choose as many workers or a divisor"
            )
        return self._begun(self._team.ask("reset", [(group,) for _ in self._team.slices]))

    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        """Step every environment once; see `World.step`."""
        self._give(action)
        if active is not None:
            self._board.active[:] = active.numpy(force=True)
        self._team.step(STEP if active is None else STEP_ACTIVE, self._board)
        return self._shown()

    def _give(self, action: Tree) -> None:
        """Put the actions where the workers see them."""
        given = self._given(action)
        if (forms := forms_of(given)) != self._forms:
            for shape, _ in forms:
                if shape[:1] != (self.n_envs,):
                    raise WorldError(f"{self.name}: {self.n_envs} actions are needed, got {shape}")
            self._actions = self._team.share("share_actions", forms, [() for _ in self._team.slices])
            self._forms = forms
        for shared, x in zip(self._actions, given, strict=True):
            shared[...] = x

    def state_dict(self) -> dict[str, Any]:
        """The state of all environments, as a `GymnasiumWorld` of as many would give it."""
        parts = self._team.ask("state_dict", [() for _ in self._team.slices])
        state: dict[str, Any] = to_tensors(merge(parts))
        return state

    def load_state_dict(self, state: dict[str, Any]) -> Tree:
        """Put a state back, taken with any number of workers; see `GymnasiumWorld.load_state_dict`."""
        require_same_world(state, self.name, self.n_envs)
        parts = [(part,) for part in split(to_numpy(state), self._team.slices)]
        return self._begun(self._team.ask("load_state_dict", parts))

    def render(self) -> Any:
        """An RGB picture of environment 0, uint8 [H, W, 3]."""
        return self._team.ask("render", [()])[0]

    def close(self) -> None:
        """End the worker processes, within seconds whatever they do."""
        self._team.close()

    def _begun(self, masked: Sequence[bool]) -> Tree:
        """The observations; environments that forbid actions show masks from now on."""
        if masked[0] and not isinstance(self._view.obs, Masked):
            allowed = torch.from_numpy(self._board.allowed)
            self._view = self._view._replace(obs=Masked(self._view.obs, allowed))
        return self._shown().obs

    def _shown(self) -> Step:
        self.ended = self._ended.to(self.device, copy=True)
        return self._view if self.device.type == "cpu" else on_device(self._view, self.device)
