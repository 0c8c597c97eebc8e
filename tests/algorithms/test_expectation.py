"""Exact expectations: all 1296 trajectories of the reference problem in one batch, with mask = p(τ).

The very `credit` and `loss` that train are held against ∇J, differentiated through the dynamic programme.
"""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from pgrad.algorithms import A2C, PPO, PPOKL, ActorCritic, Reinforce
from pgrad.algorithms.critic import value_loss
from pgrad.data import Trajectory
from pgrad.errors import UsageError
from tests.algorithms.tools import Descent, Table, gradients
from tests.math.oracles import THETA_OLD, Lab, relative_error

LAB = Lab()
GAMMA = 0.9


def everything(theta: Tensor = THETA_OLD) -> Trajectory:
    """All trajectories as columns; an observation is 3·t + s, of which the actor sees s and the critic
    all."""
    state = torch.cat([LAB.state, torch.zeros(1, 1296, dtype=torch.int64)])
    obs = state + 3 * torch.arange(5).unsqueeze(1)
    return Trajectory(
        obs=obs,
        action=LAB.action,
        logp=LAB.logp(theta),
        reward=LAB.reward,
        terminated=LAB.done,
        done=LAB.done,
        mask=LAB.p(theta).expand(4, 1296),
    )


def agent(theta: Tensor = THETA_OLD, critic: Tensor | None = None) -> Table:
    """The tabular softmax with a critic that is wrong by far, unless given: [15]."""
    return Table(theta, torch.linspace(-2.0, 3.0, 15, dtype=torch.float64) if critic is None else critic)


def exact_critic(gamma: float) -> Tensor:
    """V_t(s) of the old policy, [15]."""
    return LAB.values(THETA_OLD, gamma)[0].flatten()


def ascent(algorithm: Any, who: Table) -> Tensor:
    """−∇loss for the policy on everything that can happen, [6]."""
    batch = algorithm.credit(who, everything(who.theta.detach()))
    return -gradients(who, algorithm.loss(who, batch)[0])["theta"].flatten()


@pytest.mark.parametrize("baseline", ["none", "mean", "optimal", "value"])
@pytest.mark.parametrize("form", [{"discount_decisions": True}, {"reward_to_go": False}])
def test_reinforce_is_the_gradient(form: dict[str, bool], baseline: Any) -> None:
    """E[ĝ] = ∇J for γᵗ·G and for the full return, with any baseline (weights are exact, so none is a
    sample's)."""
    algorithm = Reinforce(gamma=GAMMA, baseline=baseline, **form)
    truth = LAB.gradient(THETA_OLD, GAMMA)
    assert relative_error(ascent(algorithm, agent()), truth) < 1e-12


def test_without_the_weight_it_is_not() -> None:
    """Option 1 of the notes (L-06): relative error .161, cosine .999687 for γ = .9; none for γ = 1."""
    truth = LAB.gradient(THETA_OLD, GAMMA)
    estimate = ascent(Reinforce(gamma=GAMMA, baseline="none"), agent())
    assert relative_error(estimate, truth) == pytest.approx(0.161, abs=5e-4)
    assert torch.cosine_similarity(estimate, truth, dim=0) == pytest.approx(0.999687, abs=1e-6)
    undiscounted = ascent(Reinforce(gamma=1.0, baseline="none"), agent())
    assert relative_error(undiscounted, LAB.gradient(THETA_OLD, 1.0)) < 1e-12


def test_the_full_return_is_discounted_already() -> None:
    """γᵗ·R(τ) would be no gradient; it cannot be asked for."""
    with pytest.raises(UsageError, match="discount_decisions needs reward_to_go"):
        Reinforce(reward_to_go=False, discount_decisions=True)


