"""Baselines: which leave the gradient alone, which make its estimate less noisy, and which neither."""

from math import nan

import torch
from torch import Tensor

from pgrad.algorithms import Reinforce
from pgrad.algorithms.reinforce import Baseline
from pgrad.data import Trajectory
from pgrad.lab import exact
from pgrad.lab.claim import ZERO, Claim, Measured, Verdict
from pgrad.lab.claims.common import (
    ROUNDING,
    at_most,
    given,
    gradient_error,
    room,
    rounded_error,
    same,
    size,
    true_gradient,
)
from pgrad.lab.claims.returns import (
    action_values,
    bandit,
    best_table,
    decision_key,
    discounted,
    early,
    error_of,
    look_up,
    return_minus,
    return_variance,
    returns_and_features,
    scored,
    shortened,
    solvable,
    step_optimum,
    to_go,
    values_of,
)
from pgrad.lab.claims.weights import mixed
from pgrad.lab.estimate import Estimates, Estimator, cosine, estimates, expectation, variance
from pgrad.lab.problems import Case
from pgrad.math import baselines
from pgrad.math.credit import discount_weight, full_return
from pgrad.worlds.tensors.tabular import Tabular


def _unbiased(case: Case) -> Measured:
    """A random b(t, s), and two that look at the action and take Σ γᵗ E[∇log π·b] away, Q everything."""
    draws, value = case.draws(), values_of(case)
    table = 3 * torch.randn(value.V[:-1].shape, generator=draws, dtype=torch.float64)
    wild = torch.randn(value.Q.shape, generator=draws, dtype=torch.float64)
    found = [expectation(return_minus(case, b), case) for b in (table, value.Q, wild)]
    largest = max(float(b.abs().max()) for b in (table, value.Q, wild))
    fair, itself, noise = (gradient_error(x, case, largest) for x in found)
    numbers = {"rel. error": fair, "with b = Q(s, a)": itself, "with a random b(s, a)": noise}
    truth, scale = true_gradient(case), case.steps * max(size(case), largest)
    gone = float(found[1].norm()) <= ZERO * float(truth.norm()) + ROUNDING * scale
    expected = truth - mixed(case, case.theta, case.theta, wild)
    return Measured(fair < ZERO, gone and rounded_error(found[2], expected, scale) < ZERO, numbers)


def _value_is_best(case: Case) -> Measured:
    """Five baselines on the problem, three on a bandit."""
    value, G, p = values_of(case), to_go(case, case.trajectory), case.trajectory.mask[0]
    mean = baselines.batch_mean(G, p.expand_as(G)).expand_as(value.V[:-1])
    best = best_table(case)
    tables = {"V": value.V[:-1], "b = 0": 0 * mean, "mean": mean, "b*": step_optimum(case, value.Q)}
    numbers = {name: variance(return_minus(case, b), case) for name, b in tables.items()}
    least = variance(return_minus(case, best), case)
    pi, Q = torch.tensor([[0.9, 0.1], [1.0, 0.0]], dtype=torch.float64)
    if case.seed is not None:
        pi, Q = torch.randn(2, 2, generator=case.draws(), dtype=torch.float64)
        pi = pi.softmax(0)
    arms = bandit(pi, Q)
    single = {"V": pi @ Q, "0": 0 * pi[0], "b*": step_optimum(arms, Q.unsqueeze(0))}
    on_bandit = {
        f"bandit: {name}": variance(return_minus(arms, b.reshape(1, 1)), arms) for name, b in single.items()
    }
    unit = size(case) ** 2
    right = at_most(least, min(numbers.values()), unit) and on_bandit["bandit: b*"] < ZERO
    fair = error_of(case, return_minus(case, best)) < ZERO
    holds = at_most(numbers["V"], least, unit) and on_bandit["bandit: V"] < ZERO
    return Measured(holds, right and fair, numbers | {"best b(t, s)": least} | on_bandit)


