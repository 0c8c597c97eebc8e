"""Claims about the surrogates L^CPI and L^CLIP: where they agree with J, and what clipping does not do."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from pgrad.algorithms import PPO
from pgrad.data import Trajectory
from pgrad.lab import exact
from pgrad.lab.agent import TabularAgent
from pgrad.lab.claim import ZERO, Claim, Measured, Verdict
from pgrad.lab.claims.common import (
    Objective,
    every_decision,
    gradient_error,
    gradient_of,
    log_prob,
    room,
    rounded_error,
    size,
    surrogate,
    true_gradient,
)
from pgrad.lab.claims.trust import divergence
from pgrad.lab.claims.weights import mixed
from pgrad.lab.estimate import agent_of, cosine, episode_sum, estimator, expectation
from pgrad.lab.problems import Case
from pgrad.lab.seen import discounted_gae
from pgrad.math.credit import discount_weight
from pgrad.math.distributions import Categorical
from pgrad.math.kl import exact as kl
from pgrad.math.objectives import clipped, importance_weighted
from pgrad.math.reduce import mean
from pgrad.worlds.tensors.tabular import Tabular

EPSILON = 0.2
EPSILONS = (0.1, EPSILON, 0.5)
"""The clips whose inner epochs are compared."""


def clip_to(epsilon: float) -> Objective:
    """L^CLIP with the interval [1 − ε, 1 + ε]."""
    return partial(clipped, clip_low=epsilon, clip_high=epsilon)


def ascent(case: Case, objective: Objective, rate: float) -> Iterator[Tensor]:
    """θ_old, θ_1, θ_2, …: exact gradient ascent on a surrogate, with the decisions of θ_old."""
    climb = surrogate(case, every_decision(case), objective)
    theta = case.theta
    while True:
        yield theta
        theta = theta + rate * gradient_of(climb, theta)


def after(case: Case, objective: Objective, rate: float, steps: int) -> Tensor:
    """Where so many steps of `ascent` lead."""
    return next(islice(ascent(case, objective, rate), steps, None))


def ratios(case: Case, theta: Tensor) -> Tensor:
    """π(a|s)/π_old(a|s), [S, A]."""
    return exact.policy(case.problem, theta) / exact.policy(case.problem, case.theta)


def objective_at(case: Case, theta: Tensor) -> float:
    """J(θ)."""
    return float(exact.objective(case.problem, theta, case.gamma))


def _tangent(case: Case) -> Measured:
    """L-30: both surrogates on every trajectory, and three ways to average."""
    ppo = PPO(gamma=case.gamma, normalize_advantage=False, ent_coef=0.0)
    discount = discount_weight(case.trajectory.done, case.gamma, torch.float64)

    def credit(agent: TabularAgent, traj: Trajectory) -> Tensor:
        return ppo.credit(agent, traj).advantage

    def summed(x: Tensor, mask: Tensor) -> Tensor:
        return episode_sum(discount * x, mask)

    def normalised(x: Tensor, mask: Tensor) -> Tensor:
        return mean(x, discount * mask)

    truth = true_gradient(case)
    cpi = expectation(estimator(credit, importance_weighted, summed), case)
    clip = expectation(estimator(credit, clip_to(EPSILON), summed), case)
    in_time = expectation(ppo, case)
    by_d = expectation(estimator(credit, clip_to(EPSILON), normalised), case)
    mass = exact.visitation(case.problem, case.theta, case.gamma, case.steps).sum()
    errors = [gradient_error(x, case) for x in (cpi, clip, mass * by_d)]
    return Measured(
        holds=gradient_error(in_time, case) < ZERO,
        right=max(errors) < ZERO,
        numbers={
            "rel. error of L_CPI": errors[0],
            "rel. error of L_CLIP": errors[1],
            "length with E_t": float(in_time.norm() / truth.norm()),
            "cosine with E_t": cosine(in_time, truth),
            "1 / length with normalised d": float(truth.norm() / by_d.norm()),
        },
    )


def _taylor(case: Case) -> Measured:
    """L-31: J, L^CPI and the tangent along the case's direction."""
    batch = every_decision(case)
    L = surrogate(case, batch, importance_weighted)
    slope = true_gradient(case)
    J = objective_at(case, case.theta)

    def along(c: float) -> tuple[float, float, float]:
        theta = case.theta + c * case.direction
        return objective_at(case, theta) - J, float(L(theta)), c * float((slope * case.direction).sum())

    gain, value, tangent = along(0.4)
    misses = [(abs(dJ - near), abs(near - line)) for dJ, near, line in map(along, (0.02, 0.01))]
    first, second = (_order(far, near) for far, near in zip(*misses, strict=True))
    at_old = float(L(case.theta))
    touching = gradient_error(gradient_of(L, case.theta), case)
    return Measured(
        holds=max(abs(at_old - J), abs(value - tangent)) < room(case),
        right=abs(at_old) < room(case) and touching < ZERO,
        numbers={
            "ΔJ, c = .4": gain,
            "L_CPI, c = .4": value,
            "Taylor, c = .4": tangent,
            "order of ΔJ − L_CPI": first,
            "order of L_CPI − Taylor": second,
            "L_CPI(θ_old)": at_old,
        },
    )


