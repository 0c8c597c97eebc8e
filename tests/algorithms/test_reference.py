"""A reference policy in the reward: the credit of every algorithm against loops over decisions."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

import pgrad as pg
from pgrad.algorithms.protocol import Algorithm
from pgrad.data import Trajectory
from pgrad.errors import UsageError
from pgrad.math.distributions import Categorical
from tests.algorithms.tools import Table, table, window

BETA, GAMMA = 0.3, 0.9


class Anchored(Table):
    """A table with a reference: another one."""

    def __init__(self) -> None:
        own = table(1)
        super().__init__(own.theta.detach(), own.critic.detach())
        self.other = nn.Parameter(table(2).theta.detach(), requires_grad=False)

    def reference(self, obs: Tensor) -> Categorical:
        return Categorical(self.other[obs])


ALGORITHMS: list[Any] = [
    pg.PPO(gamma=GAMMA, gae_lambda=0.8, beta=BETA),
    pg.A2C(gamma=GAMMA, beta=BETA),
    pg.ActorCritic(gamma=GAMMA, bootstrap_steps=2, beta=BETA),
    pg.Reinforce(gamma=GAMMA, baseline="none", beta=BETA),
    pg.Reinforce(gamma=GAMMA, baseline="value", beta=BETA),
    pg.Reinforce(gamma=GAMMA, baseline="leave-one-out", beta=BETA, reward_to_go=False),
]


def paid(agent: Anchored, traj: Trajectory, logp: Tensor) -> Tensor:
    """r − β·(log π − log π_ref), one decision after the other."""
    found = traj.reward.clone()
    for t in range(len(found)):
        for b in range(found.shape[1]):
            if traj.mask[t, b] > 0:
                s, a = int(traj.obs[t, b]), int(traj.action[t, b])
                ref = torch.log_softmax(agent.other[s], -1)[a]
                found[t, b] -= BETA * (logp[t, b] - ref)
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=repr)
def test_credit_is_that_of_the_rewards_it_leaves(algorithm: Algorithm) -> None:
    agent = Anchored()
    traj = window(agent)
    found = algorithm.credit(agent, traj)
    plain = replace(algorithm, beta=0.0)  # type: ignore[type-var]
    expected = plain.credit(agent, replace(traj, reward=paid(agent, traj, traj.logp)))
    on = traj.mask > 0
    torch.testing.assert_close(found.advantage[on], expected.advantage[on], rtol=0, atol=1e-12)
    assert found.target is not None
    assert expected.target is not None
    torch.testing.assert_close(found.target[on], expected.target[on], rtol=0, atol=1e-12)
    assert not torch.allclose(found.advantage[on], plain.credit(agent, traj).advantage[on])
    ref = agent.reference(traj.decisions).log_prob(traj.action)
    assert found.logp_ref is not None
    assert torch.equal(found.logp_ref, ref)
    _, metrics = algorithm.loss(agent, found)
    now = agent.policy(traj.decisions).log_prob(traj.action)
    assert float(metrics["kl"]) == pytest.approx(float((now - ref)[on].detach().mean()), abs=1e-12)


def test_old_episodes_pay_by_the_policy_that_is_trained() -> None:
    """The divergence is that of π, whoever acted."""
    agent = Anchored()
    traj = window(agent)
    traj = replace(
        traj, logp=traj.logp - 0.2 * torch.rand(traj.logp.shape, generator=Generator().manual_seed(3))
    )
    algorithm = pg.Reinforce(gamma=GAMMA, baseline="none", reuse=1, beta=BETA)
    now = agent.policy(traj.decisions).log_prob(traj.action).detach()
    expected = replace(algorithm, beta=0.0).credit(agent, replace(traj, reward=paid(agent, traj, now)))
    on = traj.mask > 0
    torch.testing.assert_close(algorithm.credit(agent, traj).advantage[on], expected.advantage[on])


@pytest.mark.parametrize("name", ["PPO", "A2C", "ActorCritic", "Reinforce"])
def test_off_unless_asked_for_and_never_negative(name: str) -> None:
    algorithm = getattr(pg, name)
    assert algorithm().beta == 0.0
    assert not algorithm().reference
    assert algorithm(beta=0.1).reference
    with pytest.raises(UsageError, match="beta must be finite and not negative"):
        algorithm(beta=-0.1)


def test_on_a_world_of_steps_the_reference_is_where_training_began() -> None:
    """A large β holds the policy there."""
    ends = []
    for beta in (0.0, 30.0):
        algorithm = pg.A2C(beta=beta, ent_coef=0.0, normalize_advantage=True, learning_rate=1e-3)
        run = pg.train(algorithm, "cartpole", total_timesteps=6000, seed=0, n_envs=4, threads=1)
        ends.append(run)
    assert "kl" not in ends[0].history[-1]
    kept = ends[1].agent.frozen
    start = pg.train(
        pg.A2C(beta=1.0), "cartpole", total_timesteps=1, seed=0, n_envs=4, threads=1
    ).agent.frozen
    for x, y in zip(kept.parameters(), start.parameters(), strict=True):
        assert torch.equal(x, y)
    assert abs(ends[1].history[-1]["kl"]) < 0.05


@pytest.mark.parametrize("name", ["PPO", "A2C", "ActorCritic"])
def test_a_memory_and_windows_have_no_reference(name: str) -> None:
    """In the middle of an episode the memory is that of the policy that acted, not the reference's."""
    algorithm = getattr(pg, name)(beta=0.1)
    with pytest.raises(UsageError, match=r"beta .* memory"):
        pg.train(algorithm, "cartpole", total_timesteps=100, agent=pg.AgentSpec(memory="gru"))