def _one_step(case: Case) -> Measured:
    """Every state's first decision on its own, and its first two actions on their own."""
    Q = values_of(case).Q[0]
    step, two = _first_decision(case, case.theta, Q), _first_decision(case, case.theta[:, :2], Q[:, :2])
    best = step_optimum(step, Q)
    V = (exact.policy(step.problem, step.theta) * Q).sum(1)
    optimum, at_V, at_0, above, below = (
        _per_state(step, b) for b in (best, V, 0 * best, best + 0.1, best - 0.1)
    )
    swapped = (exact.policy(two.problem, two.theta).flip(1) * Q[:, :2]).sum(1)
    gap = float((swapped - step_optimum(two, Q[:, :2])).abs().max())
    nothing = float(_per_state(two, swapped).max())
    closed = exact.optimal_step_baseline(exact.policy(step.problem, step.theta), Q)
    agree = bool((best - closed).abs().max() < ZERO * size(case))
    numbers = {"π₁Q₀ + π₀Q₁ − b*": gap, "variance, 2 actions": nothing}
    numbers |= {f"V in state {s}": float(x) for s, x in enumerate(at_V)}
    numbers |= {f"b = 0 in state {s}": float(x) for s, x in enumerate(at_0)}
    room = ZERO * size(case) ** 2
    least = all(bool((optimum <= other + room).all()) for other in (at_V, at_0, above, below))
    return Measured(least and gap < ZERO * size(case), agree and nothing < room, numbers)


def _first_decision(case: Case, theta: Tensor, Q: Tensor) -> Case:
    """One decision, from any state alike, worth Q(s, a)."""
    S, A = Q.shape
    stay = torch.eye(S, dtype=Q.dtype).unsqueeze(1).expand(S, A, S)
    start = torch.full((S,), 1 / S, dtype=Q.dtype)
    problem = Tabular(stay, Q, start, horizon=1, observation=case.problem.observation)
    return Case(problem, theta, torch.zeros_like(theta), case.gamma)


def _per_state(step: Case, b: Tensor) -> Tensor:
    """The variance of ∇log π·(Q − b(s)) in every state, [S]."""
    each, state = estimates(return_minus(step, b.unsqueeze(0)), step), step.trajectory.obs[0]
    p = each.probability * torch.nn.functional.one_hot(state).T  # [S, K]
    p = p / p.sum(1, keepdim=True)
    centred = each.gradient - (p @ each.gradient)[state]
    return p @ centred.square().sum(1)


def _sum_of_steps(case: Case) -> Measured:
    """b* and least squares against E[φ·ĝ]/E|φ|², with only the decision's own term in ĝ, and with all."""
    returns, phi = returns_and_features(case)
    p, square = returns.probability, phi.square()
    G = to_go(case, case.trajectory).repeat_interleave(case.problem.n_states, 0)  # [T·S, K]
    mass = torch.einsum("k,kxp->x", p, square)
    own, every = (
        torch.where(mass > 0, product / mass, 0.0).view(case.steps, -1)
        for product in (
            torch.einsum("k,kxp,xk->x", p, square, G),
            torch.einsum("k,kxp,kp->x", p, phi, returns.gradient),
        )
    )
    tables = (step_optimum(case, values_of(case).Q), best_table(case), own, every)
    single, least, alone, whole = (variance(return_minus(case, b), case) for b in tables)
    numbers = {"b*": single, "best b(t, s)": least, "ratio": single / least if least > 0 else nan}
    unit = size(case) ** 2
    right = at_most(least, single, unit) and same(whole, least, unit) and same(alone, single, unit)
    return Measured(at_most(single, least, unit), right, numbers)


