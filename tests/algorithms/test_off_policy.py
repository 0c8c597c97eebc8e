"""Importance weights through the algorithms that use them: on-policy, by enumeration, at endings."""

import math
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import pgrad as pg
import pgrad.run.conduct
from pgrad.algorithms.critic import gae_credit
from pgrad.algorithms.off_policy_actor_critic import Weighting
from pgrad.algorithms.reinforce import Reuse
from pgrad.data import Trajectory
from pgrad.lab import Case, estimates, exact, expectation, reference
from pgrad.lab.estimate import agent_of
from pgrad.math.objectives import importance_weighted
from pgrad.math.reduce import mean
from tests.algorithms.tools import Table, table, window

WEIGHTINGS: tuple[Weighting, ...] = get_args(Weighting)
REUSES: tuple[Reuse, ...] = get_args(Reuse)
SHIFTS = (0.1, 0.5, 1.0)  # θ = θ_old + c·direction
GAMMA = 0.9
UNLIMITED: dict[str, Any] = {"rho_max": math.inf, "c_max": math.inf}
T = 4  # decisions of every episode of the reference problem: a mean over decisions is a sum over four


def off_policy(weighting: Weighting, **changed: Any) -> pg.OffPolicyActorCritic:
    """Of the discounted objective, without entropy bonus and truncation."""
    options = {"gamma": GAMMA, "ent_coef": 0.0, "discount_decisions": True} | UNLIMITED | changed
    return pg.OffPolicyActorCritic(weighting=weighting, **options)


def error(estimate: Tensor, case: Case) -> float:
    truth = exact.gradient(case.problem, case.theta, case.gamma)
    return float((estimate - truth).norm() / truth.norm())


def no_critic(case: Case) -> Tensor:
    return torch.zeros(T + 1, case.problem.n_states, dtype=torch.float64)


def wrong_critic(case: Case) -> Tensor:
    draw = torch.Generator().manual_seed(7)
    critic = torch.randn(T + 1, case.problem.n_states, generator=draw, dtype=torch.float64)
    critic[-1] = 0.0
    return critic


# ---------------------------------------------------------------- on-policy