@pytest.mark.parametrize(
    ("form", "baseline", "expected"),
    [
        ({"reward_to_go": False}, "none", 5.7639),
        ({"reward_to_go": False}, "mean", 5.1931),
        ({"reward_to_go": False}, "optimal", 4.6167),
        ({"discount_decisions": True}, "none", 2.8095),
        ({"discount_decisions": True}, "value", 2.9201),
    ],
)
def test_variances(form: dict[str, bool], baseline: Any, expected: float) -> None:
    """The trace of the covariance of one trajectory's estimate (L-05, L-13, L-16): V is worse than nothing
    here."""
    who = agent(critic=exact_critic(GAMMA))
    batch = Reinforce(gamma=GAMMA, baseline=baseline, **form).credit(who, everything())
    assert LAB.moments(THETA_OLD, batch.advantage)[1] == pytest.approx(expected, abs=1e-4)


def test_the_optimal_baseline() -> None:
    """b* = E[|g|²R]/E[|g|²] = .8405, the same for every decision (M-16)."""
    batch = Reinforce(gamma=GAMMA, baseline="optimal", reward_to_go=False).credit(agent(), everything())
    ret = Reinforce(gamma=GAMMA, baseline="none", reward_to_go=False).credit(agent(), everything())
    assert ret.advantage - batch.advantage == pytest.approx(torch.full((4, 1296), 0.8405), abs=5e-5)


@pytest.mark.parametrize(("baseline", "factor"), [("none", 1.0), ("mean", 0.5), ("leave-one-out", 1.0)])
@pytest.mark.parametrize("reward_to_go", [True, False])
def test_own_return_in_the_mean(baseline: Any, factor: float, reward_to_go: bool) -> None:
    """Over all pairs of two-step episodes: E[ĝ] = (1 − 1/N)·∇J for the batch mean, ∇J for the mean of the
    others."""
    theta = torch.tensor([[0.3, -0.5], [0.7, 0.1]], dtype=torch.float64)
    reward = torch.tensor([[1.0, -2.0], [3.0, 0.5]], dtype=torch.float64)
    algorithm = Reinforce(gamma=1.0, baseline=baseline, reward_to_go=reward_to_go)
    who = Table(theta, torch.zeros(2, dtype=torch.float64))
    step = torch.tensor([[0, 0], [1, 1]])
    pi = theta.softmax(1)
    total = torch.zeros(2, 2, dtype=torch.float64)
    for a, b, c, d in product(range(2), repeat=4):
        action = torch.tensor([[a, b], [c, d]])
        traj = Trajectory(
            obs=torch.cat([step, step[:1]]),
            action=action,
            logp=theta.log_softmax(1)[step, action],
            reward=reward[step, action],
            terminated=step == 1,
            done=step == 1,
            mask=torch.ones(2, 2, dtype=torch.float64),
        )
        batch = algorithm.credit(who, traj)
        total -= gradients(who, algorithm.loss(who, batch)[0])["theta"] * pi[step, action].prod()
    truth = pi * (reward - (pi * reward).sum(1, keepdim=True))  # ∂/∂θₛₐ of Σₛ Σₐ π(a|s)·r(s,a)
    assert torch.allclose(total, factor * truth, atol=1e-14)


@pytest.mark.parametrize(
    "algorithm",
    [
        A2C(gamma=1.0, gae_lambda=1.0, ent_coef=0.0, vf_coef=0.0),
        PPO(gamma=1.0, gae_lambda=1.0, ent_coef=0.0, vf_coef=0.0, normalize_advantage=False),
        PPOKL(gamma=1.0, gae_lambda=1.0, ent_coef=0.0, vf_coef=0.0, normalize_advantage=False),
        ActorCritic(gamma=1.0, n_steps=4, bootstrap_steps=None, ent_coef=0.0),
    ],
)
def test_means_over_decisions_are_the_gradient_over_t(algorithm: Any) -> None:
    """For γ = λ = 1 every one of them is ∇J/T at θ_old, whatever the critic says (L-30 with E_t weights)."""
    truth = LAB.gradient(THETA_OLD, 1.0) / 4
    assert relative_error(ascent(algorithm, agent()), truth) < 1e-12


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95])
def test_any_lambda_is_unbiased_with_an_exact_critic(gae_lambda: float) -> None:
    """And with a wrong one, λ < 1 is biased (E-42)."""
    algorithm = A2C(gamma=1.0, gae_lambda=gae_lambda, ent_coef=0.0, vf_coef=0.0)
    truth = LAB.gradient(THETA_OLD, 1.0) / 4
    assert relative_error(ascent(algorithm, agent(critic=exact_critic(1.0))), truth) < 1e-12
    assert relative_error(ascent(algorithm, agent()), truth) > 1e-2


