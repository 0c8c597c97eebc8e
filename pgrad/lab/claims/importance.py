"""Importance sampling: the gradient of a new policy θ = θ_old + c·direction from what the old one did."""

from math import exp

import torch
from torch import Tensor

from pgrad.lab import exact
from pgrad.lab.claim import ZERO, Claim, Measured, Verdict
from pgrad.lab.claims.common import given, rounded_error, same, several, size
from pgrad.lab.claims.horizon import squares
from pgrad.lab.claims.weights import (
    DISTANCES,
    distances,
    error,
    errors,
    marginal,
    mean,
    mixed,
    new_advantage,
    new_logp,
    new_value,
    old_advantage,
    per_decision,
    prefix,
    score_times,
    slope,
    step,
    times,
    to_go,
    total,
    unweighted,
    values,
    variances,
    whole,
)
from pgrad.lab.estimate import estimator, expectation, variance
from pgrad.lab.problems import Case
from pgrad.math.importance import effective_sample_size, per_decision_return, step_ratio
from pgrad.math.objectives import importance_weighted


def _support(case: Case) -> Measured:
    if case.seed is None:
        p, f = torch.tensor([[0.5, 0.5], [1.0, 3.0]], dtype=torch.float64)
    else:
        p, f = case.theta.softmax(1)[0], case.problem.r[0]

    def weighted(q: Tensor) -> tuple[float, float]:  # E_q[ρ·f] and E_q[ρ], from what q can do
        rho = step_ratio(p[q > 0].log(), q[q > 0].log())
        return float(q[q > 0] @ (rho * f[q > 0])), float(q[q > 0] @ rho)

    without_last = torch.arange(len(p)) < len(p) - 1
    found, share = weighted(without_last / without_last.sum(dtype=p.dtype))
    covered, one = weighted(torch.full_like(p, 1 / len(p)))
    at = case.at(1.0)
    pi, mu = exact.policy(case.problem, at.theta), exact.policy(case.problem, at.actor)
    fixed = ((mu * step_ratio(pi.log(), mu.log()) - pi) * values(at, at.theta).Q[0]).sum(1).abs().max()
    zeros = [covered - float(p @ f), one - 1, share + float(p[-1]) - 1, float(fixed)]
    zeros.append(found + float(p[-1] * f[-1]) - float(p @ f))
    numbers = {"found where q has a hole": found, "E_p[f]": float(p @ f), "mean weight with the hole": share}
    numbers |= {"error where q covers p": zeros[0], "error of one decision": float(fixed)}
    scale = max(1.0, float(f.abs().max()), size(case))
    return Measured(abs(found - float(p @ f)) < ZERO * scale, max(map(abs, zeros)) < ZERO * scale, numbers)


def _product(case: Case) -> Measured:
    numbers, largest, zeros, known = {}, {}, [], True
    for c, at in distances(case):
        p, own = at.trajectory.mask[0], at.on(at.theta).trajectory.mask[0]  # p(τ) of both, dynamics and all
        rho = whole(at, new_logp(at), at.trajectory)[0]
        zeros += [float((rho - own / p).abs().max() / rho.max()), float(p @ rho) - 1]
        numbers[f"variance, c = {c:g}"] = float(p @ rho.square()) - 1
        largest[f"largest weight, c = {c:g}"] = float(rho.max())
        known &= same(float(p @ rho.square()), float(squares(at, at.steps).product[-1]))
    return Measured(max(map(abs, zeros)) < ZERO, known, {**numbers, **largest, "E ρ − 1": zeros[-1]})


