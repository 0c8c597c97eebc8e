"""What claims about the objective measure: J and its gradient in every form the theorem is written in."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pgrad.algorithms import Reinforce
from pgrad.lab import exact
from pgrad.lab.claim import ZERO, Measured
from pgrad.lab.claims.common import (
    ROUNDING,
    given,
    gradient_error,
    room,
    rounded_error,
    row,
    same,
    size,
    true_gradient,
)
from pgrad.lab.claims.returns import (
    action_values,
    bandit,
    decision_key,
    discounted,
    error_of,
    look_up,
    scored,
    shortened,
    to_go,
    values_of,
)
from pgrad.lab.estimate import cosine, estimates, estimator, expectation, variance
from pgrad.lab.problems import Case
from pgrad.math.credit import discount_weight, full_return
from pgrad.math.distributions import Categorical
from pgrad.math.objectives import score_function
from pgrad.math.reduce import constant, mean


def reinforce(case: Case, *, whole: bool = False, weighted: bool = False) -> Reinforce:
    """REINFORCE as it ships, without a baseline: on whole returns, or on reward-to-go with γᵗ or without."""
    return Reinforce(gamma=case.gamma, reward_to_go=not whole, discount_decisions=weighted, baseline="none")


def undiscounted(case: Case) -> Case:
    """The same at γ = 1."""
    return replace(case, gamma=1.0)


def powers(case: Case) -> Tensor:
    """γᵗ, [T]."""
    return case.gamma ** torch.arange(case.steps, dtype=torch.float64)


def field(case: Case, weighted: bool) -> Callable[[Tensor], Tensor]:
    """θ ↦ Σ_t [γᵗ] Σ_s P(s_t = s) Σ_a ∇π(a|s)·Q_t(s, a): what reward-to-go estimates, differentiable."""
    problem = case.problem
    discount = powers(case if weighted else undiscounted(case)).unsqueeze(1)

    def pull(theta: Tensor) -> Tensor:
        reached = exact.marginals(problem, theta, case.steps) * discount
        weight = reached.unsqueeze(-1) * exact.values(problem, theta, case.gamma, case.steps).Q
        slope: Tensor = torch.func.grad(lambda new: (weight * exact.policy(problem, new)).sum())(theta)
        return slope

    return pull


def asymmetry(case: Case, weighted: bool) -> float:
    """‖D − Dᵀ‖ / ‖D + Dᵀ‖ of the field's Jacobian D: 0 where the field is the gradient of something."""
    jacobian = torch.func.jacrev(field(case, weighted))(case.theta).reshape(case.theta.numel(), -1)
    gap, both = float((jacobian - jacobian.T).norm()), float((jacobian + jacobian.T).norm())
    rounded = gap <= ROUNDING * case.steps**2 * size(case)
    return 0.0 if rounded else gap / (both if both > ZERO else 1.0)


def correlations(case: Case) -> tuple[float, float]:
    """The greatest length of E[∇log π(a_t|s_t)·r_l] over l < t, and over l ≥ t."""

    def at(t: int, when: int) -> float:
        own = torch.arange(T).unsqueeze(1) == t
        return float(expectation(scored(lambda traj: own * traj.reward[when]), case).norm())

    T = case.steps
    past = [at(t, when) for t in range(T) for when in range(t)]
    return max(past, default=0.0), max(at(t, when) for t in range(T) for when in range(t, T))


def enumeration(case: Case) -> Measured:
    """Σ p(τ), and J in two ways, at the case's γ and at 1."""
    traj, p = case.trajectory, case.trajectory.mask[0]

    def both(gamma: float) -> tuple[float, float]:
        counted = constant(full_return(traj.reward, traj.done, gamma)[0], p, 1.0)
        return float(exact.objective(case.problem, case.theta, gamma)), float(counted)

    (J, counted), (J_one, counted_one) = both(case.gamma), both(1.0)
    excess = float(p.sum()) - 1
    return Measured(
        holds=abs(excess) < ZERO and abs(J - counted) < ZERO * size(case),
        right=abs(J_one - counted_one) < ZERO * size(case),
        numbers={
            "Σp − 1": excess,
            "J by dynamic programming": J,
            "J by enumeration": counted,
            "J by enumeration, γ = 1": counted_one,
        },
    )


