"""The conformance suite finds what it is there to find: every broken world is refused, for its own fault."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pgrad.data.tree import Tree
from pgrad.worlds.protocol import Step
from pgrad.worlds.tensors.cartpole import CartPole
from pgrad.worlds.tensors.pendulum import Pendulum
from pgrad.worlds.tensors.tensor import TensorWorld
from tests.worlds.conformance import check_world


class SameStepReset(TensorWorld):
    """Answers the first observation of the next episode together with the flags."""

    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        step = super().step(action, active)
        fresh = self._dynamics.start(self._noise())
        self._state = torch.where(self.ended[:, None], fresh, self._state)
        self._steps = self._steps.masked_fill(self.ended, 0)
        self.ended = torch.zeros_like(self.ended)
        return step._replace(obs=self._dynamics.observe(self._state))


class BothFlags(TensorWorld):
    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        step = super().step(action, active)
        return step._replace(truncated=step.terminated | step.truncated)


class RewardAtReset(TensorWorld):
    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        return super().step(action, active)._replace(reward=torch.ones(self.n_envs))


class ActionAtReset(TensorWorld):
    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        ended = self.ended
        super().step(action, active)
        self._state = self._state + 1e-9 * (ended * action)[:, None]
        zero, no = torch.zeros(self.n_envs), torch.zeros_like(self.ended)
        flags = self.ended & ~ended
        return Step(self._dynamics.observe(self._state), (~ended).float() + zero, flags, no)


class MovesWhileInactive(TensorWorld):
    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        before = self._dynamics.observe(self._state)
        step = super().step(action)
        if active is None:
            return step
        still = ~active
        self.ended = self.ended & active
        return Step(
            torch.where(active[:, None], step.obs, before),
            step.reward.masked_fill(still, 0.0),
            step.terminated & active,
            step.truncated & active,
        )


class MovesInSecret(TensorWorld):
    """Shows an inactive environment as it was, but advances it."""

    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        step = super().step(action, active)
        if active is not None:
            self._state = torch.where(active[:, None], self._state, self._state + 1e-6)
        return step


class ForgetsGenerator(TensorWorld):
    def load_state_dict(self, state: dict[str, Any]) -> Tree:
        return super().load_state_dict({**state, "generator": self._generator.get_state()})


class ForgetsClock(TensorWorld):
    def load_state_dict(self, state: dict[str, Any]) -> Tree:
        return super().load_state_dict({**state, "steps": torch.zeros_like(state["steps"])})


class RoundsState(TensorWorld):
    def load_state_dict(self, state: dict[str, Any]) -> Tree:
        return super().load_state_dict({**state, "state": state["state"].float().double()})


class LivingState(TensorWorld):
    """Hands out its own tensors and goes on writing into them."""

    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        mine = self._state
        step = super().step(action, active)
        self._state = mine.copy_(self._state)
        return step

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "state": self._state}


class NotJson(TensorWorld):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "extra": np.zeros(3)}


class GlobalGenerator(TensorWorld):
    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        torch.rand(1)
        return super().step(action, active)


class Unseeded(TensorWorld):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._generator.manual_seed(0)


class AllAlike(TensorWorld):
    def _noise(self) -> Tensor:
        return super()._noise()[:1].expand(self.n_envs, -1)


class ClipsInPlace(TensorWorld):
    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        return super().step(action.clamp_(-2.0, 2.0), active)


class WrongDtype(TensorWorld):
    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        step = super().step(action, active)
        return step._replace(reward=step.reward.double())


class OutsideItsSpace(TensorWorld):
    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        step = super().step(action, active)
        return step._replace(obs=step.obs * 10)


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (SameStepReset, "`ended` is not"),
        (BothFlags, "terminated and truncated at once"),
        (RewardAtReset, "a reset row has a reward"),
        (ActionAtReset, "depends on the action of an episode that was over"),
        (MovesWhileInactive, "inactive environment|`ended` is wrong where inactive"),
        (MovesInSecret, "moved while it was inactive|inactive environment shows another"),
        (ForgetsGenerator, "did not restore it"),
        (ForgetsClock, "did not restore it"),
        (RoundsState, "did not restore it"),
        (LivingState, "a state changed after it was taken out"),
        (NotJson, "not JSON serializable"),
        (GlobalGenerator, "a global random generator was used"),
        (Unseeded, "two seeds gave the same data"),
        (AllAlike, "environments 0 and 1 gave the same data"),
        (WrongDtype, "float64"),
        (OutsideItsSpace, "outside Box"),
    ],
)
def test_refused(broken: Callable[..., TensorWorld], fault: str) -> None:
    with pytest.raises((AssertionError, TypeError), match=fault):
        check_world(lambda n_envs, seed: broken(CartPole(), n_envs, seed), steps=60)


def test_changed_actions_are_refused() -> None:
    with pytest.raises(AssertionError, match="changed the actions it was given"):
        check_world(lambda n_envs, seed: ClipsInPlace(Pendulum(), n_envs, seed), steps=220)


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(AssertionError, match="no episode ended"):
        check_world(lambda n_envs, seed: TensorWorld(Pendulum(), n_envs, seed), steps=100)


def test_a_sound_world_passes() -> None:
    check_world(lambda n_envs, seed: TensorWorld(CartPole(max_episode_steps=15), n_envs, seed), steps=60)