def _reuse(case: Case) -> Measured:
    sizes, bounds, zeros = {}, {}, []
    for c, at in distances(case):
        p, rho = at.trajectory.mask[0], whole(at, new_logp(at), at.trajectory)[0]
        sizes[f"ESS/N, c = {c:g}"] = size = float(effective_sample_size(rho, p))
        bounds[f"exp(−KL), c = {c:g}"] = exp(-float((p * rho) @ rho.log()))
        zeros.append(abs(size * float(p @ rho.square()) - 1))
    below = all(
        size < bound < 1 or (same(size, bound) and same(bound, 1.0))  # no farther than rounding can tell
        for size, bound in zip(sizes.values(), bounds.values(), strict=True)
    )
    return Measured(below, max(zeros) < ZERO, {**sizes, **bounds})


def _no_weights(case: Case) -> Measured:
    numbers = errors(times(unweighted, new_advantage), case, "A_new")
    numbers |= errors(times(unweighted, to_go), case, "return")
    really = [
        _apart(mean(times(unweighted, to_go), at), mixed(at, at.actor, at.actor, values(at, at.actor).Q), at)
        for _, at in distances(case)
    ]
    return Measured(min(numbers.values()) < ZERO, max(really) < ZERO, numbers)


def _whole(case: Case) -> Measured:
    full, causal = errors(times(whole, total), case), errors(times(whole, to_go), case)
    numbers = {"rel. error": max(full.values()), "rel. error with Gₜ": max(causal.values())}
    numbers |= variances(times(whole, total), case) | variances(times(whole, to_go), case, "with Gₜ")
    return Measured(numbers["rel. error"] < ZERO, numbers["rel. error with Gₜ"] < ZERO, numbers)


def _per_decision(case: Case) -> Measured:
    worst, value = max(errors(per_decision, case).values()), []
    for _, at in distances(case):
        traj = at.trajectory
        first = per_decision_return(traj.reward, new_logp(at), traj.logp, traj.done, at.gamma)[0]
        value.append(float(traj.mask[0] @ first - exact.objective(at.problem, at.theta, at.gamma)))
    numbers = {"rel. error": worst, **variances(per_decision, case), "error of J": max(value, key=abs)}
    return Measured(worst < ZERO, max(map(abs, value)) < ZERO * size(case), numbers)


def _causal(case: Case) -> Measured:
    form = times(prefix, to_go)
    numbers = errors(form, case)
    really = max(
        _apart(mean(form, at), mixed(at, at.theta, at.theta, values(at, at.actor).Q), at)
        for _, at in distances(case)
    )
    numbers |= variances(form, case) | {
        "distance from the Q_old form": really,
        "slope in c": slope(form, case),
    }
    right = really < ZERO and error(per_decision, case.at(1.0)) < ZERO
    return Measured(error(form, case.at(1.0)) < ZERO, right, numbers)


def _causal_value(case: Case) -> Measured:
    worst = max(errors(times(prefix, new_value), case).values())
    other = max(errors(times(prefix, new_advantage), case).values())
    numbers = {"rel. error": worst, **variances(times(prefix, new_value), case), "with A_new": other}
    return Measured(worst < ZERO, other < ZERO, numbers)


def _marginal(case: Case) -> Measured:
    worst = max(errors(times(marginal, new_value), case).values())
    same = max(
        _apart(mean(times(marginal, to_go), at), mean(times(prefix, to_go), at), at)
        for _, at in distances(case)
    )
    numbers = {"rel. error": worst, **variances(times(marginal, new_value), case)}
    return Measured(worst < ZERO, same < ZERO, {**numbers, "raw return: distance from ρ₀…ρₜ": same})


def _dropped(case: Case) -> Measured:
    form = times(step, new_value)
    numbers = errors(form, case)
    really = max(
        _apart(mean(form, at), mixed(at, at.actor, at.theta, values(at, at.theta).Q), at)
        for _, at in distances(case)
    )
    power = slope(form, case)
    numbers |= {"slope in c": power, "distance from the old states' form": really}
    return Measured(error(form, case.at(1.0)) < ZERO, really < ZERO and power > 0.95, numbers)


