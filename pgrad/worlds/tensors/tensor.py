"""Worlds in plain torch: all environments advance in a few tensor operations, on any device."""

from typing import Any, Protocol, runtime_checkable

import torch
from gymnasium import Space
from gymnasium.spaces import Discrete
from torch import Tensor

from pgrad.data.tree import Tree
from pgrad.errors import UsageError, WorldError
from pgrad.worlds.protocol import Step
from pgrad.worlds.tensors.bicycle import Bicycle
from pgrad.worlds.tensors.cartpole import CartPole
from pgrad.worlds.tensors.draw import Picture
from pgrad.worlds.tensors.pendulum import Pendulum
from pgrad.worlds.tensors.probes import PROBES
from pgrad.worlds.tensors.tabular import REFERENCE
from pgrad.worlds.tensors.tmaze import TMaze


@runtime_checkable
class Dynamics(Protocol):
    """What makes one tensor world different from another: pure functions of a batch, without branches.

    A state is one floating-point tensor [B, K]: K numbers per environment, all that the world must remember.
    """

    @property
    def name(self) -> str:
        """What `dynamics_of` finds it by."""
        ...

    @property
    def observation_space(self) -> Space[Any]:
        """What one environment can show."""
        ...

    @property
    def action_space(self) -> Space[Any]:
        """What one environment can be told."""
        ...

    @property
    def max_episode_steps(self) -> int | None:
        """After how many steps the clock ends an episode; None for never."""
        ...

    @property
    def noise(self) -> int:
        """How many uniform numbers in [0, 1) `start` or `step` needs for one environment."""
        ...

    def start(self, noise: Tensor, /) -> Tensor:
        """The first state of an episode [B, K], from noise [B, noise]."""
        ...

    def step(self, state: Tensor, action: Tree, noise: Tensor, /) -> tuple[Tensor, Tensor, Tensor]:
        """The next state [B, K], the reward [B] and whether the task ended [B], from noise [B, noise]."""
        ...

    def observe(self, state: Tensor, /) -> Tree:
        """What an agent sees of the state [B, ...]; in a `Masked` where actions are forbidden."""
        ...

    def draw(self, state: Tensor, i: int, /) -> Picture:
        """A picture of environment i."""
        ...