def zero_mean(case: Case) -> Measured:
    """E_a[∇log π(a|o)] by differentiating the policy that ships, for every observation."""
    O, A = case.theta.shape  # noqa: E741
    action = torch.arange(A).expand(O, A)

    def log_pi(theta: Tensor) -> Tensor:
        return Categorical(theta.unsqueeze(1).expand(O, A, A)).log_prob(action)

    score = torch.func.jacrev(log_pi)(case.theta).reshape(O, A, -1)
    largest = float(torch.einsum("oa,oap->op", case.theta.softmax(1), score).abs().max())
    apart = float((score - exact.scores(case.theta)).abs().max())
    return Measured(largest < ZERO, apart < ZERO, {"max |E score|": largest, "score − closed form": apart})


def on_full_return(case: Case) -> Measured:
    """REINFORCE in its first form, at the case's γ and at 1."""
    spread, one = estimates(reinforce(case, whole=True), case), undiscounted(case)
    error = gradient_error(spread.mean, case)
    at_one = gradient_error(expectation(reinforce(one, whole=True), one), one)
    return Measured(
        holds=error < ZERO,
        right=at_one < ZERO,
        numbers={"rel. error": error, "variance": spread.variance, "rel. error, γ = 1": at_one},
    )


def causality(case: Case) -> Measured:
    """What the score of a decision has to do with rewards before and after it."""
    past, later = correlations(case)
    return Measured(past < room(case), later > room(case), {"earlier rewards": past, "later rewards": later})


def influence(case: Case) -> Measured:
    """How far E[R₁ | s₀, a₀] = E[V₁(s₁) | s₀, a₀] moves with a₀."""
    after = case.problem.P @ values_of(case).V[1]
    spread = float((after.amax(1) - after.amin(1))[case.problem.rho0 > 0].max())
    past, later = correlations(case)
    return Measured(
        holds=spread < room(case),
        right=past < room(case),
        numbers={"move of E R₁ with a₀": spread, "score · earlier r": past, "score · later r": later},
    )


def on_reward_to_go(case: Case) -> Measured:
    """REINFORCE with γᵗ and reward-to-go, whose scan is held against the double sum."""
    traj, steps = case.trajectory, torch.arange(case.steps)
    spread = estimates(reinforce(case, weighted=True), case)
    error = gradient_error(spread.mean, case)
    brute = torch.triu(case.gamma ** (steps - steps.unsqueeze(1)).clamp(min=0).to(torch.float64))
    apart = float((to_go(case, traj) - brute @ traj.reward).abs().max())
    return Measured(
        holds=error < ZERO,
        right=apart < room(case),
        numbers={
            "rel. error": error,
            "variance": spread.variance,
            "variance of the full return": variance(reinforce(case, whole=True), case),
            "G − Σγˡ⁻ᵗr": apart,
        },
    )


def without_discount(case: Case) -> Measured:
    """REINFORCE as most write it, against the gradient of the discounted objective, and at γ = 1."""
    found, truth, one = expectation(reinforce(case), case), true_gradient(case), undiscounted(case)
    error = gradient_error(found, case)
    at_one = gradient_error(expectation(reinforce(one), one), one)
    return Measured(
        holds=error < ZERO,
        right=at_one < ZERO,
        numbers={
            "rel. error": error,
            "cosine": cosine(found, truth),
            "|E ĝ|": float(found.norm()),
            "|∇J|": float(truth.norm()),
            "rel. error, γ = 1": at_one,
        },
    )


def not_a_gradient(case: Case) -> Measured:
    """The Jacobians of both fields, of which the first is what REINFORCE without γᵗ follows."""
    ours, half, one = (asymmetry(replace(case, gamma=x), weighted=False) for x in (case.gamma, 0.5, 1.0))
    weighted = asymmetry(case, weighted=True)
    found = expectation(reinforce(case), case)
    apart = rounded_error(field(case, weighted=False)(case.theta), found, case.steps * size(case))
    return Measured(
        holds=ours < ZERO,
        right=max(weighted, one, apart) < ZERO,
        numbers={"asymmetry": ours, "γ = ½": half, "γ = 1": one, "with γᵗ": weighted},
    )


def value_forms(case: Case) -> Measured:
    """γᵗ·score·Q and γᵗ·score·A with the exact values."""
    values = values_of(case)
    Q, A = (estimates(action_values(case, table), case) for table in (values.Q, values.A))
    errors = [gradient_error(x.mean, case) for x in (Q, A)]
    centred = float((exact.policy(case.problem, case.theta) * values.A).sum(-1).abs().max())
    return Measured(
        holds=max(errors) < ZERO,
        right=centred < room(case),
        numbers={
            "rel. error with Q": errors[0],
            "rel. error with A": errors[1],
            "variance with Q": Q.variance,
            "variance with A": A.variance,
            "max |E_π A|": centred,
        },
    )


