"""Expectations and variances against loops over batches, and the vectorised way against the plain one."""

from itertools import product

import pytest
import torch
from torch import Tensor

from pgrad.algorithms import A2C, PPO, Reinforce
from pgrad.data import Trajectory
from pgrad.errors import UsageError
from pgrad.lab import Case, estimates, exact, expectation, random_case, reference, variance
from pgrad.lab.agent import TabularAgent
from pgrad.lab.estimate import agent_of, episode_sum, estimator, estimator_of, weighted_scores
from pgrad.lab.seen import discounted_gae
from pgrad.math.credit import discount_weight, reward_to_go
from pgrad.math.objectives import score_function

SMALL = random_case(1, n_states=2, n_actions=2, horizon=2)
LENGTHS = random_case(2, n_states=3, n_actions=2, n_terminal=1, horizon=2)


def returns(agent: TabularAgent, traj: Trajectory) -> Tensor:
    ret = reward_to_go(traj.reward, traj.done, 0.8)
    return ret * discount_weight(traj.done, 0.8, ret.dtype)


PLAIN = estimator(returns, lambda logp, old, advantage: score_function(logp, advantage))


def by_hand(how, case: Case, episodes: int) -> tuple[Tensor, float]:
    """Every ordered batch, one after the other, with ordinary autograd."""
    traj, agent = case.trajectory, agent_of(case)
    p, real = traj.mask[0], (traj.mask > 0).double()
    first, second = torch.zeros(case.theta.numel(), dtype=torch.float64), 0.0
    for columns in product(range(len(p)), repeat=episodes):
        pick = list(columns)
        batch = Trajectory(
            *(
                x[:, pick]
                for x in (traj.obs, traj.action, traj.logp, traj.reward, traj.terminated, traj.done)
            ),
            mask=real[:, pick],
        )
        theta = case.theta.clone().requires_grad_()
        grad = torch.autograd.grad(how(TabularAgent(theta, agent.critic, agent.observation), batch), theta)[
            0
        ].flatten()
        weight = p[pick].prod()
        first, second = first + weight * grad, second + float(weight * grad.square().sum())
    return first, second - float(first.square().sum())


@pytest.mark.parametrize("case", [SMALL, LENGTHS], ids=["equal lengths", "episodes of different length"])
@pytest.mark.parametrize("episodes", [1, 2])
@pytest.mark.parametrize(
    "algorithm",
    [
        Reinforce(gamma=0.8, baseline="none"),
        Reinforce(gamma=0.8, baseline="mean"),
        Reinforce(gamma=0.8, baseline="leave-one-out", reward_to_go=False),
        A2C(gamma=0.8, normalize_advantage=True),
        PPO(gamma=0.8, ent_coef=0.01),
    ],
    ids=["none", "mean", "leave-one-out", "a2c", "ppo"],
)
def test_every_batch(case: Case, episodes: int, algorithm) -> None:
    how = estimator_of(algorithm)
    mean, spread = by_hand(how, case, episodes)
    found = estimates(algorithm, case, episodes=episodes)
    assert (found.mean - mean).abs().max() < 1e-12
    assert found.variance == pytest.approx(spread, abs=1e-12)
    assert variance(algorithm, case, episodes=episodes) == found.variance
    assert float(torch.trace(found.covariance)) == pytest.approx(found.variance, abs=1e-12)


def test_what_cannot_be_vectorised_is_done_one_by_one() -> None:
    """An estimator that branches on a number gives the same as one that does not."""

    def branching(agent: TabularAgent, traj: Trajectory) -> Tensor:
        assert float(traj.mask.sum()) > 0
        return PLAIN(agent, traj)

    torch.testing.assert_close(estimates(branching, LENGTHS).gradient, estimates(PLAIN, LENGTHS).gradient)