def _order(far: float, near: float) -> float:
    """p of an error that falls like cᵖ, from the errors at 2c and c (0 if there is none)."""
    return float(torch.tensor(far / near).log2()) if near > 0 < far else 0.0


def performance_difference(case: Case, theta: Tensor) -> float:
    """Σ_t γᵗ E_{s ~ new, a ~ new}[A_old], by the marginals of the new policy."""
    new = every_decision(case.on(theta))
    return float((new.mask * every_decision(case).advantage).sum())


def _lemma(case: Case) -> Measured:
    """L-32: old TD errors (GAE, λ = 0) along every trajectory of the new policy."""
    new = case.on(case.theta + case.direction)
    old = exact.values(case.problem, case.theta, case.gamma, case.steps).V
    traj = new.trajectory
    collected = episode_sum(discounted_gae(agent_of(new, old), traj, case.gamma, 0.0), traj.mask)
    gain = objective_at(case, new.theta) - objective_at(case, case.theta)
    by_marginals = performance_difference(case, new.theta)
    return Measured(
        holds=abs(float(collected) - gain) < room(case),
        right=abs(by_marginals - gain) < room(case),
        numbers={"J(new) − J(old)": gain, "old advantage of new": float(collected)},
    )


def _below(case: Case) -> Measured:
    """L-33: 2000 policies near and far; and ∂L/∂r by cases."""
    batch = every_decision(case)
    clip = clip_to(EPSILON)

    def above(theta: Tensor) -> Tensor:
        logp = log_prob(case, theta, batch)
        return clip(logp, batch.logp, batch.advantage) - importance_weighted(
            logp, batch.logp, batch.advantage
        )

    noise = torch.randn(2000, *case.theta.shape, generator=case.draws(), dtype=torch.float64)
    excess = torch.func.vmap(above)(case.theta + 2 * noise)
    at = torch.tensor([0.5, 0.9, 1.0, 1.1, 1.5], dtype=torch.float64)
    good, bad = (_pull(at, sign) for sign in (1.0, -1.0))
    table = torch.tensor([[1, 1, 1, 1, 0], [0, -1, -1, -1, -1]], dtype=torch.float64)
    return Measured(
        holds=float(excess.max()) <= 0.0,
        right=bool(torch.allclose(torch.stack([good, bad]), table, atol=ZERO)) and float(excess.min()) < 0.0,
        numbers={
            "max(L_CLIP − L_CPI)": float(excess.max()),
            "pull at r = .5, A > 0": float(good[0]),
            "pull at r = 1.5, A > 0": float(good[-1]),
            "pull at r = .5, A < 0": float(bad[0]),
            "pull at r = 1.5, A < 0": float(bad[-1]),
        },
    )