def without_sum(case: Case) -> Measured:
    """The first term alone, the average over t, and the sum."""
    T, truth = case.steps, true_gradient(case)
    first_row = torch.arange(T).unsqueeze(1) == 0
    first = expectation(scored(lambda traj: to_go(case, traj) * first_row), case)
    average = expectation(discounted(case, lambda traj: to_go(case, traj) / T), case)
    errors = gradient_error(first, case), gradient_error(average, case)
    return Measured(
        holds=min(errors) < ZERO,
        right=gradient_error(T * average, case) < ZERO,
        numbers={
            "first term, rel. error": errors[0],
            "first term, cosine": cosine(first, truth),
            "average over t, rel. error": errors[1],
        },
    )


def visitation(case: Case) -> Measured:
    """A mean over decisions drawn with weight γᵗ·P(s_t = s), and the sum with these weights."""
    Q = values_of(case).Q
    discount = discount_weight(case.trajectory.done, case.gamma, torch.float64)

    def weighted(reduce: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        how = estimator(
            lambda agent, traj: look_up(case, Q, traj),
            lambda logp, _, credit: score_function(logp, credit),
            lambda x, mask: reduce(x, mask * discount),
        )
        return expectation(how, case)

    sampled, summed = weighted(mean), weighted(lambda x, mask: constant(x, mask, 1.0))
    mass = float(exact.visitation(case.problem, case.theta, case.gamma, case.steps).sum())
    errors = [gradient_error(x, case) for x in (sampled, summed, mass * sampled)]
    return Measured(
        holds=errors[0] < ZERO,
        right=max(errors[1:]) < ZERO,
        numbers={
            "mass of dᵖⁱ": mass,
            "rel. error of the mean": errors[0],
            "rel. error of the sum": errors[1],
            "rel. error of mass · mean": errors[2],
        },
    )


def conditional_return(case: Case) -> Measured:
    """E[R(τ) | s_t, a_t] by enumeration against Q_t, everywhere and at one decision halfway."""
    traj, Q = case.trajectory, values_of(case).Q
    rest = discount_weight(traj.done, case.gamma, torch.float64) * to_go(case, traj)
    whole = full_return(traj.reward, traj.done, case.gamma)
    found, past = (given(x, decision_key(case, traj), traj.mask, Q.numel()) for x in (whole, whole - rest))
    taken = (found.mass > 0).reshape(Q.shape)
    R, before, later = (
        found.mean.reshape(Q.shape),
        past.mean.reshape(Q.shape),
        powers(case)[:, None, None] * Q,
    )
    lost = expectation(scored(lambda traj: look_up(case, before, traj)), case)
    gap = float((R - Q)[taken].abs().max())
    half = case.steps // 2
    return Measured(
        holds=gap < room(case),
        right=max(float((R - before - later)[taken].abs().max()), float(lost.norm())) < room(case),
        numbers={
            "max |E[R|s,a] − Q|": gap,
            "E[R | s=0, a=0] halfway": float(R[half, 0, 0]),
            "Q(0, 0) halfway": float(Q[half, 0, 0]),
            "γᵗQ(0, 0) halfway": float(later[half, 0, 0]),
        },
    )


def sample_mean(case: Case) -> Measured:
    """The error of a mean over m trajectories; that it falls as 1/√m is counted out on a single decision."""
    how, short = reinforce(case, whole=True), shortened(case, 1, 3)
    length = float(true_gradient(case).norm())
    one, hundred = ((variance(how, case) / m) ** 0.5 / length for m in (1, 100))
    law = [m * variance(how, short, episodes=m) for m in (1, 2, 3)]
    return Measured(
        holds=one < ZERO,
        right=error_of(case, scored(lambda traj: full_return(traj.reward, traj.done, case.gamma))) < ZERO
        and same(max(law), min(law), size(case) ** 2),
        numbers={"rms error / |∇J|, m = 1": one, "m = 100": hundred},
    )


def rollouts(case: Case) -> Measured:
    """The states that rollouts pass through, those of the policy, and those of data another policy left."""
    problem, T, traj = case.problem, case.steps, case.trajectory
    own = exact.marginals(problem, case.theta, T)
    seen = given(traj.reward, traj.decisions, traj.mask, own.numel()).mass.reshape(own.shape)
    gap = float((seen - own).abs().max())
    worth = given(to_go(case, traj), traj.decisions, traj.mask, own.numel()).mean.reshape(own.shape)
    off = float((worth - values_of(case).V[:-1])[seen > 0].abs().max())  # of what a critic is fitted to
    other = exact.marginals(problem, case.theta + case.direction, T)
    stale = float(0.5 * (other - own).abs().sum(1).max())
    right = gap < ZERO and off < ZERO * size(case)
    return Measured(gap > ZERO, right, {"rollouts − policy's own": gap, "another policy's data": stale})


def small_step(case: Case) -> Measured:
    """ΔJ/(α|∇J|²) at two small α, and what it tends to. What is small depends on how large rewards are."""
    g = true_gradient(case)

    def gain(alpha: float) -> float:
        before, after = (
            exact.objective(case.problem, theta, case.gamma) for theta in (case.theta, case.theta + alpha * g)
        )
        return float((after - before) / (alpha * g.square().sum()))

    def limits(alpha: float) -> tuple[float, bool, bool]:
        """Where it tends to, whether that is 1, and whether the error falls like α, or faster."""
        small, double = gain(alpha), gain(2 * alpha)
        rounding = 1e-14 * size(case) / (alpha * float(g.square().sum()))
        falls = abs(small - 1) <= 0.55 * abs(double - 1) + 1e-6 + rounding
        limit = 2 * small - double
        return limit, abs(limit - 1) < 1e-4 + rounding, falls and abs(small - 1) < 0.02 + rounding

    found = [limits(10.0**-k) for k in range(3, 12)]
    limit, one, falls = next((x for x in found if x[1] and x[2]), found[0])
    return Measured(
        holds=one,
        right=falls,
        numbers={"ΔJ / α|∇J|² as α → 0": limit, "α = .001": gain(1e-3), "α = 1": gain(1.0)},
    )


def more_likely(case: Case) -> Measured:
    """Three actions without a state, and every state of the case, where there are two."""
    three = bandit(*_three_actions(case))
    A, moved = values_of(three).A[0, 0], _stepped(three, 0.1)[0]
    reached = powers(case).unsqueeze(1) * exact.marginals(case.problem, case.theta, case.steps)
    averaged = torch.einsum("ts,tsa->sa", reached, values_of(case).A)
    agree = [_same_signs(_stepped(case, alpha), averaged, room(case)) for alpha in (1e-3, 1.0)]
    slope, truth = exact.policy(case.problem, case.theta) * averaged, true_gradient(case)
    apart = rounded_error(slope, truth[case.problem.observation], case.steps * size(case))
    return Measured(
        holds=torch.equal(moved.sign(), A.sign()) and all(agree),
        right=all(agree) and apart < ZERO,
        numbers={
            "A, second best of three": float(A[1]),
            "its Δπ, α = .1": float(moved[1]),
            "∂J/∂θ(s, a) − π(a|s)·A, rel.": apart,
        },
    )


def _three_actions(case: Case) -> tuple[Tensor, Tensor]:
    """π and rewards, the best first."""
    if case.seed is None:
        return row(0.6, 0.1, 0.3), row(1.0, 0.8, 0.0)
    logits, reward = torch.randn(2, 3, generator=case.draws(), dtype=torch.float64)
    return logits.softmax(0), reward.sort(descending=True).values


def _same_signs(moved: Tensor, A: Tensor, zero: float) -> bool:
    """Whether all move the way of A, and where A is zero not at all."""
    idle = A.abs() < zero
    return bool(torch.where(idle, moved.abs() < zero, moved.sign() == A.sign()).all())


def _stepped(case: Case, alpha: float) -> Tensor:
    """How π(a|s) moves [S, A] in one step of length α along the exact gradient.

    As π·(e^Δlog π − 1), which loses no digits where a policy is nearly certain.
    """
    seen = case.problem.observation
    logp, ahead = case.theta.log_softmax(1)[seen], alpha * true_gradient(case)[seen]
    small = torch.log1p((logp.exp() * torch.expm1(ahead.clamp(max=1.0))).sum(1, keepdim=True))
    large = (logp + ahead).logsumexp(1, keepdim=True)
    total = torch.where(ahead.abs().amax(1, keepdim=True) < 1, small, large)  # log Σ π·e^ahead
    return logp.exp() * torch.expm1(ahead - total)