def test_what_differentiates_by_itself_is_vectorised_too(monkeypatch: pytest.MonkeyPatch) -> None:
    optimal = Reinforce(gamma=0.8, baseline="optimal")  # by squared scores
    mean, spread = by_hand(estimator_of(optimal), SMALL, 2)
    monkeypatch.setattr("pgrad.lab.estimate._gradient", None)  # of one batch after the other
    found = estimates(optimal, SMALL, episodes=2)
    assert (found.mean - mean).abs().max() < 1e-12
    assert found.variance == pytest.approx(spread, abs=1e-12)


@pytest.mark.parametrize("case", [SMALL, LENGTHS, reference(0.8)])
def test_all_at_once_is_the_mean_of_one_by_one(case: Case) -> None:
    """For sums over episodes mask = p(τ) is the expectation, and that of batches of any size."""
    whole = expectation(PLAIN, case).flatten()
    assert (whole - estimates(PLAIN, case).mean).abs().max() < 1e-13
    if case is SMALL:
        for n in (2, 3):
            batch = estimates(PLAIN, case, episodes=n)
            assert (whole - batch.mean).abs().max() < 1e-13
            assert batch.variance == pytest.approx(variance(PLAIN, case) / n, rel=1e-9)


def test_off_policy() -> None:
    """At c ≠ 0 another policy acted: its probabilities weigh, its log-probabilities are recorded."""
    case = reference().at(0.7)
    pi, mu = exact.policy(case.problem, case.theta), exact.policy(case.problem, case.actor)
    assert (pi - mu).abs().max() > 0.1
    assert torch.equal(case.trajectory.logp, reference().trajectory.logp)
    assert torch.equal(case.trajectory.mask, reference().trajectory.mask)
    state = case.trajectory.obs[:-1] % 3
    now = agent_of(case).policy(case.trajectory.decisions).log_prob(case.trajectory.action)
    assert (now - pi.log()[state, case.trajectory.action]).abs().max() < 1e-15


def test_critic_is_that_of_the_policy_that_acted() -> None:
    case = reference().at(1.0)
    exactly = exact.values(case.problem, reference().theta, case.gamma, 4).V
    assert torch.equal(agent_of(case).value(case.trajectory.obs), exactly.flatten()[case.trajectory.obs])
    other = torch.randn(5, 3, dtype=torch.float64)
    assert torch.equal(agent_of(case, other).value(torch.arange(15)), other.flatten())


def test_episode_sum() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, float("nan")]], dtype=torch.float64)
    mask = torch.tensor([[0.25, 0.5], [0.25, 0.0]], dtype=torch.float64)
    assert float(episode_sum(x, mask)) == pytest.approx((0.25 * 4 + 0.5 * 2) / 0.75)


def test_episode_sum_counts_the_episodes_of_a_column() -> None:
    """A row of weight 0 lies between them; one before the first is no episode."""
    x = torch.tensor([1.0, 2.0, 9.0, 4.0, 5.0, 9.0], dtype=torch.float64).unsqueeze(1)
    mask = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64).unsqueeze(1)
    assert float(episode_sum(x, mask)) == pytest.approx((1 + 2 + 4 + 5) / 2)
    assert float(episode_sum(x[2:], mask[2:])) == pytest.approx(4 + 5)
    assert float(episode_sum(x.flip(0), mask)) == pytest.approx((9 + 5 + 9 + 2) / 2)


def test_weighted_scores_are_the_score_functions_estimator() -> None:
    assert torch.equal(expectation(weighted_scores(returns), LENGTHS), expectation(PLAIN, LENGTHS))


@pytest.mark.parametrize("gae_lambda", [0.0, 0.7, 1.0])
def test_discounted_gae_is_unbiased_with_an_exact_critic(gae_lambda: float) -> None:
    how = weighted_scores(lambda agent, traj: discounted_gae(agent, traj, LENGTHS.gamma, gae_lambda))
    truth = exact.gradient(LENGTHS.problem, LENGTHS.theta, LENGTHS.gamma)
    assert (expectation(how, LENGTHS) - truth).abs().max() < 1e-12


def test_shapes_are_checked() -> None:
    with pytest.raises(UsageError, match=r"behaviour must be float64 of shape \[3, 2\]"):
        Case(reference().problem, reference().theta, reference().direction, behaviour=torch.zeros(3, 2))
