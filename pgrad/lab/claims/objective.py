"""Claims about the objective, its gradient, and the forms in which the policy gradient theorem is written."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pgrad.algorithms import Reinforce
from pgrad.data import Trajectory
from pgrad.lab import exact
from pgrad.lab.claim import ZERO, Claim, Measured, Verdict
from pgrad.lab.claims.baselines import action_values, bandit, scored, shortened
from pgrad.lab.claims.common import cosine, relative_error, true_gradient
from pgrad.lab.estimate import estimates, estimator, expectation, variance
from pgrad.lab.problems import Case
from pgrad.math.credit import discount_weight, full_return, reward_to_go
from pgrad.math.distributions import Categorical
from pgrad.math.objectives import score_function
from pgrad.math.reduce import constant, mean

STEPS = (1e-3, 2e-3)
"""Step sizes whose first-order gains are extrapolated to 0."""


def _reinforce(case: Case, *, to_go: bool = True, discounted: bool = False) -> Reinforce:
    return Reinforce(gamma=case.gamma, reward_to_go=to_go, discount_decisions=discounted, baseline="none")


def _undiscounted(case: Case) -> Case:
    return replace(case, gamma=1.0)


def _several(case: Case) -> bool:
    """Decisions that later ones follow."""
    return case.steps > 1


def _discounted(case: Case) -> bool:
    return _several(case) and case.gamma < 1


def _discount(case: Case, traj: Trajectory) -> Tensor:
    return discount_weight(traj.done, case.gamma, torch.float64)


def _to_go(case: Case, traj: Trajectory) -> Tensor:
    """γᵗ·G_t."""
    return reward_to_go(traj.reward, traj.done, case.gamma) * _discount(case, traj)


def _means(case: Case, x: Tensor) -> Tensor:
    """E[x_t | s_t, a_t] of a number per decision, [T, S, A], over all trajectories; 0 where never taken."""
    traj, A = case.trajectory, case.problem.n_actions
    key, size = (traj.decisions * A + traj.action).flatten(), case.steps * case.problem.n_states * A
    weight = torch.bincount(key, traj.mask.flatten(), size)
    total = torch.bincount(key, (traj.mask * x).flatten(), size)
    return torch.where(weight > 0, total / weight, 0.0).reshape(case.steps, -1, A)


def _field(case: Case, discounted: bool) -> Callable[[Tensor], Tensor]:
    """θ ↦ Σ_t [γᵗ] Σ_s P(s_t = s) Σ_a ∇π(a|s)·Q_t(s, a): what reward-to-go estimates, differentiable."""
    problem = case.problem
    discount = (case.gamma if discounted else 1.0) ** torch.arange(case.steps, dtype=torch.float64)

    def field(theta: Tensor) -> Tensor:
        reached = exact.marginals(problem, theta, case.steps) * discount.unsqueeze(1)
        weight = reached.unsqueeze(-1) * exact.values(problem, theta, case.gamma, case.steps).Q
        pull: Tensor = torch.func.grad(lambda new: (weight * exact.policy(problem, new)).sum())(theta)
        return pull

    return field


def _asymmetry(case: Case, discounted: bool) -> float:
    """‖J − Jᵀ‖ / ‖J + Jᵀ‖ of the field's Jacobian: 0 where the field is the gradient of something."""
    jacobian = torch.func.jacrev(_field(case, discounted))(case.theta)
    square = jacobian.reshape(case.theta.numel(), -1)
    return float((square - square.T).norm() / (square + square.T).norm())


def _enumeration(case: Case) -> Measured:
    """Σ p(τ), and J in two ways, at the case's γ and at 1."""
    traj = case.trajectory
    p = traj.mask[0]

    def both(gamma: float) -> tuple[float, float]:
        counted = constant(full_return(traj.reward, traj.done, gamma)[0], p, 1.0)
        return float(exact.objective(case.problem, case.theta, gamma)), float(counted)

    J, counted = both(case.gamma)
    J_one, counted_one = both(1.0)
    excess = float(p.sum()) - 1
    return Measured(
        holds=abs(excess) < ZERO and abs(J - counted) < ZERO,
        right=abs(J_one - counted_one) < ZERO,
        numbers={
            "Σp − 1": excess,
            "J by dynamic programming": J,
            "J by enumeration": counted,
            "J by enumeration, γ = 1": counted_one,
        },
    )