def _whole_returns(case: Case) -> Measured:
    """One constant for whole returns, and one for every parameter."""
    returns = estimates(_whole(case), case)
    score = estimates(scored(lambda traj: torch.ones_like(traj.reward)), case).gradient  # [K, P]
    p, ret = returns.probability, full_return(case.trajectory.reward, case.trajectory.done, case.gamma)[0]
    mean, best = baselines.batch_mean(ret, p), baselines.optimal(score.square().sum(1), ret, p)
    each = baselines.optimal(score.square().T, ret, p).squeeze(1)  # [P]
    none, at_mean, at_best, at_each, above, below = (
        Estimates(returns.gradient - score * b, p)
        for b in (0 * mean, mean, best, each, best + 0.1, best - 0.1)
    )
    numbers = {
        "b*": at_best.variance,
        "mean": at_mean.variance,
        "b = 0": none.variance,
        "b* per parameter": at_each.variance,
        "b* itself": float(best),
        "mean itself": float(mean),
    }
    unit = size(case) ** 2
    least = all(at_most(at_best.variance, other.variance, unit) for other in (none, at_mean, above, below))
    fair = max(gradient_error(x.mean, case) for x in (at_best, at_mean, at_each)) < ZERO
    return Measured(least, fair and at_most(at_each.variance, at_best.variance, unit), numbers)


def _whole(case: Case) -> Estimator:
    """Σ_t ∇log π·R(τ)."""
    return scored(lambda traj: full_return(traj.reward, traj.done, case.gamma))


def _batch_mean(case: Case) -> Measured:
    """The REINFORCE that trains, on every batch of N episodes: the fewer decisions, the larger N."""
    few = min(8, case.problem.n_actions)  # 8 episodes of more actions are too many batches
    arms = bandit(case.theta[case.problem.observation[0], :few].softmax(0), case.problem.r[0, :few])
    pairs = case if case.seed is None else shortened(case, 2, 2)
    batches = {2: pairs, 3: shortened(case, 1, 3), 4: arms, 8: arms}
    found = {N: _factor(small, "mean", N, 1 - 1 / N) for N, small in batches.items()}
    others = [_factor(shortened(case, 4 - N, N), "leave-one-out", N, 1.0) for N in (2, 3)]
    numbers = {f"factor, N = {N}": factor for N, (factor, _) in found.items()}
    numbers["leave-one-out"] = others[0][0]
    off = max(miss for _, miss in (*found.values(), *others))
    return Measured(abs(found[2][0] - 1) < ZERO, off < ZERO, numbers)


def _factor(case: Case, baseline: Baseline, N: int, expected: float) -> tuple[float, float]:
    """The c for which E ĝ is closest to c·∇J, NaN where that is zero; and how far E ĝ is from its due.

    That is c·∇J with an `expected` c.
    """
    how = Reinforce(n_episodes=N, gamma=case.gamma, discount_decisions=True, baseline=baseline)
    mean, truth = estimates(how, case, episodes=N).mean, true_gradient(case).flatten()
    square = float(truth.square().sum())
    factor = float(mean @ truth) / square if square > ZERO**2 else nan
    return factor, rounded_error(mean, expected * truth, case.steps * size(case))


def _to_go_helps(case: Case) -> Measured:
    """Both returns on the problem, and where the second reward takes the first one back."""
    numbers, fair = {}, True
    for c, where in ((_taken_back(case), ", r = +1, −1"), (case, "")):
        to_go_only = return_minus(c, torch.zeros_like(values_of(c).V[:-1]))
        for how, name in ((_whole(c), "full return"), (to_go_only, "reward-to-go")):
            numbers[name + where] = variance(how, c)
            fair &= error_of(c, how) < ZERO
    full, rest, typical, typical_rest = numbers.values()
    return Measured(at_most(rest, full) and at_most(typical_rest, typical, size(case) ** 2), fair, numbers)


def _taken_back(case: Case) -> Case:
    """Two decisions that change nothing: r₀ = 1 and r₁ = −1/γ, so that every episode returns 0."""
    theta, gamma = torch.zeros(2, 2, dtype=torch.float64), 1.0
    if case.seed is not None:
        theta, gamma = torch.randn(2, 2, generator=case.draws(), dtype=torch.float64), case.gamma or 1.0
    onward = torch.tensor([0.0, 1.0]).expand(2, 2, 2)
    reward = torch.tensor([[1.0, 1.0], [-1 / gamma, -1 / gamma]], dtype=torch.float64)
    problem = Tabular(onward, reward, torch.tensor([1.0, 0.0]), horizon=2, name="taken back")
    return Case(problem, theta, torch.zeros_like(theta), gamma)