def _surrogate(case: Case) -> Measured:
    form = times(step, old_advantage)
    numbers = errors(form, case)
    really = 0.0
    for _, at in distances(case):
        L_CPI = estimator(lambda agent, traj: old_advantage(at, traj), importance_weighted)  # noqa: B023
        closed = mixed(at, at.actor, at.theta, values(at, at.actor).A)
        really = max(really, _apart(expectation(L_CPI, at), closed, at), _apart(mean(form, at), closed, at))
    power, at_old = slope(form, case), error(form, case.at(0.0))
    numbers |= {"slope in c": power, "rel. error, c = 0": at_old, "distance from ∇L^CPI": really}
    right = at_old < ZERO and really < ZERO and power > 0.95
    return Measured(error(form, case.at(1.0)) < ZERO, right, numbers)


def _monte_carlo(case: Case) -> Measured:
    at = case.at(1.0)
    traj, logp = at.trajectory, new_logp(at)
    product, ratio = prefix(at, logp, traj), marginal(at, logp, traj)
    pair = traj.decisions * at.problem.n_actions + traj.action
    known = given(product, pair, traj.mask, at.steps * at.problem.n_states * at.problem.n_actions)
    off = float((known.mean[pair] - ratio)[traj.mask > 0].abs().max())
    squares = [(traj.mask * w.square()).sum(1) for w in (product, ratio)]
    forms = {
        "whole ratio": times(whole, total),
        "… with Gₜ": times(whole, to_go),
        "… per decision": per_decision,
        "… marginal, Q_new": times(marginal, new_value),
    }
    numbers = {name: variance(score_times(form, at), at) for name, form in forms.items()}
    numbers |= {
        "E ρ₀…ρₜ², last t": float(squares[0][-1]),
        "E of the marginal's square": float(squares[1][-1]),
        "mean product − marginal": off,
        "rel. error of ρ₀…ρₜ·Gₜ": error(times(prefix, to_go), at),
    }
    right = off < ZERO and bool((squares[1] <= squares[0] + ZERO).all())
    return Measured(bool(squares[0][-1] <= squares[1][-1] + ZERO), right, numbers)


def _apart(found: Tensor, truth: Tensor, case: Case) -> float:
    """The relative error of a sum of scores times returns."""
    return rounded_error(found, truth, case.steps * size(case))