def _zero_mean(case: Case) -> Measured:
    """E_a[∇log π(a|o)] by differentiating the policy that ships, for every observation."""
    O, A = case.theta.shape  # noqa: E741
    action = torch.arange(A).expand(O, A)
    score = torch.func.jacrev(lambda t: Categorical(t.unsqueeze(1).expand(O, A, A)).log_prob(action))(
        case.theta
    )
    largest = float(torch.einsum("oa,oapb->opb", case.theta.softmax(1), score).abs().max())
    closed = float((score.reshape(O, A, -1) - exact.scores(case.theta)).abs().max())
    return Measured(largest < ZERO, closed < ZERO, {"max |E score|": largest, "score − closed form": closed})


def _full_return(case: Case) -> Measured:
    """REINFORCE in its first form, at the case's γ and at 1."""
    spread = estimates(_reinforce(case, to_go=False), case)
    one = _undiscounted(case)
    errors = (
        relative_error(spread.mean, true_gradient(case).flatten()),
        relative_error(expectation(_reinforce(one, to_go=False), one), true_gradient(one)),
    )
    return Measured(
        errors[0] < ZERO,
        errors[1] < ZERO,
        {"rel. error": errors[0], "variance": spread.variance, "rel. error, γ = 1": errors[1]},
    )


def _correlations(case: Case) -> tuple[float, float]:
    """The greatest length of E[∇log π(a_t|s_t)·r_l] over l < t, and over l ≥ t."""

    def at(t: int, when: int) -> float:
        row = torch.arange(case.steps).unsqueeze(1) == t
        return float(expectation(scored(lambda traj: row * traj.reward[when]), case).norm())

    T = case.steps
    past = [at(t, when) for t in range(T) for when in range(t)]
    return max(past, default=0.0), max(at(t, when) for t in range(T) for when in range(t, T))


def _causality(case: Case) -> Measured:
    """What the score of a decision has to do with rewards before and after it."""
    past, future = _correlations(case)
    return Measured(past < ZERO, future > ZERO, {"earlier rewards": past, "later rewards": future})


def _no_influence(case: Case) -> Measured:
    """How far E[R_1 | s_0, a_0] = E[V_1(s_1) | s_0, a_0] moves with a_0."""
    problem = case.problem
    after = problem.P @ exact.values(problem, case.theta, case.gamma, case.steps).V[1]
    spread = float((after.amax(1) - after.amin(1))[problem.rho0 > 0].max())
    past, future = _correlations(case)
    return Measured(
        holds=spread < ZERO,
        right=past < ZERO,
        numbers={"move of E R₁ with a₀": spread, "score · earlier r": past, "score · later r": future},
    )


def _reward_to_go(case: Case) -> Measured:
    """γᵗ·score·G_t, which ships as an option of REINFORCE."""
    spread = estimates(_reinforce(case, discounted=True), case)
    error = relative_error(spread.mean, true_gradient(case).flatten())
    brute = _brute_force_error(case)
    return Measured(
        holds=error < ZERO,
        right=brute < ZERO,
        numbers={
            "rel. error": error,
            "variance": spread.variance,
            "variance of the full return": variance(_reinforce(case, to_go=False), case),
            "G − Σγˡ⁻ᵗr": brute,
        },
    )


def _brute_force_error(case: Case) -> float:
    """The shipped scan against the double sum; padding has reward 0."""
    traj = case.trajectory
    steps = torch.arange(case.steps, dtype=torch.float64)
    weight = torch.triu(case.gamma ** (steps - steps.unsqueeze(1)).clamp(min=0.0))
    found = reward_to_go(traj.reward, traj.done, case.gamma)
    return float((found - weight @ traj.reward).abs().max())