class TensorWorld:
    """B environments with the same `dynamics`: a `World` (see `protocol.py`).

    Noise is drawn for every environment at every step and used either to begin an episode or to go on: a step
    never waits for the device to say who ended, and the noise depends on the number of steps alone.
    States are float64, as in Gymnasium, because an unstable pole multiplies rounding errors by about e⁴ per
    second (float32 on MPS devices, which have nothing longer).

    A new world starts with every environment `ended`: its first step resets, unless `reset` was called.
    Raises UsageError for n_envs < 1.
    """

    def __init__(
        self, dynamics: Dynamics, n_envs: int, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        if n_envs < 1:
            raise UsageError(f"n_envs must be at least 1, got {n_envs}")
        self.name = dynamics.name
        self.n_envs = n_envs
        self.device = torch.empty(0, device=device).device  # with its index
        self.observation_space = dynamics.observation_space
        self.action_space = dynamics.action_space
        self._dynamics = dynamics
        self._limit = dynamics.max_episode_steps or torch.iinfo(torch.int64).max
        self._dtype = torch.float32 if self.device.type == "mps" else torch.float64
        self._discrete = isinstance(self.action_space, Discrete)
        self._action_shape = (n_envs, *(self.action_space.shape or ()))
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._state = dynamics.start(
            torch.zeros(n_envs, dynamics.noise, dtype=self._dtype, device=self.device)
        )
        self._steps = torch.zeros(n_envs, dtype=torch.int64, device=self.device)  # since the episode began
        self._group = 1  # so many environments in a row draw the same noise
        self.ended = torch.ones(n_envs, dtype=torch.bool, device=self.device)

    def reset(self, group: int = 1) -> Tree:
        """Start a new episode in every environment; see `World.reset`."""
        self._group = group
        self._state = self._dynamics.start(self._noise())
        self._steps = torch.zeros_like(self._steps)
        self.ended = torch.zeros_like(self.ended)
        return self._dynamics.observe(self._state)

    @torch.no_grad()
    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        """Advance every environment by one step; see `World.step`.

        Raises WorldError for actions of another shape or kind. Their values are not looked at, as that would
        wait for the device: a discrete action must be one of the space.
        """
        if action.shape != self._action_shape or (self._discrete and action.is_floating_point()):
            kind = "integers" if self._discrete else "numbers"
            raise WorldError(
                f"the action of {self.name} must be {kind} of shape {list(self._action_shape)}, "
                f"got {_describe(action)}"
            )
        noise = self._noise()
        state, reward, terminated = self._dynamics.step(self._state, action, noise)
        state = torch.where(self.ended.unsqueeze(1), self._dynamics.start(noise), state)
        steps = (self._steps + 1).masked_fill_(self.ended, 0)
        reward = reward.to(torch.float32).masked_fill(self.ended, 0.0)
        terminated = terminated & ~self.ended
        ended = (steps >= self._limit) | terminated
        truncated = ended ^ terminated
        if active is not None:
            state = torch.where(active.unsqueeze(1), state, self._state)
            steps = torch.where(active, steps, self._steps)
            ended = torch.where(active, ended, self.ended)
            reward = reward.masked_fill(~active, 0.0)
            terminated, truncated = terminated & active, truncated & active
        self._state, self._steps, self.ended = state, steps, ended
        return Step(self._dynamics.observe(state), reward, terminated, truncated)

    def state_dict(self) -> dict[str, Any]:
        """The exact state: that of the physics, the clocks and the generator."""
        return {
            "name": self.name,
            "state": self._state.clone(),
            "steps": self._steps.clone(),
            "ended": self.ended.clone(),
            "generator": self._generator.get_state(),
            "group": self._group,
        }

    def load_state_dict(self, state: dict[str, Any]) -> Tree:
        """Put a state back; returns the current observations.

        Raises WorldError where it comes from another world, number of environments or kind of device.
        """
        own = self.state_dict()
        if state.get("name") != self.name:
            raise WorldError(f"this state is of world {state.get('name')!r}, not of {self.name!r}")
        for key in ("state", "steps", "ended", "generator"):
            saved, here = state.get(key), own[key]
            if not isinstance(saved, Tensor) or saved.shape != here.shape or saved.dtype != here.dtype:
                raise WorldError(
                    f"the {key!r} of {self.name} cannot be put back exactly: it needs {_describe(here)}, "
                    f"got {_describe(saved)} (other n_envs, or another kind of device?)"
                )
        self._generator.set_state(state["generator"].cpu())
        self._group = state.get("group", 1)
        self._state, self._steps, self.ended = (
            state[key].to(self.device, copy=True) for key in ("state", "steps", "ended")
        )
        return self._dynamics.observe(self._state)

    def render(self) -> Picture:
        """An RGB picture of environment 0, uint8 [H, W, 3]."""
        return self._dynamics.draw(self._state, 0)

    def close(self) -> None:
        """Nothing to free."""

    def _noise(self) -> Tensor:
        shape = (self.n_envs // self._group, self._dynamics.noise)
        noise = torch.rand(shape, generator=self._generator, dtype=self._dtype, device=self.device)
        return noise.repeat_interleave(self._group, 0) if self._group > 1 else noise


def _describe(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else repr(value)


_ALL: tuple[Dynamics, ...] = (
    CartPole(),
    Pendulum(),
    Bicycle(),
    Bicycle(rates_seen=False, name="bicycle-no-rate"),
    CartPole(velocities_seen=False, name="cartpole-masked"),
    TMaze(),
    *PROBES.values(),
    REFERENCE,
)

TENSOR_WORLDS: tuple[str, ...] = tuple(dynamics.name for dynamics in _ALL)
"""The names `dynamics_of` knows."""


def dynamics_of(name: str) -> Dynamics | None:
    """The tensor world `name`; None where there is none."""
    return next((dynamics for dynamics in _ALL if dynamics.name == name), None)