@pytest.mark.parametrize("gae_lambda", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_on_policy_every_weighting_is_gae(weighting: Weighting, gae_lambda: float) -> None:
    """With episodes that end, are cut off, and resets among them; V-trace with ρ̄ = c̄ = ∞ and with 1."""
    agent = table(1)
    traj = window(agent, T=20, B=6, seed=2)
    expected = gae_credit(agent, traj, GAMMA, gae_lambda)
    for limit in (math.inf, 1.0):
        algorithm = pg.OffPolicyActorCritic(
            weighting=weighting, gamma=GAMMA, gae_lambda=gae_lambda, rho_max=limit, c_max=limit
        )
        batch = algorithm.credit(agent, traj)
        torch.testing.assert_close(batch.advantage, expected.advantage)
        torch.testing.assert_close(batch.target, expected.target)
        assert torch.equal(batch.weight, torch.ones_like(traj.reward))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_off_policy_they_all_differ(weighting: Weighting) -> None:
    """The comparison above can fail."""
    traj = window(table(1), T=20, B=6, seed=2)
    credits = {w: pg.OffPolicyActorCritic(weighting=w).credit(table(3), traj) for w in WEIGHTINGS}
    own = credits.pop(weighting)
    assert not any(torch.allclose(own.advantage, other.advantage) for other in credits.values())
    assert all(torch.equal(own.target, other.target) for other in credits.values())


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_without_replay_it_is_a2c(weighting: Weighting) -> None:
    common: dict[str, Any] = {"n_steps": 16, "learning_rate": 3e-3, "gae_lambda": 0.9, "optimizer": "adam"}
    common["max_grad_norm"] = math.inf  # else A2C clips both gradients as one
    setting: dict[str, Any] = {"total_timesteps": 400, "n_envs": 4, "seed": 5}
    a2c = pg.train(pg.A2C(**common), "cartpole", **setting)
    algorithm = pg.OffPolicyActorCritic(weighting=weighting, replay_ratio=0, **common)
    own = pg.train(algorithm, "cartpole", **setting)
    for name, p in a2c.agent.state_dict().items():
        assert torch.allclose(p, own.agent.state_dict()[name], atol=2e-5), name


# ---------------------------------------------------------------- by enumeration (the audit's numbers)


@pytest.mark.parametrize(
    ("weighting", "variances"),
    [
        ("trajectory", (3.58, 11.6, 55.73)),
        ("per-decision", (3.39, 8.04, 24.84)),
    ],  # M-50, L-23; M-51 (b), L-24
)
def test_exact_forms(weighting: Weighting, variances: tuple[float, ...]) -> None:
    """E[ĝ] = ∇J(π) from episodes of μ, whatever the critic says; the variances are those without one."""
    for c, variance in zip(SHIFTS, variances, strict=True):
        case = reference().at(c)
        for critic in (no_critic(case), wrong_critic(case)):
            assert error(T * expectation(off_policy(weighting), case, critic), case) < 1e-12
        found = estimates(off_policy(weighting), case, no_critic(case))
        assert T**2 * found.variance == pytest.approx(variance, rel=5e-3)


def test_a_good_critic_lowers_the_variance_of_the_per_decision_form() -> None:
    case = reference().at(1.0)
    critic = exact.values(case.problem, case.theta, GAMMA, T).V
    with_critic = T**2 * estimates(off_policy("per-decision"), case, critic).variance
    assert error(T * expectation(off_policy("per-decision"), case, critic), case) < 1e-12
    assert with_critic < 0.5 * 24.84


def test_the_notes_causal_form() -> None:
    """ρ_{0:t} on reward-to-go (M-51 (a), L-25): biased, and no critic changes that."""
    errors, variances = (5.0e-3, 3.6e-2, 9.1e-2), (3.11, 4.89, 8.86)
    for c, wrong, variance in zip(SHIFTS, errors, variances, strict=True):
        case = reference().at(c)
        for critic in (no_critic(case), wrong_critic(case)):
            estimate = T * expectation(off_policy("prefix"), case, critic)
            assert error(estimate, case) == pytest.approx(wrong, rel=0.02)
        found = estimates(off_policy("prefix"), case, no_critic(case))
        assert T**2 * found.variance == pytest.approx(variance, rel=5e-3)


def test_the_step_ratio_with_the_old_advantage() -> None:
    """L-29: 7.0e-3, 3.4e-2, 7.5e-2, of the first order in c, and none at c = 0."""
    for c, wrong in zip((0.0, *SHIFTS), (0.0, 7.0e-3, 3.4e-2, 7.5e-2), strict=True):
        case = reference().at(c)  # whose critic is V of μ
        assert error(T * expectation(off_policy("step"), case), case) == pytest.approx(
            wrong, rel=0.02, abs=1e-12
        )


def test_the_step_ratio_is_the_gradient_of_its_surrogate() -> None:
    """M-55, M-57: what is ascended is ∇ of mean(ρₜ·Âₜ), differentiated through the ratio."""
    case = reference().at(0.5)
    agent, traj = agent_of(case), case.trajectory
    algorithm = off_policy("step", discount_decisions=False)
    advantage = gae_credit(agent, traj, GAMMA, 1.0).advantage
    agent.theta = agent.theta.clone().requires_grad_()
    logp = agent.policy(traj.decisions).log_prob(traj.action)
    surrogate = mean(importance_weighted(logp, traj.logp, advantage), traj.mask)
    wanted = torch.autograd.grad(surrogate, agent.theta)[0]
    torch.testing.assert_close(expectation(algorithm, case), wanted)


def test_vtrace_without_truncation_drops_the_ratio_of_states_only() -> None:
    """L-28, M-53: what follows sₜ₊₁ is corrected exactly, how sₜ was reached is not; whatever the critic."""
    for c, wrong in zip(SHIFTS, (9.0e-3, 4.3e-2, 7.9e-2), strict=True):
        case = reference().at(c)
        for critic in (None, no_critic(case), wrong_critic(case)):
            estimate = T * expectation(off_policy("vtrace"), case, critic)
            assert error(estimate, case) == pytest.approx(wrong, rel=0.02)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_critics_targets(weighting: Weighting) -> None:
    """E_μ[v | sₜ] = V^π without truncation, for any critic and weighting; truncated it is not."""
    case = reference().at(1.0)
    truth = exact.values(case.problem, case.theta, GAMMA, T).V[:-1].flatten()
    traj = case.trajectory
    obs, p = traj.decisions.flatten(), traj.mask.flatten()
    for limit, exactly in ((math.inf, True), (1.0, False)):
        algorithm = off_policy(weighting, rho_max=limit, c_max=limit)
        target = algorithm.credit(agent_of(case, wrong_critic(case)), traj).target
        assert target is not None
        total, weight = (
            torch.zeros(T * 3, dtype=p.dtype).index_add(0, obs, x) for x in (p * target.flatten(), p)
        )
        assert torch.allclose(total / weight, truth, atol=1e-12) == exactly


@pytest.mark.parametrize(
    ("c", "share", "largest"), [(0.1, 0.9887, 1.56), (0.5, 0.7366, 7.92), (1.0, 0.3039, 40.8)]
)
def test_diagnostics(c: float, share: float, largest: float) -> None:
    """L-21, M-56: the effective sample size of whole trajectories, as a share, and the largest ratio."""
    case = reference().at(c)
    agent = agent_of(case)
    whole = off_policy("trajectory")
    traj = case.trajectory
    _, metrics = whole.loss(agent, whole.credit(agent, traj))
    assert metrics["train/ess"] == pytest.approx(share, abs=5e-5)
    assert metrics["train/max_ratio"] == pytest.approx(largest, abs=0.05)
    kl = exact.policy(case.problem, case.actor).log() - exact.policy(case.problem, case.theta).log()
    each = (exact.policy(case.problem, case.actor) * kl).sum(1)  # KL(μ‖π) [S]
    visits = exact.marginals(case.problem, case.actor, T).mean(0)
    assert metrics["train/approx_kl"] == pytest.approx(float(visits @ each), rel=1e-9)
    truncated = pg.OffPolicyActorCritic(rho_max=1.2)
    _, metrics = truncated.loss(agent, truncated.credit(agent, traj))
    ratio = (agent.policy(traj.decisions).log_prob(traj.action) - traj.logp).exp()
    share_beyond = mean((ratio > 1.2).double(), traj.mask)
    assert metrics["train/truncated_share"] == pytest.approx(float(share_beyond))
    assert metrics["train/max_ratio"] == ratio.max()
    assert metrics["train/ess"] > share


@pytest.mark.parametrize(
    ("form", "variances"),
    [
        ({"weighting": "trajectory", "reward_to_go": False}, (7.41, 25.5, 134.06)),  # M-49, L-23
        ({"weighting": "trajectory", "discount_decisions": True}, (3.58, 11.6, 55.73)),  # M-50
        ({"weighting": "per-decision", "discount_decisions": True}, (3.39, 8.04, 24.84)),  # M-51 (b), L-24
    ],
)
def test_reinforce_with_old_episodes(form: dict[str, Any], variances: tuple[float, ...]) -> None:
    """E[ĝ] = ∇J(π) from episodes of μ, with no baseline and with any learned one."""
    for c, variance in zip(SHIFTS, variances, strict=True):
        case = reference().at(c)
        plain = pg.Reinforce(gamma=GAMMA, baseline="none", reuse=1, **form)
        learned = pg.Reinforce(gamma=GAMMA, baseline="value", reuse=1, **form)
        assert error(expectation(plain, case), case) < 1e-12
        assert error(expectation(learned, case, wrong_critic(case)), case) < 1e-12
        assert estimates(plain, case).variance == pytest.approx(variance, rel=5e-3)


@pytest.mark.parametrize("weighting", REUSES)
@pytest.mark.parametrize(("baseline", "factor"), [("leave-one-out", 1.0), ("mean", 0.5)])
def test_reinforce_baselines_of_the_other_old_episode(weighting: Reuse, baseline: Any, factor: float) -> None:
    """All pairs of episodes of μ: the mean of the others has no bias, the mean of all the factor 1 − 1/N."""
    case = reference().at(0.5)
    case = replace(case, problem=replace(case.problem, horizon=1))
    algorithm = pg.Reinforce(
        gamma=GAMMA, baseline=baseline, reuse=1, weighting=weighting, discount_decisions=True
    )
    found = estimates(algorithm, case, episodes=2).mean.reshape(case.theta.shape)
    if baseline == "leave-one-out":
        assert error(found, case) < 1e-12
    else:  # the own return is weighted, what is subtracted of it too
        assert error(found / factor, case) < 1e-12


def test_old_data_without_weights_are_biased() -> None:
    """L-22, M-56: without `reuse` the same credit takes episodes of μ for its own: 4.4e-2, .168, .231."""
    for c, wrong in zip(SHIFTS, (4.4e-2, 0.168, 0.231), strict=True):
        case = reference().at(c)
        unweighted = pg.Reinforce(gamma=GAMMA, baseline="none", discount_decisions=True)
        assert error(expectation(unweighted, case), case) == pytest.approx(wrong, rel=0.02)


# ---------------------------------------------------------------- endings


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("terminated", [True, False])
def test_a_time_limit_is_no_end(weighting: Weighting, terminated: bool) -> None:
    """One decision, the end of its episode, and a reset: w = ρ·(r + γ·V(true last observation) − V(s))."""
    agent = Table(torch.tensor([[0.0, 0.0]] * 3), torch.tensor([1.0, 5.0, 100.0]))
    traj = Trajectory(
        obs=torch.tensor([[0], [1], [2]]),
        action=torch.tensor([[0], [0]]),
        logp=torch.log(torch.tensor([[0.4], [0.01]])),  # of the reset row a wild one
        reward=torch.tensor([[2.0], [0.0]]),
        terminated=torch.tensor([[terminated], [False]]),
        done=torch.tensor([[True], [True]]),
        mask=torch.tensor([[1.0], [0.0]]),
    )
    batch = pg.OffPolicyActorCritic(weighting=weighting, gamma=0.5, rho_max=9.0, c_max=9.0).credit(
        agent, traj
    )
    surprise = 2.0 - 1.0 if terminated else 2.0 + 0.5 * 5.0 - 1.0
    assert batch.advantage[0, 0] == pytest.approx(1.25 * surprise)
    assert batch.target is not None
    assert batch.target[0, 0] == pytest.approx(1.0 + 1.25 * surprise)
    assert batch.weight is not None
    assert batch.weight[0, 0] == pytest.approx(1.25)


def test_products_do_not_reach_across_episodes() -> None:
    """Changing μ in the second episode of a column changes nothing in the first, and vice versa."""
    agent, other = table(1), table(3)
    traj = window(agent, T=16, B=8, seed=3)
    later = torch.cat([torch.zeros(1, 8, dtype=torch.bool), traj.done[:-1].cummax(0).values])
    for weighting in WEIGHTINGS:
        algorithm = pg.OffPolicyActorCritic(weighting=weighting)
        own = algorithm.credit(other, traj)
        for rows_ in (later, ~later):
            changed = algorithm.credit(other, replace(traj, logp=traj.logp - 0.3 * rows_))
            assert torch.equal(own.advantage[~rows_], changed.advantage[~rows_])
            assert not torch.equal(own.advantage[rows_], changed.advantage[rows_])