def _without_discount(case: Case) -> Measured:
    """REINFORCE as most write it, against the gradient of the discounted objective, and at γ = 1."""
    found, truth, one = expectation(_reinforce(case), case), true_gradient(case), _undiscounted(case)
    error = relative_error(found, truth)
    at_one = relative_error(expectation(_reinforce(one), one), true_gradient(one))
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


def _not_a_gradient(case: Case) -> Measured:
    """The Jacobians of both fields, of which the first is what REINFORCE without γᵗ follows."""
    ours, half, one = (
        _asymmetry(replace(case, gamma=gamma), discounted=False) for gamma in (case.gamma, 0.5, 1.0)
    )
    discounted = _asymmetry(case, discounted=True)
    same = relative_error(_field(case, discounted=False)(case.theta), expectation(_reinforce(case), case))
    return Measured(
        holds=ours < ZERO,
        right=max(discounted, one, same) < ZERO,
        numbers={"asymmetry": ours, "γ = ½": half, "γ = 1": one, "with γᵗ": discounted},
    )


def _value_forms(case: Case) -> Measured:
    """γᵗ·score·Q and γᵗ·score·A with the exact values."""
    values, truth = exact.values(case.problem, case.theta, case.gamma, case.steps), true_gradient(case)
    Q, A = (estimates(action_values(case, table), case) for table in (values.Q, values.A))
    errors = [relative_error(x.mean, truth.flatten()) for x in (Q, A)]
    centred = float((exact.policy(case.problem, case.theta) * values.A).sum(-1).abs().max())
    return Measured(
        holds=max(errors) < ZERO,
        right=centred < ZERO,
        numbers={
            "rel. error with Q": errors[0],
            "rel. error with A": errors[1],
            "variance with Q": Q.variance,
            "variance with A": A.variance,
            "max |E_π A|": centred,
        },
    )


def _without_sum(case: Case) -> Measured:
    """The first term alone, the average over t, and the sum."""
    T, truth = case.steps, true_gradient(case)
    only = torch.arange(T).unsqueeze(1) == 0
    first = expectation(scored(lambda traj: _to_go(case, traj) * only), case)
    average = expectation(scored(lambda traj: _to_go(case, traj) / T), case)
    errors = relative_error(first, truth), relative_error(average, truth)
    return Measured(
        holds=min(errors) < ZERO,
        right=relative_error(T * average, truth) < ZERO and abs(errors[1] - (1 - 1 / T)) < ZERO,
        numbers={
            "first term, rel. error": errors[0],
            "first term, cosine": cosine(first, truth),
            "average over t, rel. error": errors[1],
        },
    )