def _noise(case: Case) -> Measured:
    """The variance of four estimates, and what is random in their weights where (t, s, a) is known."""
    value, traj = values_of(case), case.trajectory
    V, G = value.V[:-1], to_go(case, traj)
    known = (G, G - look_up(case, V, traj), look_up(case, value.Q, traj))
    noise, rest, none = (_noise_in(case, x) for x in known)
    ways = {
        "with G": return_minus(case, 0 * V),
        "with Q": action_values(case, value.Q),
        "with A": action_values(case, value.A),
        "with G − V": return_minus(case, V),
    }
    numbers = {name: variance(how, case) for name, how in ways.items()}
    numbers |= {"noise in G": noise, "noise in G − V": rest, "noise in Q": none}
    fair = max(error_of(case, how) for how in ways.values()) < ZERO
    unit = size(case) ** 2
    right = all(same(noise, x, unit) for x in (_expected_noise(case), rest, noise + none)) and fair
    return Measured(not same(none, 0.0, unit) or not at_most(noise, rest, unit), right, numbers)


def _noise_in(case: Case, x: Tensor) -> float:
    """Σ_t γ²ᵗ·E[|∇log π|²·Var[x_t | t, s, a]]."""
    traj = case.trajectory
    seen = case.problem.observation[traj.decisions % case.problem.n_states]
    square = exact.scores(case.theta).square().sum(-1)[seen, traj.action]
    weight = discount_weight(traj.done, case.gamma, torch.float64).square() * square
    key = decision_key(case, traj)
    spread = given(x, key, traj.mask, values_of(case).Q.numel()).variance[key]
    return float((traj.mask * weight * spread).sum())


def _expected_noise(case: Case) -> float:
    """The same for G, by dynamic programming."""
    square = exact.scores(case.theta).square().sum(-1)[case.problem.observation]
    decided = exact.marginals(case.problem, case.theta, case.steps).unsqueeze(-1) * exact.policy(
        case.problem, case.theta
    )
    discount = case.gamma ** (2 * torch.arange(case.steps, dtype=torch.float64))
    return float(torch.einsum("t,tsa,sa,tsa->", discount, decided, square, return_variance(case)))


def _advantage(case: Case) -> Measured:
    """G − V next to A: decision by decision, on average, and as estimates."""
    value, traj = values_of(case), case.trajectory
    sampled, known = return_minus(case, value.V[:-1]), action_values(case, value.A)
    gap = to_go(case, traj) - look_up(case, value.V[:-1], traj) - look_up(case, value.A, traj)
    average = given(gap, decision_key(case, traj), traj.mask, value.A.numel()).mean
    numbers = {
        "variance with G − V": variance(sampled, case),
        "variance with A": variance(known, case),
        "max |G − V − A|": float((gap * (traj.mask > 0)).abs().max()),
        "max |E[G − V − A | t, s, a]|": float(average.abs().max()),
        "rel. error with A": error_of(case, known),
    }
    _, _, largest, bias, wrong = numbers.values()
    balanced = float((exact.policy(case.problem, case.theta) * value.A).sum(-1).abs().max()) < room(case)
    fair = bias < room(case) and max(wrong, error_of(case, sampled)) < ZERO
    return Measured(largest < room(case), balanced and fair, numbers)


def _fitted(case: Case) -> Measured:
    """V̂(t, s) by least squares on the two episodes it judges, and on the other one only."""
    small = shortened(case, 2, 2)
    same, other = (estimates(_minus_fit(small, own), small, episodes=2).mean for own in (True, False))
    truth, scale = true_gradient(small).flatten(), small.steps * size(small)
    visits = exact.marginals(small.problem, small.theta, small.steps)
    halves = discounted(small, lambda traj: to_go(small, traj) * look_up(small, visits / 2, traj))
    numbers = {
        "same batch: rel. error": gradient_error(same, small),
        "same batch: cosine": cosine(same, truth),
        "other data: rel. error": gradient_error(other, small),
    }
    predicted = rounded_error(same, expectation(halves, small).flatten(), scale) < ZERO
    fair = numbers["other data: rel. error"] < ZERO
    return Measured(numbers["same batch: rel. error"] < ZERO, fair and predicted, numbers)