def _pull(ratio: Tensor, advantage: float) -> Tensor:
    """∂/∂r of the clipped objective of one decision: its derivative in log π, divided by r."""
    clip = clip_to(EPSILON)

    def total(logp: Tensor) -> Tensor:
        return clip(logp, torch.zeros_like(logp), torch.full_like(logp, advantage)).sum()

    return gradient_of(total, ratio.log()) / ratio


def _escape(case: Case) -> Measured:
    """L-34: a two-armed bandit until nothing pulls any more, and ascent on the problem itself."""
    p = 0.1 if case.seed is None else 0.05 + 0.3 * float(torch.rand(1, generator=case.draws()))
    arms = torch.tensor([p, 1 - p], dtype=torch.float64)
    clip = clip_to(EPSILON)

    def objective(logits: Tensor) -> Tensor:
        return (
            arms * clip(logits.log_softmax(0), arms.log(), torch.tensor([1 - p, -p], dtype=arms.dtype))
        ).sum()

    flown = _flow(objective, arms.log())
    new = flown.softmax(0)
    ratio, expected = float(new[0] / arms[0]), 1 + EPSILON * (1 - p) / p
    moved = ratios(case, after(case, clip, 2.0, 400 if case.seed is None else 20))
    slowly = ratios(case, after(case, clip, 0.1, 400 if case.seed is None else 20))
    return Measured(
        holds=bool((torch.cat([new / arms, moved.flatten()]) - 1).abs().max() <= EPSILON),
        right=abs(ratio - expected) < 1e-6 and not bool(gradient_of(objective, flown).any()),
        numbers={
            "bandit: ratio": ratio,
            "bandit: total variation": float((new - arms).abs().sum() / 2),
            "bandit: KL": float(kl(Categorical(arms.log()), Categorical(flown))),
            "problem: largest ratio": float(moved.max()),
            "problem: smallest ratio": float(moved.min()),
            "step .1: largest ratio": float(slowly.max()),
            "step .1: smallest ratio": float(slowly.min()),
        },
    )


