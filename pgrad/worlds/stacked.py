"""Frame stacking: the last k observations as one, for any world."""

from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from torch import Tensor

from pgrad.data.masked import Masked, bare
from pgrad.data.tree import Tree, leaves, map_tree
from pgrad.environments.spaces import space_leaves
from pgrad.errors import WorldError
from pgrad.worlds.buffers import zeros
from pgrad.worlds.protocol import Step, World


class StackedWorld:
    """A `World` that shows its last k observations, the oldest first, [B, k, ...] (`stacked_space`).

    At the beginning of an episode the first one repeats. Action masks are the newest. It keeps the frames
    itself, so that worlds and worker processes hand over one at a time, and saves them with its state.
    """

    def __init__(self, world: World, k: int) -> None:
        self._world, self._k = world, k
        self.name, self.n_envs, self.device = world.name, world.n_envs, world.device
        self.observation_space = stacked_space(world.observation_space, k)
        self.action_space = world.action_space
        self._spaces = [space for _, space in space_leaves(world.observation_space, "")]
        self._frames: list[Tensor] = [
            torch.stack([x] * k, 1).to(self.device)
            for x in leaves(zeros(world.observation_space, self.n_envs))
        ]

    @property
    def ended(self) -> Tensor:
        """[B] bool: the episode is over, the next step resets."""
        return self._world.ended

    def reset(self, group: int = 1) -> Tree:
        """Start a new episode in every environment; see `World.reset`."""
        obs = self._world.reset(group)
        return self._show(obs, torch.ones(self.n_envs, dtype=torch.bool, device=self.device), None)

    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        """Step every environment once; see `World.step`."""
        began = self._world.ended.clone()
        step = self._world.step(action, active)
        return step._replace(obs=self._show(step.obs, began if active is None else began & active, active))

    def _show(self, obs: Tree, began: Tensor, active: Tensor | None) -> Tree:
        """Take in what the world shows now; where an episode `began` it shows nothing else."""
        for i, new in enumerate(leaves(bare(obs))):
            frames, newest = self._frames[i], new.unsqueeze(1)
            moved = torch.cat([frames[:, 1:], newest], 1)
            moved = torch.where(_like(began, moved), newest, moved)
            self._frames[i] = moved if active is None else torch.where(_like(active, moved), moved, frames)
        return self._stack(obs)

    def _stack(self, obs: Tree) -> Tree:
        shown = iter([_joined(space, x) for space, x in zip(self._spaces, self._frames, strict=True)])
        stack = map_tree(lambda _: next(shown), bare(obs))
        return Masked(stack, obs.allowed) if isinstance(obs, Masked) else stack

    def state_dict(self) -> dict[str, Any]:
        """The state of the world, and the frames."""
        frames = {str(i): x.clone() for i, x in enumerate(self._frames)}
        return {"world": self._world.state_dict(), "frames": frames}

    def load_state_dict(self, state: dict[str, Any]) -> Tree:
        """Put a state back; returns the current observations. Raises WorldError where it cannot be exact."""
        saved = list(state.get("frames", {}).values())
        forms = [[(x.shape, x.dtype) for x in frames] for frames in (saved, self._frames)]
        if forms[0] != forms[1]:
            raise WorldError(f"{self.name}: the state is of another world, or of another frame_stack")
        obs = self._world.load_state_dict(state["world"])
        self._frames = [x.to(self.device, copy=True) for x in saved]
        return self._stack(obs)

    def render(self) -> Any:
        """An RGB picture of environment 0, uint8 [H, W, 3]."""
        return self._world.render()

    def close(self) -> None:
        """Close the world."""
        self._world.close()


def stacked_space(space: Space[Any], k: int) -> Space[Any]:
    """The space of k observations of `space`: a new first axis, but in pictures with channels more of them.

    k pictures [H, W] are one [k, H, W]; [H, W, C] become [H, W, k·C], and [C, H, W] become [k·C, H, W].
    """
    if isinstance(space, Dict):
        return Dict({key: stacked_space(part, k) for key, part in space.spaces.items()})
    if isinstance(space, Tuple):
        return Tuple([stacked_space(part, k) for part in space.spaces])
    if isinstance(space, Box):
        low, high = (
            _joined(space, torch.from_numpy(np.stack([x] * k)[None]))[0].numpy() for x in _bounds(space)
        )
        return Box(low, high, dtype=space.dtype.type)
    if isinstance(space, Discrete):
        return MultiDiscrete([space.n] * k, start=[space.start] * k)
    if isinstance(space, MultiDiscrete):
        return MultiDiscrete(np.stack([space.nvec] * k), start=np.stack([space.start] * k))
    assert isinstance(space, MultiBinary)
    return MultiBinary((k, *space.shape))


def _bounds(space: Box) -> tuple[Any, Any]:
    return space.low, space.high


def _joined(space: Space[Any], frames: Tensor) -> Tensor:
    """Frames [B, k, ...] as the stacked space has them."""
    if not (isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) == 3):
        return frames
    if space.shape[2] <= space.shape[0]:  # channels last
        return frames.movedim(1, -2).flatten(-2)
    return frames.flatten(1, 2)


def _like(flags: Tensor, x: Tensor) -> Tensor:
    return flags.reshape(-1, *[1] * (x.ndim - 1))