def _visitation(case: Case) -> Measured:
    """A mean over decisions drawn with weight γᵗ·P(s_t = s), and the sum with these weights."""
    values, truth = exact.values(case.problem, case.theta, case.gamma, case.steps), true_gradient(case)
    discount = _discount(case, case.trajectory)

    def weighted(reduce: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        Q = values.Q.flatten()[case.trajectory.decisions * case.problem.n_actions + case.trajectory.action]
        objective = estimator(
            lambda agent, traj: Q, lambda logp, _, credit: score_function(logp, credit), reduce
        )
        return expectation(objective, case)

    sampled = weighted(lambda x, mask: mean(x, mask * discount))
    summed = weighted(lambda x, mask: constant(x, mask * discount, 1.0))
    mass = float(exact.visitation(case.problem, case.theta, case.gamma, case.steps).sum())
    errors = [relative_error(x, truth) for x in (sampled, summed, mass * sampled)]
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


def _conditional_return(case: Case) -> Measured:
    """E[R(τ) | s_t, a_t] by enumeration against Q_t, everywhere and at one decision halfway."""
    traj, Q = case.trajectory, exact.values(case.problem, case.theta, case.gamma, case.steps).Q
    whole = full_return(traj.reward, traj.done, case.gamma)
    past = _means(case, whole - _to_go(case, traj))
    found, taken = _means(case, whole), _means(case, torch.ones_like(whole)) > 0
    discount = case.gamma ** torch.arange(case.steps, dtype=torch.float64).reshape(-1, 1, 1)
    gap = float((found - Q)[taken].abs().max())
    table = past.flatten()
    vanishing = expectation(
        scored(lambda traj: table[traj.decisions * case.problem.n_actions + traj.action]), case
    )
    t = case.steps // 2
    return Measured(
        holds=gap < ZERO,
        right=float((found - past - discount * Q)[taken].abs().max()) < ZERO
        and bool(vanishing.norm() < ZERO),
        numbers={
            "max |E[R|s,a] − Q|": gap,
            "E[R | s=0, a=0] halfway": float(found[t, 0, 0]),
            "Q(0, 0) halfway": float(Q[t, 0, 0]),
            "γᵗQ(0, 0) halfway": float((discount * Q)[t, 0, 0]),
        },
    )


def _sample_mean(case: Case) -> Measured:
    """The error of a mean over m trajectories; that it falls as 1/√m is counted out on a single decision."""
    full = _reinforce(case, to_go=False)
    spread, truth = estimates(full, case), true_gradient(case).flatten()
    rms = spread.variance**0.5 / float(truth.norm())
    short = shortened(case, 1)
    law = [m * variance(full, short, episodes=m) for m in (1, 2, 3)]
    return Measured(
        holds=rms < ZERO,
        right=relative_error(spread.mean, truth) < ZERO and max(law) - min(law) < ZERO,
        numbers={"rms error / |∇J|, m = 1": rms, "m = 100": rms / 10},
    )


def _rollouts(case: Case) -> Measured:
    """The states that rollouts pass through, those of the policy, and those of data another policy left."""
    problem, T, traj = case.problem, case.steps, case.trajectory
    own = exact.marginals(problem, case.theta, T)
    seen = torch.bincount(traj.decisions.flatten(), traj.mask.flatten(), own.numel()).reshape(own.shape)
    gap = float((seen - own).abs().max())
    other = exact.marginals(problem, case.theta + case.direction, T)
    stale = float(0.5 * (other - own).abs().sum(1).max())
    return Measured(gap > ZERO, gap < ZERO, {"rollouts − policy's own": gap, "another policy's data": stale})


def _small_step(case: Case) -> Measured:
    """ΔJ/(α|∇J|²) at two small α, and what it tends to."""
    g = true_gradient(case)

    def gain(alpha: float) -> float:
        J = [
            exact.objective(case.problem, theta, case.gamma) for theta in (case.theta, case.theta + alpha * g)
        ]
        return float((J[1] - J[0]) / (alpha * g.square().sum()))

    small, double = map(gain, STEPS)
    limit = 2 * small - double
    return Measured(
        holds=abs(limit - 1) < 1e-4,
        right=abs(double - 1) < 0.02,
        numbers={"ΔJ / α|∇J|² as α → 0": limit, "α = .001": small, "α = 1": gain(1.0)},
    )


def _better_more_likely(case: Case) -> Measured:
    """Three actions without a state, and every state of the case, where there are two."""
    one = bandit(*_bandit(case))
    A = exact.values(one.problem, one.theta, 1.0, 1).A[0, 0]
    moved = _stepped(one, 0.1)[0]
    reached = exact.marginals(case.problem, case.theta, case.steps) * (
        case.gamma ** torch.arange(case.steps, dtype=torch.float64).unsqueeze(1)
    )
    averaged = torch.einsum(
        "ts,tsa->sa", reached, exact.values(case.problem, case.theta, case.gamma, case.steps).A
    )
    agree = [torch.equal(_stepped(case, alpha).sign(), averaged.sign()) for alpha in (1e-3, 1.0)]
    return Measured(
        holds=bool((moved.sign() == A.sign()).all()) and all(agree),
        right=all(agree),
        numbers={
            "A, second best of three": float(A[1]),
            "its Δπ, α = .1": float(moved[1]),
            "two actions: signs that agree": sum(agree) / len(agree),
        },
    )


def _bandit(case: Case) -> tuple[Tensor, Tensor]:
    """π and the rewards of three actions, the best one first."""
    if case.seed is None:
        pi, reward = torch.tensor([[0.6, 0.1, 0.3], [1.0, 0.8, 0.0]], dtype=torch.float64)
        return pi, reward
    draw = torch.randn(2, 3, generator=case.draws(), dtype=torch.float64)
    return draw[0].softmax(0), draw[1].sort(descending=True).values


def _stepped(case: Case, alpha: float) -> Tensor:
    """How π(a|s) moves [S, A] in one step of length α along the exact gradient."""
    after = case.theta + alpha * true_gradient(case)
    return exact.policy(case.problem, after) - exact.policy(case.problem, case.theta)


def _two_distinct(case: Case) -> bool:
    return case.problem.n_actions == 2 and case.problem.n_observations == case.problem.n_states


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="L-01",
        title="Trajectory probabilities and J",
        statement=(
            "The trajectory probabilities ρ₀·Π π·P sum to 1, and J counted out over trajectories is J by "
            "dynamic programming."
        ),
        verdict=Verdict.TRUE,
        measure=_enumeration,
        equation="Σ_τ p(τ) = 1,   J = Σ_τ p(τ)·Σ_t γᵗ r_t = Σ_s ρ₀(s)·V₀(s)",
        source="000:9-35; 001:20-40, 288-351; 002:55-65; 003:47-49; 004:18-20",
        paper="Sutton & Barto 2018, §3.3 and §4.1",
        explanation=(
            "Enumeration and dynamic programming share no code, so their agreement is what everything else "
            "here stands on: a sum over the enumerated trajectories is an exact expectation."
        ),
        audit={
            "Σp − 1": "<1e-9",
            "J by dynamic programming": ".244715",
            "J by enumeration": ".244715",
            "J by enumeration, γ = 1": ".262684",
        },
        also=("M-02", "M-03"),
    ),
    Claim(
        id="L-02",
        title="The score has mean zero",
        statement="The mean of ∇log π(a|s) over the policy's own actions is zero in every state.",
        verdict=Verdict.TRUE,
        measure=_zero_mean,
        equation="E_{a~π}[∇log π(a|s)] = Σ_a ∇π(a|s) = ∇1 = 0",
        source="001:426-484",
        paper="Williams 1992",
        explanation=(
            "Probabilities sum to 1 whatever θ is, so their derivatives sum to 0. Baselines, causality and "
            "the equivalence of Q and A in the gradient all rest on this one line."
        ),
        audit={"max |E score|": "<1e-9"},
    ),
    Claim(
        id="L-03",
        title="REINFORCE with the full return",
        statement="E[Σ_t ∇log π(a_t|s_t)·R(τ)] is the gradient of J.",
        verdict=Verdict.TRUE,
        measure=_full_return,
        equation="∇J = E_τ[(Σ_t ∇log π(a_t|s_t))·Σ_t γᵗ r_t]",
        source="000:59-65; 001:46-50, 398-400; 003:39-42, 70-73; 004:22",
        paper="Williams 1992",
        explanation=(
            "∇p(τ) = p(τ)·∇log p(τ), and of log p(τ) only the terms log π depend on θ. No γᵗ is missing: "
            "R(τ) is discounted from the start of the episode."
        ),
        audit={"rel. error": "<1e-9", "variance": "5.7639"},
        also=("M-06",),
    ),
    Claim(
        id="L-04",
        title="Causality: earlier rewards",
        statement="A reward that came before a decision has no correlation with that decision's score.",
        verdict=Verdict.TRUE,
        measure=_causality,
        equation="E[∇log π(a_t|s_t)·r_l] = 0 for l < t",
        source="001:402-426; 004:54",
        paper="Baxter & Bartlett 2001; Sutton et al. 2000",
        explanation=(
            "Given what happened before t, r_l is a constant and the score has mean zero. For l ≥ t the "
            "reward depends on a_t, and the correlation is the signal that learning lives on."
        ),
        audit={"earlier rewards": "<1e-9", "later rewards": ".2775"},
        fits=_several,
        needs="more than one decision",
    ),
    Claim(
        id="E-03",
        title="Do earlier actions affect R_t?",
        statement="Earlier actions do not affect R_t, and therefore R(τ) may be replaced by R_t.",
        verdict=Verdict.FALSE,
        measure=_no_influence,
        equation="E[R₁ | s₀, a₀] = E[V₁(s₁) | s₀, a₀]   against   E[∇log π(a_t|s_t)·r_l] = 0, l < t",
        source="000:79",
        paper="Baxter & Bartlett 2001; Sutton et al. 2000",
        explanation=(
            "Earlier actions decide which s_t is reached, and so how large R_t is. The replacement is right "
            "for another reason: what is left out, the rewards before t, is no business of a_t."
        ),
        correction=(
            "Earlier actions affect R_t through s_t; the replacement is right because a_t cannot affect the "
            "rewards before t, whose product with its score has mean zero."
        ),
        audit={"score · earlier r": "<1e-9", "score · later r": ".2775"},
        fits=_several,
        needs="more than one decision",
    ),
    Claim(
        id="L-05",
        title="Reward-to-go with γᵗ",
        statement="E[Σ_t γᵗ·∇log π(a_t|s_t)·G_t] is the gradient of the discounted J.",
        verdict=Verdict.TRUE,
        measure=_reward_to_go,
        equation="∇J = E[Σ_t γᵗ ∇log π(a_t|s_t)·G_t],   G_t = Σ_{l≥t} γˡ⁻ᵗ r_l",
        source="000:67-77; 004:29-32, 81",
        paper="Thomas 2014; Baxter & Bartlett 2001",
        explanation=(
            "The full return is what came before t plus γᵗ·G_t, and the first part has mean zero with the "
            "score. Leaving it out removes its noise: the variance falls from 5.76 to 2.81 on the reference."
        ),
        audit={"rel. error": "<1e-9", "variance": "2.8095", "variance of the full return": "5.7639"},
        also=("M-08",),
    ),
    Claim(
        id="L-06",
        title="Reward-to-go without γᵗ (option 1)",
        statement="E[Σ_t ∇log π(a_t|s_t)·G_t], without γᵗ, is the gradient of the discounted J.",
        verdict=Verdict.TRUE_IF,
        measure=_without_discount,
        equation="E[Σ_t ∇log π(a_t|s_t)·G_t] = ∇ E[Σ_t γᵗ r_t] ?",
        source="000:73-77, 119-125; 001:121, 274, 404, 420, 496, 518, 529, 649; 004:80",
        paper="Thomas 2014; Nota & Thomas 2020, arXiv 1906.07073",
        explanation=(
            "Later decisions are weighed as if the objective did not discount them. On the reference "
            "problem the direction hardly differs (cosine .9997), and the length does (1.158 for .9996)."
        ),
        correction="only if γ = 1; for γ < 1 the score at time t needs the weight γᵗ.",
        audit={
            "rel. error": ".161",
            "cosine": ".999687",
            "|E ĝ|": "1.158",
            "|∇J|": ".9996",
            "rel. error, γ = 1": "<1e-9",
        },
        also=("E-01",),
        fits=_discounted,
        needs="γ < 1 and more than one decision",
    ),
    Claim(
        id="L-07",
        title="Is option 1 some gradient?",
        statement="Reward-to-go without γᵗ (option 1) is the gradient of an objective, only not of J.",
        verdict=Verdict.FALSE,
        measure=_not_a_gradient,
        equation="‖D − Dᵀ‖ / ‖D + Dᵀ‖ with D = ∂/∂θ E[Σ_t ∇log π(a_t|s_t)·G_t]; 0 for every gradient",
        source="004:79-82",
        paper="Nota & Thomas 2020, arXiv 1906.07073",
        explanation=(
            "The derivative of a gradient is a Hessian, which is symmetric; that of this field is not. It "
            "can be followed all the same, but no function of θ is being climbed."
        ),
        correction=(
            "For γ < 1 it is the gradient of no function at all; with γᵗ (option 2), or γ = 1, it is ∇J."
        ),
        audit={"asymmetry": "1.04e-2", "γ = ½": "5.17e-2", "γ = 1": "<1e-9", "with γᵗ": "<1e-9"},
        also=("E-23", "M-26"),
        fits=_discounted,
        needs="γ < 1 and more than one decision",
    ),
    Claim(
        id="L-08",
        title="The forms with Q and with A",
        statement="With Q(s_t, a_t) or A(s_t, a_t) in place of G_t, and γᵗ, the expectation is still ∇J.",
        verdict=Verdict.TRUE,
        measure=_value_forms,
        equation="∇J = E[Σ_t γᵗ ∇log π·Q_t(s_t, a_t)] = E[Σ_t γᵗ ∇log π·A_t(s_t, a_t)]",
        source="000:101-111; 001:28-74, 498-531",
        paper="Sutton, McAllester, Singh & Mansour 2000",
        explanation=(
            "Q is the mean of G given (s_t, a_t), and A differs from it by a function of the state, whose "
            "product with the score has mean zero. That A is the less noisy of the two is not always so."
        ),
        audit={
            "rel. error with Q": "<1e-9",
            "rel. error with A": "<1e-9",
            "variance with Q": "1.2775",
            "variance with A": "1.4883",
        },
        also=("M-10", "M-14"),
    ),
    Claim(
        id="L-09",
        title="The theorem without Σ_t",
        statement="∇J = E[R_t·∇log π(a_t|s_t)]: one term, without the sum over t.",
        verdict=Verdict.FALSE,
        measure=_without_sum,
        equation="∇J = Σ_t E[γᵗ G_t·∇log π(a_t|s_t)] ≠ E[G₀·∇log π(a₀|s₀)],  (1/T)·Σ_t E[γᵗ G_t·∇log π]",
        source="002:12-36, 82-84, 108, 120",
        paper="Sutton, McAllester, Singh & Mansour 2000",
        explanation=(
            "Every decision contributes a term. The first alone is another vector; a term at a random t has "
            "the right direction and 1/T of the length. R_t under the integral over τ should be R(τ)."
        ),
        correction="The sum over t is part of the theorem; only problems of one decision have a single term.",
        audit={
            "first term, rel. error": ".712",
            "first term, cosine": ".952",
            "average over t, rel. error": ".750",
        },
        also=("E-10", "E-11"),
        fits=_several,
        needs="more than one decision",
    ),
    Claim(
        id="L-10",
        title="The form with dᵖⁱ",
        statement="∇J is the mean of ∇log π(a|s)·Q(s, a) over states drawn from dᵖⁱ(s) = Σ_t γᵗ P(s_t = s).",
        verdict=Verdict.TRUE_IF,
        measure=_visitation,
        equation="∇J = Σ_t γᵗ Σ_s P(s_t = s) Σ_a π(a|s) ∇log π(a|s)·Q_t(s, a) = mass · (mean under dᵖⁱ/mass)",
        source="000:81-91, 111",
        paper="Sutton, McAllester, Singh & Mansour 2000",
        explanation=(
            "dᵖⁱ is a measure and no distribution: its mass is 3.439 on the reference. Samples can only be "
            "drawn from the normalised one, whose mean is too short by that factor."
        ),
        correction=(
            "only if E is read as a sum with the unnormalised measure, of mass (1 − γᵀ)/(1 − γ) where no "
            "episode ends earlier; a mean over samples is ∇J divided by the mass."
        ),
        audit={
            "mass of dᵖⁱ": "3.4390",
            "rel. error of the sum": "<1e-9",
            "rel. error of mass · mean": "<1e-9",
        },
        also=("E-02", "M-11"),
        fits=lambda case: _several(case) and case.gamma > 0,
        needs="γ > 0 and more than one decision",
    ),
    Claim(
        id="L-11",
        title="E[R(τ) | s, a] and Q",
        statement="E[R(τ) | s_t, a_t] = Q(s_t, a_t).",
        verdict=Verdict.FALSE,
        measure=_conditional_return,
        equation="E[R(τ) | s_t, a_t] = E[Σ_{l<t} γˡ r_l | s_t, a_t] + γᵗ·Q_t(s_t, a_t)",
        source="001:52-56",
        paper="Sutton, McAllester, Singh & Mansour 2000",
        explanation=(
            "R(τ) contains the rewards before t, and those after it are discounted from the start. The step "
            "of the proof is saved by the score: the product of the past part with it has mean zero."
        ),
        correction=(
            "It is the mean of the rewards before t plus γᵗ·Q; the former vanishes only after multiplication "
            "by the score."
        ),
        audit={
            "max |E[R|s,a] − Q|": ".4418",
            "E[R | s=0, a=0] halfway": "1.3837",
            "Q(0, 0) halfway": "1.3176",
            "γᵗQ(0, 0) halfway": "1.0672",
        },
        also=("E-06",),
        fits=_several,
        needs="more than one decision",
    ),
    Claim(
        id="E-13",
        title="Is the sample mean the gradient?",
        statement="∇J = (1/m) Σᵢ Σ_t ∇log π(a_t|s_t)·R(τᵢ): the mean over m trajectories is the gradient.",
        verdict=Verdict.FALSE,
        measure=_sample_mean,
        equation="ĝ = (1/m) Σᵢ …,   E ĝ = ∇J,   √(E|ĝ − ∇J|²) = √(tr Var / m)",
        source="003:41, 72",
        paper="Williams 1992",
        explanation=(
            "The equation holds in expectation only. One trajectory is wrong by 2.4 times the length of the "
            "gradient, and it takes a hundred to bring that down to a quarter."
        ),
        correction="It is an unbiased estimate, with an error that falls as 1/√m.",
        audit={"rms error / |∇J|, m = 1": "2.40", "m = 100": ".240"},
    ),
    Claim(
        id="E-22",
        title="States of one's own rollouts",
        statement="Rollouts of π from ρ₀ have other states than π has: value data from them are shifted.",
        verdict=Verdict.FALSE,
        measure=_rollouts,
        equation="Σ_{τ: s_t=s} p(τ) = P(s_t = s),   the recursion ρ₀, ρ₀P_π, ρ₀P_π², …",
        source="004:73",
        paper="Sutton & Barto 2018, §9.2",
        explanation=(
            "To roll π out from ρ₀ is to sample its state distribution. What is shifted are data that "
            "another policy left behind, such as those of earlier iterations."
        ),
        correction=(
            "They have exactly the state distribution of π; a shift comes with data of another policy."
        ),
        audit={"rollouts − policy's own": "<1e-9"},
        also=("M-34",),
    ),
    Claim(
        id="M-07",
        title="What a small step gains",
        statement="A step of length α along the exact gradient raises J by α|∇J|², to first order in α.",
        verdict=Verdict.TRUE,
        measure=_small_step,
        equation="J(θ + α∇J) = J(θ) + α|∇J|² + O(α²)",
        source="000:126-128; 004:23",
        paper="Williams 1992",
        explanation=(
            "The derivative of J along its gradient is |∇J|². It is a promise for small steps only: how far "
            "it reaches depends on the curvature, and estimates in place of ∇J weaken it further."
        ),
    ),
    Claim(
        id="M-27",
        title="Good actions up, bad actions down",
        statement="A gradient step makes actions with A > 0 more likely and those with A < 0 less likely.",
        verdict=Verdict.TRUE_IF,
        measure=_better_more_likely,
        equation="θ ← θ + α∇J:   sign Δπ(a|s) = sign Σ_t γᵗ P(s_t = s)·A_t(s, a) ?",
        source="001:276-280, 757; 004:14",
        paper="Agarwal, Kakade, Lee & Mahajan 2021 (the gradient of the tabular softmax)",
        explanation=(
            "Of three actions with π = (.6, .1, .3) and rewards (1, .8, 0) the second is better than average "
            "and yet loses: the first pulls more, and all share one sum. With two actions there is only one "
            "direction to go, and every step size goes there."
        ),
        correction=(
            "if there are two actions, every state has its own parameters, the gradient is exact, and A is "
            "averaged over the times at which the state is visited (weights γᵗ P(s_t = s)); then for every "
            "step size."
        ),
        always=False,
        fits=_two_distinct,
        needs="two actions, and no states that look alike",
    ),
)
