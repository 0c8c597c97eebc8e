"""Importance weights and what they are multiplied with: shared by the claims on importance and horizon."""

from collections.abc import Callable, Iterator
from math import inf, log2

import torch
from torch import Tensor

from pgrad.data import Trajectory
from pgrad.lab import exact
from pgrad.lab.claim import ZERO
from pgrad.lab.claims.common import gradient_error
from pgrad.lab.estimate import Estimator, agent_of, estimator, expectation, variance
from pgrad.lab.problems import Case
from pgrad.math.credit import discount_weight, full_return, reward_to_go
from pgrad.math.importance import (
    per_decision_return,
    prefix_ratio,
    step_ratio,
    trajectory_ratio,
)
from pgrad.math.objectives import score_function

DISTANCES = (0.1, 0.5, 1.0)
"""c of the policies asked about."""


def distances(case: Case) -> Iterator[tuple[float, Case]]:
    """c and the case that asks about the policy θ_old + c·direction."""
    return ((c, case.at(c)) for c in DISTANCES)


Form = Callable[[Case, Tensor, Trajectory], Tensor]
"""form(case, logp, traj) → [T, K]: a weight, or what stands before ∇log π(aₜ|sₜ): a weight times a worth."""

Worth = Callable[[Case, Trajectory], Tensor]
"""worth(case, traj) → [T, K]: a return, or a value of the decision."""


def whole(case: Case, logp: Tensor, traj: Trajectory) -> Tensor:
    """ρ(τ)."""
    return trajectory_ratio(logp, traj.logp, traj.done)


def prefix(case: Case, logp: Tensor, traj: Trajectory) -> Tensor:
    """ρ_{0:t}."""
    return prefix_ratio(logp, traj.logp, traj.done)


def marginal(case: Case, logp: Tensor, traj: Trajectory) -> Tensor:
    """p_new(sₜ, aₜ)/p_old(sₜ, aₜ) = p_new(sₜ)/p_old(sₜ)·ρₜ."""
    new, old = (exact.marginals(case.problem, theta, case.steps) for theta in (case.theta, case.actor))
    states = torch.where(old > 0, new / old, 0.0)
    return states.flatten()[traj.decisions] * step(case, logp, traj)


def step(case: Case, logp: Tensor, traj: Trajectory) -> Tensor:
    """ρₜ."""
    return step_ratio(logp, traj.logp)


def unweighted(case: Case, logp: Tensor, traj: Trajectory) -> Tensor:
    """1."""
    return torch.ones_like(traj.logp)


def total(case: Case, traj: Trajectory) -> Tensor:
    """R(τ), which takes no γᵗ."""
    return full_return(traj.reward, traj.done, case.gamma)


def to_go(case: Case, traj: Trajectory) -> Tensor:
    """γᵗ·Gₜ with the rewards that the old policy got."""
    return _discount(case, traj) * reward_to_go(traj.reward, traj.done, case.gamma)


def new_value(case: Case, traj: Trajectory) -> Tensor:
    """γᵗ·Q_new(sₜ, aₜ)."""
    return _discount(case, traj) * values(case, case.theta).Q.flatten(0, 1)[traj.decisions, traj.action]


def new_advantage(case: Case, traj: Trajectory) -> Tensor:
    """γᵗ·A_new(sₜ, aₜ)."""
    return _discount(case, traj) * values(case, case.theta).A.flatten(0, 1)[traj.decisions, traj.action]


def old_advantage(case: Case, traj: Trajectory) -> Tensor:
    """γᵗ·A_old(sₜ, aₜ)."""
    return _discount(case, traj) * values(case, case.actor).A.flatten(0, 1)[traj.decisions, traj.action]


def times(weight: Form, worth: Worth) -> Form:
    """Their product."""
    return lambda case, logp, traj: weight(case, logp, traj) * worth(case, traj)


def per_decision(case: Case, logp: Tensor, traj: Trajectory) -> Tensor:
    """γᵗ·Σ_l γ^{l−t} ρ_{0:l} r_l."""
    return _discount(case, traj) * per_decision_return(traj.reward, logp, traj.logp, traj.done, case.gamma)


def values(case: Case, theta: Tensor) -> exact.Values:
    """V and Q of a policy."""
    return exact.values(case.problem, theta, case.gamma, case.steps)


def new_logp(case: Case) -> Tensor:
    """log π(aₜ|sₜ) of the policy asked about, [T, K]."""
    return agent_of(case).policy(case.trajectory.decisions).log_prob(case.trajectory.action)


def score_times(form: Form, case: Case) -> Estimator:
    """Σₜ form·∇log π(aₜ|sₜ)."""
    return estimator(
        lambda agent, traj: form(case, agent.policy(traj.decisions).log_prob(traj.action), traj),
        lambda logp, logp_old, advantage: score_function(logp, advantage),
    )


def mean(form: Form, case: Case) -> Tensor:
    """E_old[Σₜ form·∇log π(aₜ|sₜ)]."""
    return expectation(score_times(form, case), case)


def error(form: Form, case: Case) -> float:
    """How far the mean is from ∇J of the policy asked about."""
    return gradient_error(mean(form, case), case)


def errors(form: Form, case: Case, name: str = "rel. error") -> dict[str, float]:
    """`error` by distance of the policies."""
    return {f"{name}, c = {c:g}": error(form, at) for c, at in distances(case)}


def variances(form: Form, case: Case, name: str = "variance") -> dict[str, float]:
    """trVar of the estimate from one trajectory, by distance of the policies."""
    return {f"{name}, c = {c:g}": variance(score_times(form, at), at) for c, at in distances(case)}


def slope(form: Form, case: Case) -> float:
    """The power of c with which `error` grows near θ_old; ∞ where there is none."""
    far, near = (error(form, case.at(c)) for c in (2e-3, 1e-3))
    return log2(far / near) if min(far, near) > ZERO else inf


def mixed(case: Case, states: Tensor, actions: Tensor, worth: Tensor) -> Tensor:
    """Σₜ γᵗ E[∇log π(a|s)·worth_t(s, a)], [O, A]: states of one policy, actions of one, a table of worth.

    What an estimator really computes, in closed form. ∇log π is of the policy asked about.
    """
    assert case.problem.observation is not None
    s, pi = exact.marginals(case.problem, states, case.steps), exact.policy(case.problem, actions)
    weight = s * case.gamma ** torch.arange(case.steps, dtype=s.dtype).unsqueeze(1)
    score = exact.scores(case.theta)[case.problem.observation]
    return torch.einsum("ts,sa,tsa,sai->i", weight, pi, worth, score).view_as(case.theta)


def _discount(case: Case, traj: Trajectory) -> Tensor:
    return discount_weight(traj.done, case.gamma, traj.reward.dtype)
