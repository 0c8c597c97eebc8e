"""Half precision on request: hidden layers in bfloat16, everything else as it was."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Generator, Tensor

import pgrad as pg
from pgrad.errors import UsageError
from pgrad.models import build_agent
from tests.training.tools import training

IMAGE = spaces.Box(0, 255, (12, 12, 1), np.uint8)
VECTOR = spaces.Box(-1.0, 1.0, (5,), np.float32)
ACTIONS = spaces.Box(-1.0, 1.0, (3,), np.float32)


def pair(observation: Any, critic: Any, **spec: Any) -> list[pg.Agent]:
    """The same agent in full and in half precision."""
    return [
        build_agent(
            observation,
            ACTIONS,
            pg.AgentSpec(dtype=dtype, **spec),
            gamma=0.99,
            critic=critic,
            generator=Generator().manual_seed(0),
        )
        for dtype in ("float32", "bfloat16")
    ]


def observations(space: Any, *shape: int) -> Tensor:
    generator = Generator().manual_seed(1)
    if space is IMAGE:
        return torch.randint(0, 256, (*shape, 12, 12, 1), generator=generator, dtype=torch.uint8)
    return torch.randn(*shape, 5, generator=generator)


def gradients(agent: pg.Agent, loss: Tensor) -> Tensor:
    agent.zero_grad()
    loss.backward()
    grads = [p.grad for p in agent.parameters() if p.grad is not None]
    assert {g.dtype for g in grads} == {torch.float32}
    return torch.cat([g.flatten() for g in grads])


@pytest.mark.parametrize("space", [VECTOR, IMAGE])
@pytest.mark.parametrize("memory", ["none", "gru"])
def test_values_and_gradients_are_close_and_float32(space: Any, memory: Any) -> None:
    full, half = pair(space, "value", memory=memory)
    for one, other in zip(full.state_dict().values(), half.state_dict().values(), strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype
    found = []
    for agent in (full, half):
        obs = observations(space, 16)
        seen = agent.memory(16).see(obs)
        policy, value = agent.policy_and_value(seen)
        logp = policy.log_prob(torch.ones(16, 3))
        assert value.dtype == logp.dtype == policy.mean.dtype == torch.float32
        found.append((policy.mean, value, gradients(agent, (logp + value.square()).mean())))
    for one, other in zip(*found, strict=True):
        gap = (one - other).norm() / one.norm()
        assert 1e-5 < gap < 0.03  # 2⁻⁸ for each of a few products; and not 0: it was rounded


def test_the_networks_of_soft_actor_critic() -> None:
    full, half = pair(VECTOR, "q")
    obs, action = observations(VECTOR, 16), torch.zeros(16, 3)
    found = []
    for agent in (full, half):
        sample, logp = agent.policy(obs).rsample(Generator().manual_seed(2))
        q = agent.q(obs, action)
        assert q.dtype == sample.dtype == logp.dtype == agent.target_q(obs, action).dtype == torch.float32
        found.append((q, gradients(agent, q.square().mean() + (logp - agent.q(obs, sample).amin(0)).mean())))
    for one, other in zip(*found, strict=True):
        assert 1e-5 < (one - other).norm() / one.norm() < 0.03


def test_it_learns_to_balance_a_pole() -> None:
    """The ratio starts near 1, and the return rises, as in full precision."""
    algorithm = pg.PPO(
        n_steps=32, batch_size=128, n_epochs=4, learning_rate=3e-3, gamma=0.98, gae_lambda=0.8, ent_coef=0.0
    )
    spec = pg.AgentSpec(net_arch=(32,), dtype="bfloat16")
    run = pg.train(
        algorithm, "cartpole", total_timesteps=12_000, n_envs=16, agent=spec, compile="no", progress=False
    )
    assert all(p.dtype == torch.float32 for p in run.agent.parameters())
    assert run.evaluate(episodes=10, seed=3).mean > 100.0  # 9 or so without learning


@pytest.mark.parametrize(
    "algorithm",
    [pg.SAC(buffer_size=100, learning_starts=8, batch_size=8), pg.PPOKL(n_steps=8, batch_size=8)],
)
def test_other_algorithms_take_their_steps(algorithm: Any) -> None:
    one = training(algorithm, "pendulum", agent=pg.AgentSpec(net_arch=(8,), dtype="bfloat16"))
    before = torch.cat([p.detach().flatten() for p in one.agent.parameters()])
    for _ in range(6):
        one.iterate()
    after = torch.cat([p.detach().flatten() for p in one.agent.parameters()])
    assert bool(after.isfinite().all())
    assert not torch.equal(before, after)


def test_machine_code_of_one_precision_is_not_that_of_the_other() -> None:
    from pgrad.training.compiled import Call
    from pgrad.training.compiled.describe import describe

    def seen(agent: Any) -> Any:
        return describe(Call(pg.Agent.value, observations(VECTOR, 2)), agent)

    full, half = (seen(agent) for agent in pair(VECTOR, "value"))
    assert full != half
    assert full == seen(pair(VECTOR, "value")[0])


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="dtype must be float32 or bfloat16, got 'float16'"):
        pg.AgentSpec(dtype="float16")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="bfloat16 has too few digits: leave out dtype, or take PPO"):
        pg.train(
            pg.TRPO(),
            "cartpole",
            total_timesteps=10_000,
            agent=pg.AgentSpec(dtype="bfloat16"),
            progress=False,
        )