def _flow(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Ascent to the first point of zero gradient: steps that would pass it are halved."""
    step, gradient = 20.0, gradient_of(function, x)
    for _ in range(200):
        there = x + step * gradient
        ahead = gradient_of(function, there)
        if bool(ahead.any()):
            x, gradient = there, ahead
        elif step < 1e-9:
            break
        else:
            step /= 2
    return there


def shared_chain(p: float, cost: float) -> Case:
    """Four states that share one probability of going on: J = p − cost·p⁴, γ = 1.

    Going on pays 1 in the first state and −cost in the last; everything else ends the task for nothing.
    """
    P, r = torch.zeros(5, 2, 5, dtype=torch.float64), torch.zeros(5, 2, dtype=torch.float64)
    P[range(4), 0, range(1, 5)] = 1.0
    P[4, 0, 4] = P[4, 1, 4] = 1.0
    P[:4, 1, 4] = 1.0
    r[0, 0], r[3, 0] = 1.0, -cost
    states = torch.arange(5)
    problem = Tabular(
        P=P, r=r, rho0=(states == 0).double(), horizon=4, observation=0 * states, terminal=states == 4
    )
    theta = torch.tensor([[p, 1 - p]], dtype=torch.float64).log()
    return Case(problem, theta, torch.zeros_like(theta), 1.0, name="the chain")


def _monotone(case: Case) -> Measured:
    """L-35: the chain at the maximum of its L^CLIP; and sixteen steps of ascent on the problem itself."""
    u, v = (1.0, 0.1) if case.seed is None else torch.rand(2, generator=case.draws()).tolist()
    p, slope = 0.3 + 0.2 * u, 0.2 * v + (0.08 if case.seed is None else 0.01)
    chain = shared_chain(p, (1 - slope) / (4 * p**3))  # dJ/dp = slope at p
    L = surrogate(chain, every_decision(chain), clip_to(EPSILON))
    going = p * torch.arange(0.5, 1.8, 0.01, dtype=torch.float64)
    thetas = torch.stack([going, 1 - going], 1).log().unsqueeze(1)
    values = torch.func.vmap(L)(thetas)
    best = thetas[values.argmax()]
    fall = objective_at(chain, best) - objective_at(chain, chain.theta)
    there = after(case, clip_to(EPSILON), 0.1, 16)
    gain = objective_at(case, there) - objective_at(case, case.theta)
    better = _worst_state(case, there) < -room(case) or gain > -room(case)
    return Measured(
        holds=not (float(values.max()) > 0 > fall),
        right=better
        and abs(performance_difference(chain, best) - fall) < ZERO
        and abs(float(values.max()) - slope * EPSILON * p) < ZERO,  # linear in p up to the clip
        numbers={
            "chain: J before": objective_at(chain, chain.theta),
            "chain: J after": objective_at(chain, best),
            "chain: L_CLIP": float(values.max()),
            "chain: ratio": float(ratios(chain, best)[0, 0]),
            "chain: worst state": _worst_state(chain, best),
            "problem: L_CLIP": float(surrogate(case, every_decision(case), clip_to(EPSILON))(there)),
            "problem: ΔJ": gain,
        },
    )


def _worst_state(case: Case, theta: Tensor) -> float:
    """min over (t, s) reached of E_{a ~ new}[A_old(s, a)]."""
    batch = every_decision(case)
    reached = batch.mask.sum(-1) > 0
    return float((exact.policy(case.problem, theta) * batch.advantage).sum(-1)[reached].min())


def _inner_epochs(case: Case) -> Measured:
    """N-04: the gradient that is followed against the one that should be, after k inner steps."""

    off: list[float] = []

    def path(epsilon: float) -> dict[int, tuple[float, Tensor]]:
        climb = surrogate(case, every_decision(case), clip_to(epsilon))
        points = dict(enumerate(islice(ascent(case, clip_to(epsilon), 0.1), 17)))
        kept = {k: points[k] for k in (0, 1, 4, 16)}
        off.extend(
            rounded_error(gradient_of(climb, x), _still_pulling(case, x, epsilon), case.steps * size(case))
            for x in kept.values()
        )
        return {k: (_miss(case, climb, theta), theta) for k, theta in kept.items()}

    tight, usual, loose = map(path, EPSILONS)
    free = surrogate(case, every_decision(case), importance_weighted)
    return Measured(
        holds=max(miss for miss, _ in usual.values()) < ZERO,
        right=max(way[0][0] for way in (tight, usual, loose)) < ZERO and max(off) < ZERO,
        numbers={
            "rel. error, ε = .2, k = 1": usual[1][0],
            "ε = .2, k = 4": usual[4][0],
            "ε = .2, k = 16": usual[16][0],
            "ε = .1, k = 16": tight[16][0],
            "ε = .5, k = 16": loose[16][0],
            "there without the clip": _miss(case, free, usual[16][1]),
            "KL, ε = .1, k = 16": float(divergence(case, tight[16][1])),
            "KL, ε = .5, k = 16": float(divergence(case, loose[16][1])),
        },
    )


def _still_pulling(case: Case, theta: Tensor, epsilon: float) -> Tensor:
    """Σ γᵗ E[∇log π·A_old] [O, A] over old states and new actions, of the decisions that the clip leaves."""
    A, ratio = every_decision(case).advantage, ratios(case, theta)
    silenced = ((ratio > 1 + epsilon) & (A > 0)) | ((ratio < 1 - epsilon) & (A < 0))
    return mixed(case.on(theta), case.theta, theta, A.masked_fill(silenced, 0.0))


def _miss(case: Case, climb: Callable[[Tensor], Tensor], theta: Tensor) -> float:
    return gradient_error(gradient_of(climb, theta), case.on(theta))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="L-30",
        title="The surrogates touch J at θ_old",
        statement="At θ_old the gradient of L^CPI, an average E_t over decisions, equals the gradient of J.",
        verdict=Verdict.TRUE_IF,
        correction="Decisions count γᵗ and are summed over the episode, for L^CPI and L^CLIP alike; the "
        "average over decisions that PPO descends is shorter and, for γ < 1, turned.",
        measure=_tangent,
        equation="∇E Σₜ γᵗ rₜAₜ = ∇E Σₜ γᵗ min(rₜAₜ, clip(rₜ, 1 − ε, 1 + ε)Aₜ) = ∇J   at θ = θ_old",
        source="001:637-707",
        paper="Kakade & Langford 2002; Schulman et al. 2015, arXiv 1502.05477, eq. (4)",
        explanation="At θ_old every ratio is 1, inside the clip, and ∇r = ∇log π, which leaves the policy "
        "gradient. The weights remain: E_t divides by the length of an episode and drops γᵗ (option 1), and "
        "the normalised dᵖⁱ divides by its mass (1 − γᵀ)/(1 − γ).",
        audit={
            "rel. error of L_CPI": "<1e-9",
            "rel. error of L_CLIP": "<1e-9",
            "length with E_t": ".2896",
            "cosine with E_t": ".999687",
            "1 / length with normalised d": "3.4390",
        },
        also=("M-60", "E-27"),
        picture="landscape",
    ),
    Claim(
        id="L-31",
        title="L^CPI as the Taylor expansion of J",
        statement="L^CPI is the first-order Taylor expansion (the linear approximation) of J at θ_old.",
        verdict=Verdict.FALSE,
        correction="J(θ_old) + L^CPI touches J to first order, but L^CPI(θ_old) = 0 and L^CPI is curved.",
        measure=_taylor,
        equation="J(θ) − J(θ_old) = L^CPI(θ) + O(c²),   L^CPI(θ) = ⟨∇J, θ − θ_old⟩ + O(c²)",
        source="001:657,701-715; 004:89",
        paper="Kakade & Langford 2002; Schulman et al. 2015, arXiv 1502.05477, eqs. (3) and (4)",
        explanation="L^CPI is linear in π, which is not linear in θ. It shares J's value (after adding "
        "J(θ_old)) and slope, and its own second-order term is not J's: both differences fall like c².",
        audit={
            "ΔJ, c = .4": ".59899",
            "L_CPI, c = .4": ".60483",
            "Taylor, c = .4": ".56307",
            "order of ΔJ − L_CPI": "2.019",
            "order of L_CPI − Taylor": "1.998",
            "L_CPI(θ_old)": "<1e-9",
        },
        differs={"L_CPI, c = .4": "the audit rounded twice, .6048248 to .604825 to .60483"},
        also=("E-27", "M-59", "M-61"),
        picture="landscape",
    ),
    Claim(
        id="L-32",
        title="Performance-difference lemma",
        statement="J(π) − J(π_old) is the discounted advantage of π_old along the trajectories of π.",
        verdict=Verdict.TRUE,
        measure=_lemma,
        equation="J(π) − J(π_old) = E_{τ~π} Σₜ γᵗ A_old(sₜ, aₜ)",
        source="behind 001:635-715",
        paper="Kakade & Langford 2002, lemma 6.1; Schulman et al. 2015, arXiv 1502.05477, eq. (1)",
        explanation="A's TD errors telescope along a trajectory: Σ γᵗδₜ = R(τ) − V_old(s₀). L^CPI differs "
        "in one thing only: it lets the states keep the distribution of π_old.",
        audit={"J(new) − J(old)": "1.55524626", "old advantage of new": "1.55524626"},
    ),
    Claim(
        id="L-33",
        title="L^CLIP is a lower bound of L^CPI",
        statement="min(rA, clip(r)A) is never above rA, and flat only where r has left the clip the way A "
        "asks.",
        verdict=Verdict.TRUE,
        measure=_below,
        equation="∂/∂r min(rA, clip(r, .8, 1.2)A) = A unless r > 1.2, A > 0 or r < .8, A < 0; there 0",
        source="001:727-753; 004:92",
        paper="Schulman et al. 2017, arXiv 1707.06347, eq. (7), figure 1",
        explanation="The minimum makes the bound pessimistic. A decision that has gone the wrong way (r < "
        ".8 with A > 0) keeps its pull, so that it can come back.",
        audit={
            "max(L_CLIP − L_CPI)": "<1e-9",
            "pull at r = .5, A > 0": "1",
            "pull at r = 1.5, A > 0": "0",
            "pull at r = .5, A < 0": "0",
            "pull at r = 1.5, A < 0": "-1",
        },
        also=("M-63", "M-64"),
        picture="landscape",
    ),
    Claim(
        id="L-34",
        title="Does clipping bound the ratio?",
        statement="Clipping is a trust region: no update takes a ratio out of [1 − ε, 1 + ε].",
        verdict=Verdict.FALSE,
        correction="A decision stops pulling once its own ratio is out; the other actions of its state, and "
        "any step that is too long, carry it on: an arm of probability p flows to the ratio 1 + ε(1 − p)/p.",
        measure=_escape,
        equation="two arms, π_old = (p, 1 − p), A = (+, −): r₁ stops at 1 − ε, so r₀ = 1 + ε(1 − p)/p",
        source="001:625,756-758,966; 004:92-93",
        paper="Wang, He & Tan 2019, arXiv 1903.07940; Ilyas et al. 2020, arXiv 1811.02553",
        explanation="The clipped objective is flat outside, not a wall: nothing pushes back. The bandit's "
        "bad arm still pulls when the good arm has stopped, and probabilities sum to 1. On the reference "
        "problem one step of size 2 jumps to where nothing pulls and 399 more stay there; small steps "
        "escape less, but do.",
        audit={
            "bandit: ratio": "2.80",
            "bandit: total variation": ".18",
            "bandit: KL": ".098",
            "problem: largest ratio": "3.07",
            "problem: smallest ratio": ".214",
        },
        also=("E-28", "M-65"),
        picture="escape",
    ),
    Claim(
        id="L-35",
        title="Does L^CLIP > 0 mean improvement?",
        statement="Raising L^CLIP above 0 raises J: monotone improvement, as TRPO's theory promises.",
        verdict=Verdict.FALSE,
        correction="J is certain not to fall if in no state, at no time, π has a negative mean of π_old's "
        "advantage, as a table that climbs an exact L^CLIP usually achieves; shared parameters trade states "
        "against each other.",
        measure=_monotone,
        equation="four states share p: J = p − 1.8p⁴, p_old = .5; argmax L^CLIP = .6, where J is lower",
        source="001:757-759; 004:93",
        paper="Kakade & Langford 2002; Schulman et al. 2015, arXiv 1502.05477, theorem 1",
        explanation="L^CLIP weighs states as π_old visits them. Going on more often pays in the first state "
        "and costs in the last, which the new policy reaches far more often than the old one did. How "
        "often random problems fail depends on how they are drawn: the audit counts 38 of 4000 with states "
        "that look alike and 0 of 3000 tables, and does not say how it drew them.",
        audit={
            "chain: J before": ".38750",
            "chain: J after": ".36672",
            "chain: L_CLIP": ".010",
            "chain: ratio": "1.2",
        },
        also=("E-29", "M-65"),
        picture="monotone",
    ),
    Claim(
        id="N-04",
        title="PPO's bias in the inner epochs",
        statement="Clipping keeps the gradient of the inner epochs that of J.",
        verdict=Verdict.FALSE,
        correction="Only the first step follows ∇J; later old states and advantages make a small error, and "
        "decisions that the clip silences a large one: 100 % once nothing pulls. A wide ε postpones it and "
        "drifts further.",
        measure=_inner_epochs,
        equation="|∇L^CLIP(θₖ) − ∇J(θₖ)| / |∇J(θₖ)| after k exact ascent steps of .1",
        source="asked of every implementation with n_epochs > 1; 001:619-633, 004:90",
        paper="Ilyas et al. 2020, arXiv 1811.02553; Engstrom et al. 2020, arXiv 2005.12729",
        explanation="On the reference problem, at the sixteenth point of the path with ε = .2, L^CPI still "
        "has ∇J within 4 %, L^CLIP misses it by 85 %: the clip is meant to stop, not to estimate. On some "
        "problems the error exceeds 100 %, when what is left pulls against ∇J. A wider ε keeps the "
        "gradient faithful for longer, at the price of more distance from the data.",
        picture="inner_epochs",
    ),
)
"""L-30 to L-35, and N-04."""
