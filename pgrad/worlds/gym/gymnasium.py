"""Gymnasium environments, stepped one after the other in this process."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pgrad.data.masked import Masked
from pgrad.data.tree import Tree, map_tree
from pgrad.environments.batch import Environments
from pgrad.environments.create import Recipe
from pgrad.worlds.buffers import on_device
from pgrad.worlds.gym.between import Given, to_numpy, to_tensors
from pgrad.worlds.protocol import Step


class GymnasiumWorld:
    """B environments of one kind: a `World` (see `protocol.py`) over `Environments`, on the same memory."""

    def __init__(self, recipe: Recipe, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> None:
        """One environment for each seed."""
        self.n_envs = len(seeds)
        self.device = torch.device(device)
        self._is_here = self.device.type == "cpu"
        self._envs = Environments(recipe, seeds)
        self.name = self._envs.name
        self.observation_space, self.action_space = self._envs.observation_space, self._envs.action_space
        self._given = Given(self.action_space, self.name)
        obs = map_tree(torch.from_numpy, self._envs.shown)
        reward, flags = torch.from_numpy(self._envs.reward), torch.from_numpy(self._envs.flags)
        self._view = Step(obs, reward, flags[0], flags[1])
        self._flags = flags
        self._told, self.ended = list(self._envs.over), flags[2].to(self.device, copy=True)

    def reset(self, group: int = 1) -> Tree:
        """Start a new episode in every environment; see `World.reset`."""
        self._envs.reset(group)
        return self._shown().obs

    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        """Step every environment once; see `World.step`. Raises WorldError for what breaks the contract."""
        self._envs.step(self._given(action), None if active is None else active.numpy(force=True))
        return self._shown()

    def state_dict(self) -> dict[str, Any]:
        """How each episode began, the actions since, and what the environments show now.

        `length` is −1 where an episode had more actions than are kept; such a state cannot be loaded.
        """
        state: dict[str, Any] = to_tensors(self._envs.state_dict())
        return state

    def load_state_dict(self, state: dict[str, Any]) -> Tree:
        """Play the episodes of a state again; returns the current observations.

        Raises WorldError for a state of another world or number of environments, and where an environment
        does not show bit for bit the observation that was saved.
        """
        self._envs.load_state_dict(to_numpy(state))
        return self._shown().obs

    def render(self) -> Any:
        """An RGB picture of environment 0, uint8 [H, W, 3]."""
        return self._envs.render()

    def close(self) -> None:
        """Close every environment."""
        self._envs.close()

    def _shown(self) -> Step:
        envs = self._envs
        if envs.masks.given and not isinstance(self._view.obs, Masked):
            self._view = self._view._replace(obs=Masked(self._view.obs, torch.from_numpy(envs.masks.rows)))
        if envs.over != self._told:  # the tensor may have been kept: another one, but only where it differs
            self._told, self.ended = list(envs.over), self._flags[2].to(self.device, copy=True)
        return self._view if self._is_here else on_device(self._view, self.device)