def test_the_critics_fixed_point_is_the_value() -> None:
    """At V = V^π the expected TD error of every state is 0, and that of Monte-Carlo returns too (M-30,
    M-31, M-41)."""
    who = agent(critic=exact_critic(GAMMA))
    for n in (1, 2, None):
        algorithm = ActorCritic(gamma=GAMMA, n_steps=4, bootstrap_steps=n)
        batch = algorithm.credit(who, everything())
        grad = gradients(who, value_loss(who, batch)[0])["critic"]
        assert grad.abs().max() < 1e-15


def test_one_small_step_raises_the_objective() -> None:
    """ΔJ = α·|∇J|² to first order, for the step that `update` makes (M-07)."""
    who, alpha = agent(), 1e-6
    before = LAB.objective(THETA_OLD, GAMMA)
    algorithm = Reinforce(gamma=GAMMA, baseline="none", discount_decisions=True)
    algorithm.update(Descent(who, alpha), everything())
    gain = LAB.objective(who.theta.detach(), GAMMA) - before
    assert gain / alpha == pytest.approx(0.99957**2, rel=1e-4)


def test_signs_over_fifty_steps() -> None:
    """J rises; with the entropy bonus the policy ends less certain; with the sign of E-31 J falls."""
    ends: dict[str, tuple[float, float]] = {}
    for name, rate, bonus in (("plain", 0.1, 0.0), ("entropy", 0.1, 0.5), ("wrong", -0.1, 0.0)):
        who = agent()
        algorithm = A2C(gamma=GAMMA, gae_lambda=1.0, ent_coef=bonus, vf_coef=0.0)
        for _ in range(50):
            algorithm.update(Descent(who, rate), everything(who.theta.detach()))
        theta = who.theta.detach()
        pi = theta.softmax(1)
        ends[name] = float(LAB.objective(theta, GAMMA)), float(-(pi * pi.log()).sum(1).mean())
    start = float(LAB.objective(THETA_OLD, GAMMA))
    assert ends["wrong"][0] < start < ends["plain"][0]
    assert ends["plain"][1] < ends["entropy"][1]


def test_kl_penalty_optimum() -> None:
    """On a bandit, ascending E_old[r·A] − β·KL(π_old‖π) ends where π = β·π_old/(λ − A), λ from Σπ = 1 (eq.
    8)."""
    old = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
    advantage, beta = torch.tensor([[1.0, -0.4, 0.0]], dtype=torch.float64), 0.8
    who = Table(old.log(), torch.zeros(1, dtype=torch.float64))
    algorithm = PPOKL(beta=beta, ent_coef=0.0, vf_coef=0.0, normalize_advantage=False)
    obs, action = torch.zeros(2, 3, dtype=torch.int64), torch.arange(3).unsqueeze(0)
    flags = torch.ones(1, 3, dtype=torch.bool)
    traj = Trajectory(obs, action, old.log(), advantage, flags, flags, old)
    batch = algorithm.credit(who, traj)
    learner = Descent(who, 2.0)
    for _ in range(300):
        learner.descend(algorithm.loss, batch)
    low, high = float(advantage.max()) + 1e-9, 10.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (
            (middle, high) if float((beta * old / (middle - advantage)).sum()) > 1.0 else (low, middle)
        )
    expected = beta * old / (low - advantage)
    assert torch.allclose(who.theta.detach().softmax(1), expected, atol=1e-6)
    assert math.isclose(float(expected.sum()), 1.0, abs_tol=1e-9)