def _at(name: str, *printed: str) -> dict[str, str]:
    return {f"{name}, c = {c:g}": text for c, text in zip(DISTANCES, printed, strict=True)}


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="M-47",
        title="The importance sampling identity",
        statement="An expectation under p can be had from samples of any other q: E_p[f] = E_q[(p/q)·f].",
        verdict=Verdict.TRUE_IF,
        measure=_support,
        equation="E_p[f] = E_q[p(x)/q(x)·f(x)],  q(x) > 0 wherever p(x)·f(x) ≠ 0",
        source="001:549-579,597-609; 004:42",
        paper="Owen 2013, Monte Carlo theory, methods and examples, ch. 9",
        explanation=(
            "What q never does is never sampled, and no weight can bring it back: its share of the sum is "
            "silently missing. The mean weight, which should be 1, then is the share of p that q can reach, "
            "and so gives the fault away. With support it is exact, as for one decision at a fixed state."
        ),
        correction="Wherever p(x)·f(x) ≠ 0 it takes q(x) > 0; otherwise exactly what q cannot do is missing.",
        audit={"found where q has a hole": ".5", "E_p[f]": "2.0"},
        also=("M-54",),
    ),
    Claim(
        id="L-21",
        title="Mean and variance of the trajectory ratio",
        statement=(
            "The ratio of two policies' trajectory probabilities is the product of their action ratios, "
            "since the dynamics cancel, and its mean under the old policy is 1."
        ),
        verdict=Verdict.TRUE,
        measure=_product,
        equation="ρ(τ) = p_θ(τ)/p_old(τ) = Πₜ π_θ(aₜ|sₜ)/π_old(aₜ|sₜ),  E_old[ρ(τ)] = 1",
        source="001:357-362; 004:43-46",
        paper="Precup, Sutton & Singh 2000",
        explanation=(
            "Both policies meet the same ρ₀ and P, which divide out; so the weight is known without a model. "
            "Here the ratios are bounded and the variance is finite, but on the reference problem a single "
            "trajectory weighs forty times the average at c = 1 already."
        ),
        audit=_at("variance", ".0115", ".3576", "2.2909")
        | _at("largest weight", "1.56", "7.92", "40.8")
        | {"E ρ − 1": "<1e-9"},
        also=("M-48",),
    ),
    Claim(
        id="M-56",
        title="How far old data reach",
        statement=(
            "Importance sampling makes data of an old policy usable, but not for ever: with the distance of "
            "the policies the effective number of samples falls below e^(−KL) of their number."
        ),
        verdict=Verdict.TRUE,
        measure=_reuse,
        equation="ESS/N = (E ρ)²/E[ρ²] = 1/(1 + Var ρ) ≤ exp(−KL(p_θ ‖ p_old)) < 1",
        source="001:533-547,619-633",
        paper="Kong 1992; Chatterjee & Diaconis 2018, The sample size required in importance sampling",
        explanation=(
            "E_old[ρ²] = E_θ[ρ] ≥ exp(E_θ log ρ) by Jensen, and that is the exponential of the divergence "
            "between the trajectories. Divergences of decisions add up, so the loss is exponential in "
            "length."
        ),
        audit=_at("ESS/N", ".9887", ".7366", ".3039"),
    ),
    Claim(
        id="L-22",
        title="Old data without weights",
        statement="Trajectories of an old policy can be averaged as if they were the new policy's own.",
        verdict=Verdict.FALSE,
        measure=_no_weights,
        equation="E_old[Σₜ γᵗ ∇log π_θ(aₜ|sₜ)·Gₜ] ≠ ∇J(θ)",
        source="001:533-547",
        paper="Sutton & Barto 2018, §5.5",
        explanation=(
            "States, actions and rewards are all the old policy's. Not even the mean of ∇log π_θ is zero "
            "under its actions, so that a baseline changes the answer: A_new and the return give different "
            "errors."
        ),
        correction=(
            "It is biased, as the note says: what comes out is Σₜ γᵗ E[∇log π_θ·Q_old] over the old policy's "
            "states and actions."
        ),
        audit=_at("A_new", "4.9e-2", ".170", ".272") | _at("return", "4.4e-2", ".168", ".231"),
        also=("M-56",),
    ),
    Claim(
        id="L-23",
        title="Whole-trajectory importance sampling",
        statement="Weighting each trajectory's score and return by its whole ratio gives the exact gradient.",
        verdict=Verdict.TRUE,
        measure=_whole,
        equation="∇J(θ) = E_old[ρ(τ)·Σₜ ∇log π_θ(aₜ|sₜ)·R(τ)] = E_old[ρ(τ)·Σₜ γᵗ ∇log π_θ(aₜ|sₜ)·Gₜ]",
        source="004:43-54",
        paper="Precup, Sutton & Singh 2000; Jie & Abbeel 2010",
        explanation=(
            "Any function of the trajectory can be reweighted so. The return may start at t, for what comes "
            "before has mean zero with the score; on the reference problem that more than halves the "
            "variance."
        ),
        audit=_at("variance", "7.41", "25.5", "134.1")
        | _at("with Gₜ", "3.58", "11.6", "55.7")
        | {"rel. error": "<1e-9"},
        also=("M-49", "M-50"),
        picture="importance",
    ),
    Claim(
        id="L-24",
        title="Per-decision importance sampling",
        statement="It is enough to weight each reward by the ratio of the decisions up to it.",
        verdict=Verdict.TRUE,
        measure=_per_decision,
        equation="∇J(θ) = E_old[Σₜ γᵗ ∇log π_θ(aₜ|sₜ) Σ_{l≥t} γ^{l−t} ρ_{0:l} r_l]",
        source="004:55-60 (what it should say)",
        paper="Precup, Sutton & Singh 2000; Jie & Abbeel 2010",
        explanation=(
            "Decisions after a reward have mean ratio 1 given the past and can be left out; decisions "
            "between t and the reward cannot. The same sum from the first decision on is an unbiased "
            "estimate of J(θ)."
        ),
        audit=_at("variance", "3.39", "8.04", "24.8") | {"rel. error": "<1e-9"},
        also=("E-26", "M-51"),
    ),
    Claim(
        id="L-25",
        title="The causal weight with the raw return",
        statement=(
            "The score at t only needs the ratio of decisions up to t; ratios of the future do not matter."
        ),
        verdict=Verdict.FALSE,
        measure=_causal,
        equation="E_old[Σₜ γᵗ ∇log π_θ(aₜ|sₜ) ρ_{0:t} Gₜ] = Σₜ γᵗ E_θ[∇log π_θ(aₜ|sₜ) Q_old(sₜ, aₜ)] ≠ ∇J(θ)",
        source="004:54-60",
        paper="Precup, Sutton & Singh 2000; Levine, CS285, where ignoring the rest gives a policy iteration",
        explanation=(
            "The prefix makes sₜ and aₜ the new policy's, but the rewards that follow remain the old one's, "
            "so the return has mean Q_old. That is the gradient of one step of policy improvement; its error "
            "is of the first order in the distance."
        ),
        correction=(
            "With raw returns it is the policy-iteration gradient, in which Q_old stands for Q_new. Exact is "
            "ρ_{0:l} on each reward r_l, or Q_new instead of the return."
        ),
        audit=_at("rel. error", "5.0e-3", "3.6e-2", "9.1e-2")
        | _at("variance", "3.11", "4.89", "8.86")
        | {"distance from the Q_old form": "<1e-9"},
        also=("E-26", "M-51"),
        fits=several,
        needs="two decisions or more",
    ),
    Claim(
        id="L-26",
        title="The causal weight with Q of the new policy",
        statement=(
            "The ratio of decisions up to t, times the new policy's action value, gives the exact gradient."
        ),
        verdict=Verdict.TRUE,
        measure=_causal_value,
        equation="∇J(θ) = E_old[Σₜ γᵗ ρ_{0:t} ∇log π_θ(aₜ|sₜ) Q_θ(sₜ, aₜ)]",
        source="004:55-62",
        paper="Precup, Sutton & Singh 2000; Sutton et al. 2000 (policy gradient theorem)",
        explanation=(
            "The prefix ratio makes every function of the first t decisions the new policy's, and Q_θ is "
            "one. A_θ does as well. This is what the argument of causality really proves."
        ),
        audit=_at("variance", "1.59", "3.86", "9.98") | {"rel. error": "<1e-9"},
    ),
    Claim(
        id="L-27",
        title="The ratio of marginals",
        statement=(
            "The product of ratios may be replaced by p_θ(s, a)/p_old(s, a), the ratio of how often the two "
            "policies are in s and do a at time t, together with the new policy's action value."
        ),
        verdict=Verdict.TRUE,
        measure=_marginal,
        equation="E_old[ρ_{0:t} | sₜ, aₜ] = p_θ(sₜ)/p_old(sₜ)·π_θ(aₜ|sₜ)/π_old(aₜ|sₜ)",
        source="004:61-65",
        paper="Liu, Li, Tang & Zhou 2018, Breaking the curse of horizon, arXiv 1810.12429",
        explanation=(
            "It is the mean of the product over all the ways to (s, a), so nothing is lost where s is the "
            "Markov state and Q̂ has mean Q_θ. With a raw return it inherits the bias of the causal weight: "
            "the two have the same mean. In practice p_θ(s) is not known and must be estimated."
        ),
        audit=_at("variance", "1.52", "2.85", "4.71") | {"rel. error": "<1e-9"},
        also=("E-26", "M-52"),
    ),
    Claim(
        id="E-26",
        title="Monte Carlo instead of the product",
        statement=(
            "Estimating Q̂ by Monte Carlo sampling gets rid of the product of ratios and of its variance."
        ),
        verdict=Verdict.FALSE,
        measure=_monte_carlo,
        equation=(
            "E_old[ρ_{0:t} | sₜ, aₜ] = p_θ(sₜ, aₜ)/p_old(sₜ, aₜ),  E_old[ρ_{0:t}²] > E_old[(p_θ/p_old)²]"
        ),
        source="004:61-65",
        paper="Liu, Li, Tang & Zhou 2018, arXiv 1810.12429",
        explanation=(
            "The note's next line still has the product: sampling changes nothing about it. The line after "
            "averages it over all the ways to (s, a), and a conditional mean has the smaller second moment "
            "(Rao–Blackwell): with Q_θ known, the gradient's variance on the reference problem falls from "
            "9.98 to 4.71."
        ),
        correction=(
            "What removes the product is marginalisation, which needs the state to be Markov and a Q̂ of "
            "mean Q_θ: the weight's second moment is never larger, at any t."
        ),
        audit={
            "whole ratio": "134.1",
            "… with Gₜ": "55.7",
            "… per decision": "24.8",
            "… marginal, Q_new": "4.7",
            "mean product − marginal": "<1e-9",
            "rel. error of ρ₀…ρₜ·Gₜ": "9.1e-2",
        },
        fits=several,
        needs="two decisions or more",
    ),
    Claim(
        id="L-28",
        title="Dropping the ratio of states",
        statement=(
            "Where policies are close, p_θ(s) ≈ p_old(s), the ratio of states drops out and equality remains."
        ),
        verdict=Verdict.FALSE,
        measure=_dropped,
        equation="E_old[Σₜ γᵗ ρₜ ∇log π_θ(aₜ|sₜ) Q_θ(sₜ, aₜ)] = ∇J(θ) + O(c)",
        source="004:66",
        paper="Degris, White & Sutton 2012, arXiv 1205.4839",
        explanation=(
            "Without it the sum runs over the old policy's states. The distributions of states differ by as "
            "much as the policies do, in the first order: being close makes the error small in proportion, "
            "and not smaller."
        ),
        correction=(
            "The error is of the first order in the distance: what comes out is the sum of ∇log π_θ·Q_θ over "
            "the old policy's states."
        ),
        audit=_at("rel. error", "9.0e-3", "4.3e-2", "7.9e-2"),
        also=("M-53",),
        fits=several,
        needs="two decisions or more",
    ),
    Claim(
        id="L-29",
        title="The step ratio with the old advantage",
        statement=(
            "Correcting each decision by its own ratio and keeping the old policy's advantage makes old data "
            "give an unbiased gradient at the new policy, transitions being independent of the policy."
        ),
        verdict=Verdict.FALSE,
        measure=_surrogate,
        equation="E_old[Σₜ γᵗ ρₜ ∇log π_θ(aₜ|sₜ) A_old(sₜ, aₜ)] = ∇L^CPI(θ),  = ∇J(θ) only at θ_old",
        source="001:555-557,611-617; 004:89",
        paper="Kakade & Langford 2002; Schulman et al. 2017, arXiv 1707.06347, eq. 6",
        explanation=(
            "Two corrections are missing: the ratio of states and the new policy's advantage. That P does "
            "not depend on the policy does not make the distribution of states independent of it."
        ),
        correction=(
            "It is the gradient of the surrogate L^CPI, and ∇J at θ = θ_old only; away from it the error "
            "grows in proportion to the distance."
        ),
        audit=_at("rel. error", "7.0e-3", "3.4e-2", "7.5e-2")
        | {"slope in c": "1.00", "rel. error, c = 0": "<1e-9"},
        also=("E-25", "M-55"),
        fits=several,
        needs="two decisions or more",
    ),
)
"""In the order of the argument: the identity, the product, and what may be left out of it."""