def _minus_fit(case: Case, own: bool) -> Estimator:
    """G − V̂, where V̂ is the mean return of the batch at the same time and state, one's own in it or not."""

    def weight(traj: Trajectory) -> Tensor:
        G, seen = to_go(case, traj), traj.decisions
        same = (seen.unsqueeze(2) == seen.unsqueeze(1)) * traj.mask.unsqueeze(1)  # [T, N, N]
        same = same if own else same * (1 - torch.eye(same.shape[-1], dtype=same.dtype))
        return G - baselines.batch_mean(G.unsqueeze(1).expand_as(same), same).squeeze(2)

    return discounted(case, weight)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="L-12",
        title="Any b(t, s) leaves the gradient alone",
        statement="Any function of time and state may be subtracted from the return: the expected gradient "
        "stays the same.",
        verdict=Verdict.TRUE,
        measure=_unbiased,
        equation="E Σₜ γᵗ ∇log π(aₜ|sₜ) (Gₜ − b(t, sₜ)) = ∇J",
        source="000:93-99; 001:64-68,486-496",
        paper="Williams 1992, Machine Learning 8:229",
        explanation="Given the state, b is a constant and E[∇log π] = 0. It must not look at the decision's "
        "own action: with b = Q(s, a) nothing at all is left of the gradient.",
        audit={"rel. error": "<1e-9"},
        also=("M-13",),
    ),
    Claim(
        id="L-13",
        title="V is the baseline of least variance",
        statement="The state value V(s) is the optimal baseline: it minimises the variance of the gradient.",
        verdict=Verdict.FALSE,
        measure=_value_is_best,
        equation="trVar Σₜ γᵗ ∇log π (Gₜ − b)  for b = V, 0, Eₜ[G], b*, argmin over b(t, s)",
        source="000:101; 001:70,498,527",
        paper="Greensmith, Bartlett & Baxter 2004, JMLR 5; Weaver & Tao 2001, UAI",
        explanation="Actions count in the variance with |∇log π|², which is large for rare ones; V weighs "
        "them as if it were the same for all. V can therefore be worse than no baseline, "
        "as on the reference problem.",
        correction="The optimum weighs returns by squared scores: E[|∇log π|²Q]/E[|∇log π|²] for a single "
        "decision, and with the products with other decisions' terms for their sum.",
        audit={
            "V": "2.9201",
            "b = 0": "2.8095",
            "mean": "2.6142",
            "b*": "1.8475",
            "best b(t, s)": "1.7540",
            "bandit: V": ".1152",
            "bandit: 0": ".0018",
            "bandit: b*": "<1e-9",
        },
        also=("E-04",),
        picture="baselines",
        fits=solvable,
        needs="at most 10⁸ products of trajectories, decisions, states and parameters",
    ),
    Claim(
        id="L-14",
        title="b* is optimal for one decision",
        statement="For a single decision b* = E[|∇log π|²Q]/E[|∇log π|²] minimises the variance; with two "
        "actions it is π₁Q₀ + π₀Q₁, and the variance is zero.",
        verdict=Verdict.TRUE,
        measure=_one_step,
        equation="b*(s) = E[|∇log π|² Q] / E[|∇log π|²];  A = 2: b* = π₁Q₀ + π₀Q₁",
        source="004:40",
        paper="Weaver & Tao 2001, UAI; Greensmith, Bartlett & Baxter 2004, JMLR 5",
        explanation="The variance is a parabola in b, with its lowest point there. With two actions the "
        "scores point in opposite directions, and one b makes both products equal: V with weights swapped.",
        audit={
            "π₁Q₀ + π₀Q₁ − b*": "<1e-9",
            "variance, 2 actions": "<1e-9",
            "V in state 0": ".0717",
            "V in state 1": ".1003",
            "V in state 2": ".8585",
            "b = 0 in state 0": ".0760",
            "b = 0 in state 1": ".0110",
            "b = 0 in state 2": ".6059",
        },
    ),
    Claim(
        id="L-15",
        title="The same b* is optimal for the sum",
        statement="The baseline that is optimal for every decision on its own is optimal for their sum, the "
        "estimate from a trajectory.",
        verdict=Verdict.FALSE,
        measure=_sum_of_steps,
        equation="b(t, s) = E[φ·ĝ] / E|φ|²,  φ = 1[sₜ = s] γᵗ ∇log π(aₜ|s),  ĝ = Σₖ γᵏ ∇log π(aₖ|sₖ) Gₖ",
        source="004:40",
        paper="Greensmith, Bartlett & Baxter 2004, JMLR 5",
        explanation="The terms of the sum are correlated: the action at t decides which states the later "
        "terms come from, and the earlier terms hold its rewards too. b* is near the optimum, but not at it.",
        correction="The optimum over b(t, s) is E[φ·ĝ]/E|φ|² with ĝ the whole estimate: b* is what remains "
        "of it without the products with other decisions.",
        audit={"b*": "1.8475", "best b(t, s)": "1.7540"},
        fits=solvable,
        needs="at most 10⁸ products of trajectories, decisions, states and parameters",
    ),
    Claim(
        id="L-16",
        title="b* = E[|g|²R]/E[|g|²] for whole returns",
        statement="For REINFORCE with whole returns the constant of least variance is E[|g|²R]/E[|g|²], with "
        "g = Σ ∇log π.",
        verdict=Verdict.TRUE,
        measure=_whole_returns,
        equation="b* = E[|g|² R] / E[|g|²],  g = Σₜ ∇log π(aₜ|sₜ);  per parameter b*ᵢ = E[gᵢ² R] / E[gᵢ²]",
        source="004:33-40",
        paper="Weaver & Tao 2001, UAI; per parameter Peters & Schaal 2008",
        explanation="E|g(R − b)|² is a parabola in b, and E[g(R − b)] does not depend on b. The mean return "
        "would be the optimum only if |g|² had nothing to do with R; one b per parameter does better still.",
        audit={
            "b*": "4.6167",
            "mean": "5.1931",
            "b = 0": "5.7639",
            "b* per parameter": "4.3820",
            "b* itself": ".8405",
            "mean itself": ".2447",
        },
        differs={"b* per parameter": "It is 4.38195, which rounds to 4.3819: the audit's last digit is off."},
        also=("M-16",),
    ),
    Claim(
        id="L-17",
        title="The batch mean is a harmless baseline",
        statement="The mean return of the batch can be subtracted without changing the expected gradient.",
        verdict=Verdict.FALSE,
        measure=_batch_mean,
        equation="E[(1/N) Σᵢ gᵢ (Rᵢ − R̄)] = (1 − 1/N) ∇J",
        source="often concluded from 004:33-39",
        paper="Kool, van Hoof & Welling 2019, Buy 4 REINFORCE samples, get a baseline for free!",
        explanation="The mean holds 1/N of the very return it is subtracted from, and so looks at the "
        "action. The direction is kept; the length is not. Returns of both signs are no aim in themselves: "
        "what a baseline is for is variance.",
        correction="The expected gradient is (1 − 1/N)·∇J; the mean of the other episodes, leave-one-out, is "
        "unbiased.",
        audit={
            "factor, N = 2": ".5",
            "factor, N = 4": ".7503",
            "factor, N = 8": ".8747",
            "leave-one-out": "1.0",
        },
        differs={
            "factor, N = 4": "The audit sampled batches; over all batches the factor is 3/4 exactly.",
            "factor, N = 8": "The audit sampled batches; over all batches the factor is 7/8 exactly.",
        },
        also=("E-17", "M-15"),
        fits=early,
        needs="a gradient within two decisions",
    ),
    Claim(
        id="L-18",
        title="Reward-to-go lowers the variance",
        statement="Reward-to-go never raises the variance of the gradient over that with whole returns.",
        verdict=Verdict.FALSE,
        measure=_to_go_helps,
        equation="trVar Σₜ γᵗ ∇log π Gₜ  ≤  trVar Σₜ ∇log π R(τ)  ?",
        source="often concluded from 004:29-32",
        paper="",
        explanation="What is left out has mean zero when multiplied by the score, but it may cancel noise: "
        "if the second reward always takes the first back, whole returns are 0 and returns to go are not.",
        correction="The expectation is the same, of the same objective; the variance is usually lower (on "
        "the reference problem less than half), but need not be.",
        audit={
            "full return, r = +1, −1": "<1e-9",
            "reward-to-go, r = +1, −1": ".5",
            "full return": "5.76",
            "reward-to-go": "2.81",
        },
        also=("E-16",),
    ),
    Claim(
        id="E-05",
        title="Q is noisy, and a baseline removes it",
        statement="Q(s, a) contains the noise of the environment and has a high variance, and that is what a "
        "baseline removes.",
        verdict=Verdict.FALSE,
        measure=_noise,
        equation="noise in x = Σₜ γ²ᵗ E[|∇log π|² Var[xₜ | t, s, a]]  for x = G, G − V, Q",
        source="000:95; 001:64",
        paper="Greensmith, Bartlett & Baxter 2004, JMLR 5",
        explanation="Q is an expectation: given state and action nothing about it is random. Putting it in "
        "the place of G averages the noise away (Rao-Blackwell); a baseline, known beforehand, only "
        "re-centres what the action decides.",
        correction="The noise is in the sampled return G. It is the same in G − b for every b(t, s); Q in "
        "the place of G removes all of it.",
        audit={"with G": "2.8095", "with Q": "1.2775", "with A": "1.4883", "with G − V": "2.9201"},
    ),
    Claim(
        id="E-07",
        title="The advantage is R_t − V",
        statement="The advantage is by definition the return from t less the value, A := Rₜ − V(sₜ).",
        verdict=Verdict.FALSE,
        measure=_advantage,
        equation="A(s, a) = Q(s, a) − V(s) = E[Gₜ − V(sₜ) | sₜ = s, aₜ = a]",
        source="001:504-510; 000:101-111; 001:70-74",
        paper="Sutton, McAllester, Singh & Mansour 2000, NIPS 12",
        explanation="The return is random where state and action are known, A is a number. Both give the "
        "same expected gradient, the exact one (with γᵗ), but not the same variance.",
        correction="A = Q − V; Gₜ − V(sₜ) is an estimate of it from one sample, with the same expectation.",
        audit={
            "variance with G − V": "2.9201",
            "variance with A": "1.4883",
            "rel. error with A": "<1e-9",
        },
        also=("M-14",),
    ),
    Claim(
        id="E-21",
        title="V̂ in G − V̂ may be any network",
        statement="In Â = G − V̂ the value V̂ may come from any other network: the gradient stays unbiased.",
        verdict=Verdict.TRUE_IF,
        measure=_fitted,
        equation="V̂ = argmin Σ (V̂(t, sₜ) − Gₜ)² over the batch of N = 2 itself:  E ĝ has weights P(sₜ = s)/2",
        source="000:121",
        paper="Kool, van Hoof & Welling 2019 on the mean; Tucker et al. 2018, arXiv 1802.10031",
        explanation="A value fitted to a return before it is subtracted from it has seen the action. A table "
        "fitted to two episodes takes all of a return in a state that one of them visits, and half of it in "
        "one that both visit, so that not even the direction is kept.",
        correction="V̂ must not depend on the batch it judges: fit it to earlier data, or to the other "
        "episodes, and any V̂ will do.",
        fits=early,
        needs="a gradient within two decisions",
    ),
)
"""In the order of the notes."""
