"""Runs that are not sound stop: another policy acting than learning, NaN, overflow."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

import pgrad as pg
from pgrad.errors import TrainingError, WorldError
from pgrad.math.distributions import Categorical
from pgrad.models.normalizer import ObservationNormalizer
from pgrad.training.loop import Training
from tests.training.tools import training


class Body(nn.Module):
    """A policy for cart-pole behind some layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head, self.critic = layer, nn.Linear(4, 2), nn.Linear(4, 1)

    def policy(self, obs: Tensor) -> Categorical:
        flat = self.layer(obs.reshape(-1, 4)).reshape(obs.shape)
        return Categorical(self.head(flat))

    def value(self, obs: Tensor) -> Tensor:
        return self.critic(obs).squeeze(-1)


ON_POLICY = [
    pg.PPO(n_steps=16, batch_size=32),
    pg.PPOKL(n_steps=16, batch_size=32),
    pg.A2C(n_steps=16),
    pg.ActorCritic(n_steps=16),
    pg.Reinforce(n_episodes=2),
]


@pytest.mark.parametrize("algorithm", ON_POLICY)
def test_dropout_and_batch_normalisation_stop_the_run(algorithm: Any) -> None:
    """They act with another policy than they train; without them the same module trains."""
    for layer in (nn.Dropout(0.5), nn.BatchNorm1d(4)):
        torch.manual_seed(0)
        with pytest.raises(TrainingError, match="the policy that is trained is not the policy that acted"):
            training(algorithm, agent=Body(layer)).iterate()
    training(algorithm, agent=Body(nn.Identity())).iterate()


class Moving(ObservationNormalizer):
    """A normaliser that learns while it is used."""

    def forward(self, obs: Any) -> Any:
        if not torch.is_grad_enabled():
            self.update(obs, torch.ones(obs.shape[:-1]))
        return super().forward(obs)


@pytest.mark.parametrize("algorithm", ON_POLICY)
def test_a_normaliser_that_moves_during_collection_stops_the_run(algorithm: Any) -> None:
    made = training(algorithm)
    made.agent.normalizer = Moving(made.agent.observation_space)
    with torch.no_grad():
        for p in made.agent.network.actor.parameters():
            p.mul_(20)
    with pytest.raises(TrainingError, match="observation normaliser that moved during collection"):
        made.iterate()


def three_iterations(made: Training) -> None:
    for _ in range(3):
        made.iterate()


class NanReward(gymnasium.Env[Any, Any]):
    observation_space, action_space = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(2)

    def __init__(self, value: float = math.nan) -> None:
        self.value = value

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        reward = self.value if self.t == 20 else 1.0
        return np.full(2, self.t / 50, np.float32), reward, self.t == 24, False, {}


@pytest.mark.parametrize("algorithm", ON_POLICY)
def test_a_reward_of_nan_never_reaches_the_parameters(algorithm: Any) -> None:
    made = training(algorithm, NanReward)
    with pytest.raises(WorldError, match="step 20 of its episode: reward is nan"):
        three_iterations(made)
    assert all(p.isfinite().all() for p in made.agent.parameters())


@pytest.mark.parametrize("algorithm", ON_POLICY)
def test_losses_that_overflow_stop_the_run(algorithm: Any) -> None:
    """Finite rewards whose squares are not: TrainingError, and every parameter stays finite."""
    made = training(algorithm, lambda: NanReward(3e38), agent=pg.AgentSpec(net_arch=(4,)))
    with pytest.raises(TrainingError, match="not finite"):
        three_iterations(made)
    assert all(p.isfinite().all() for p in made.agent.parameters())
