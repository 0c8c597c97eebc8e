"""Five worlds so small that their exact answers are known, each isolating one part of an algorithm.

From Andy L. Jones, "Debugging Reinforcement Learning Systems" (andyljones.com/posts/rl-debugging.html): the
first world that an algorithm fails says what is broken.

    probe-constant     the critic and its optimiser
    probe-observation  gradients through the network
    probe-discount     discounting and bootstrapping
    probe-action       the advantage and the policy's update
    probe-both         the policy depending on the observation, the batches being consistent

Each has two discrete actions and, with "-continuous" after its name, one action in [−1, 1].
`PROBES[name].solution(gamma)` is the optimal policy and its value.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from pgrad.worlds.tensors.draw import Picture, canvas, paint

TARGET = 0.5
"""The best continuous action of probe-action-continuous; ±TARGET of probe-both-continuous."""


@dataclass(frozen=True)
class Solution:
    """The optimal policy and its value V at each of the N observations on which a decision is taken."""

    obs: Tensor  # [N, 1] float32
    value: Tensor  # [N] float32  V(s) = E[Σₜ γᵗ·rₜ] of the optimal policy
    action: Tensor | None  # [N] int64 or [N, 1] float32; None where every action is as good


@dataclass(frozen=True)
class Probe:
    """One probe world; the state [B, 1] is the observation."""

    name: str
    continuous: bool  # one action in [−1, 1] instead of two discrete ones
    start: Callable[[Tensor], Tensor]
    step: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    decisions: tuple[float, ...]  # the observations on which a decision is taken
    value: Callable[[float], tuple[float, ...]]  # their values under the optimal policy, given gamma
    action: tuple[float, ...] | None = None  # the optimal actions; None where every action is as good
    noise: int = 1
    max_episode_steps: int | None = None

    @property
    def observation_space(self) -> Box:
        """−1, 0 or 1."""
        return Box(-1.0, 1.0, (1,), np.float32)

    @property
    def action_space(self) -> Space[Any]:
        """0 or 1; a number in [−1, 1] where `continuous`."""
        return Box(-1.0, 1.0, (1,), np.float32) if self.continuous else Discrete(2)

    def solution(self, gamma: float) -> Solution:
        """The optimal policy and its value for the discount γ = `gamma`."""
        action = None
        if self.action is not None:
            action = _column(self.action) if self.continuous else torch.tensor(self.action, dtype=torch.int64)
        return Solution(_column(self.decisions), _column(self.value(gamma))[:, 0], action)

    def observe(self, state: Tensor) -> Tensor:
        """The state itself, float32 [B, 1]."""
        return state.float()

    def draw(self, state: Tensor, i: int) -> Picture:
        """The observation on the line from −1 to 1, uint8 [96, 384, 3]."""
        picture = canvas(96, 384, (250, 250, 252))
        paint(picture, [(48.0, 48.0), (336.0, 48.0)], 1.5, (176, 182, 194))
        for mark in (48.0, 192.0, 336.0):
            paint(picture, [(mark, 48.0)], 5.0, (176, 182, 194))
        paint(picture, [(192 + 144 * float(state[i, 0]), 48.0)], 14.0, (84, 120, 196))
        return picture


def _column(numbers: tuple[float, ...]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None]


def _zero(noise: Tensor) -> Tensor:
    return torch.zeros_like(noise)


def _either(noise: Tensor) -> Tensor:
    """−1 or 1, each with probability ½."""
    return (noise >= 0.5).to(noise.dtype) * 2 - 1


def _constant(state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reward 1 and the end. V = 1."""
    x = state[:, 0]
    return state, torch.ones_like(x), torch.ones_like(x, dtype=torch.bool)


def _observation(state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reward = observation and the end. V(s) = s."""
    x = state[:, 0]
    return state, x, torch.ones_like(x, dtype=torch.bool)


def _discount(state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From 0 to 1 for nothing, from 1 to the end with reward 1. V(0) = γ, V(1) = 1."""
    x = state[:, 0]
    return torch.ones_like(state), x, x > 0.5


def _action(state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reward 1 for action 1, −1 for action 0, and the end. V = 1."""
    x = state[:, 0]
    return state, 2.0 * action - 1.0, torch.ones_like(x, dtype=torch.bool)


def _both(state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reward 1 where the action matches the observation (1 with 1, 0 with −1), else −1; the end. V = 1."""
    x = state[:, 0]
    return state, (2.0 * action - 1.0) * x, torch.ones_like(x, dtype=torch.bool)


def _action_continuous(state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reward −(a − TARGET)², a clipped to [−1, 1], and the end. V = 0."""
    x = state[:, 0]
    reward = -(action[:, 0].clamp(-1.0, 1.0) - TARGET).square()
    return state, reward, torch.ones_like(x, dtype=torch.bool)


def _both_continuous(state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reward −(a − TARGET·s)², a clipped to [−1, 1], and the end. V = 0."""
    x = state[:, 0]
    reward = -(action[:, 0].clamp(-1.0, 1.0) - TARGET * x).square()
    return state, reward, torch.ones_like(x, dtype=torch.bool)


PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        Probe("probe-constant", False, _zero, _constant, (0.0,), lambda gamma: (1.0,)),
        Probe("probe-observation", False, _either, _observation, (-1.0, 1.0), lambda gamma: (-1.0, 1.0)),
        Probe("probe-discount", False, _zero, _discount, (0.0, 1.0), lambda gamma: (gamma, 1.0)),
        Probe("probe-action", False, _zero, _action, (0.0,), lambda gamma: (1.0,), (1,)),
        Probe("probe-both", False, _either, _both, (-1.0, 1.0), lambda gamma: (1.0, 1.0), (0, 1)),
        Probe("probe-constant-continuous", True, _zero, _constant, (0.0,), lambda gamma: (1.0,)),
        Probe(
            "probe-observation-continuous",
            True,
            _either,
            _observation,
            (-1.0, 1.0),
            lambda gamma: (-1.0, 1.0),
        ),
        Probe("probe-discount-continuous", True, _zero, _discount, (0.0, 1.0), lambda gamma: (gamma, 1.0)),
        Probe(
            "probe-action-continuous",
            True,
            _zero,
            _action_continuous,
            (0.0,),
            lambda gamma: (0.0,),
            (TARGET,),
        ),
        Probe(
            "probe-both-continuous",
            True,
            _either,
            _both_continuous,
            (-1.0, 1.0),
            lambda gamma: (0.0, 0.0),
            (-TARGET, TARGET),
        ),
    )
}
