"""Different algorithms, the same numbers: where two of them are the same mathematics they train the same
agent."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import pgrad as pg

N_ENVS, N_STEPS = 4, 16


def trained(algorithm: Any, world: str, updates: int = 6) -> dict[str, Tensor]:
    run = pg.train(
        algorithm,
        world,
        total_timesteps=N_ENVS * (N_STEPS - 2) * updates,
        n_envs=N_ENVS,
        seed=5,
        agent=pg.AgentSpec(net_arch=(16,), normalize_obs=True),
    )
    assert run.history[-1]["train/n_updates"] >= updates
    return {name: tensor.clone() for name, tensor in run.agent.state_dict().items()}


def close(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 2e-5) -> bool:
    assert a.keys() == b.keys()
    return all(torch.allclose(a[name], b[name], atol=tolerance) for name in a)


@pytest.mark.parametrize("world", ["cartpole", "pendulum"])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("clip_range", [math.inf, 0.2])
def test_a2c_is_ppo_of_one_step(world: str, optimizer: Any, clip_range: float) -> None:
    """One epoch, one minibatch: the ratio is 1 when the gradient is taken, so that clipping never happens."""
    common: dict[str, Any] = {
        "n_steps": N_STEPS,
        "learning_rate": 3e-3,
        "gae_lambda": 0.9,
        "gamma": 0.98,
        "ent_coef": 0.02,
        "vf_coef": 0.6,
        "max_grad_norm": 0.7,
        "optimizer": optimizer,
        "normalize_advantage": False,
        "learning_rate_schedule": "linear",
    }
    a2c = trained(pg.A2C(**common), world)
    ppo = trained(pg.PPO(n_epochs=1, batch_size=N_ENVS * N_STEPS, clip_range=clip_range, **common), world)
    assert close(a2c, ppo)


def test_they_part_with_a_second_epoch() -> None:
    """The comparison can fail."""
    common: dict[str, Any] = {"n_steps": N_STEPS, "learning_rate": 3e-3, "normalize_advantage": False}
    a2c = trained(pg.A2C(optimizer="adam", gae_lambda=0.95, **common), "cartpole")
    ppo = trained(pg.PPO(n_epochs=2, batch_size=N_ENVS * N_STEPS, **common), "cartpole")
    assert not close(a2c, ppo)


@pytest.mark.parametrize("world", ["cartpole", "pendulum"])
def test_ppo_without_clip_is_ppo_kl_without_penalty(world: str) -> None:
    """Bit for bit, over several epochs of minibatches: both are then L^CPI."""
    common: dict[str, Any] = {"n_steps": N_STEPS, "batch_size": 16, "n_epochs": 3, "learning_rate": 3e-3}
    ppo = trained(pg.PPO(clip_range=math.inf, **common), world)
    kl = trained(pg.PPOKL(beta=0.0, target_kl=None, **common), world)
    assert close(ppo, kl, tolerance=0.0)


def test_batch_actor_critic_with_one_critic_step_is_a2c() -> None:
    """With targets to the end of the window, a critic that has not moved yet, and rates of their own: A2C
    split."""
    common: dict[str, Any] = {
        "n_steps": N_STEPS,
        "ent_coef": 0.0,
        "optimizer": "adam",
        "max_grad_norm": math.inf,
    }
    kept: dict[str, Any] = {"learning_rate": 3e-3, "critic_learning_rate": 0.0}
    a2c = trained(pg.A2C(**common, **kept), "cartpole")
    split = trained(pg.ActorCritic(bootstrap_steps=None, n_critic_updates=1, **common, **kept), "cartpole")
    assert close(a2c, split)
