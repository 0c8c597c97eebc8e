"""Claims about trust regions: the Fisher matrix, TRPO's step, KL penalties, and the sign of PPO's loss."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from pgrad.algorithms import A2C, PPO, PPOKL, TRPO
from pgrad.data import Batch
from pgrad.lab import exact
from pgrad.lab.claim import ZERO, Claim, Measured, Verdict
from pgrad.lab.claims.common import (
    every_decision,
    gradient_error,
    gradient_of,
    relative_error,
    same,
    size,
    surrogate,
    table_agent,
    true_gradient,
)
from pgrad.lab.problems import Case
from pgrad.math.distributions import Categorical
from pgrad.math.kl import exact as kl
from pgrad.math.natural import conjugate_gradient, fisher_vector_product, trust_region_scale
from pgrad.math.objectives import importance_weighted
from pgrad.math.reduce import mean


def shares(case: Case) -> Tensor:
    """dᵖⁱ(s) / Σ dᵖⁱ [S]: the discounted visitation, normalised."""
    d = exact.visitation(case.problem, case.theta, case.gamma, case.steps)
    return d / d.sum()


def divergence(case: Case, theta: Tensor, backwards: bool = False) -> Tensor:
    """KL(π_old‖π) in the mean over the normalised dᵖⁱ of π_old; `backwards`: KL(π‖π_old)."""
    assert case.problem.observation is not None
    old, new = Categorical(case.theta), Categorical(theta)
    each = kl(new, old) if backwards else kl(old, new)
    return mean(each[case.problem.observation], shares(case))


def curvature(case: Case, backwards: bool = False) -> Callable[[Tensor], Tensor]:
    """v ↦ (∇² of `divergence` at π_old)·v, by the product that TRPO uses."""
    leaf = case.theta.clone().requires_grad_()
    return fisher_vector_product(divergence(case, leaf, backwards), [leaf])


def matrix(product: Callable[[Tensor], Tensor], n: int) -> Tensor:
    """The n×n matrix of a symmetric product."""
    return torch.stack([product(unit) for unit in torch.eye(n, dtype=torch.float64)])


def natural_gradient(case: Case) -> tuple[Tensor, Tensor]:
    """x = F⁺∇J [O, A] and F [P, P], the Fisher matrix in the mean over the normalised dᵖⁱ."""
    F = exact.fisher(case.problem, case.theta, shares(case))
    slope = true_gradient(case)
    x = torch.linalg.pinv(F, rtol=1e-12, hermitian=True) @ slope.flatten()
    return x.view_as(slope), F


def _natural(case: Case) -> Measured:
    """L-36: second derivatives of both KLs; and A by observation, weighted by time and state."""
    x, F = natural_gradient(case)
    forward, backward = (matrix(curvature(case, way), len(F)) for way in (False, True))
    slope = true_gradient(case).flatten()
    unit = slope / slope.norm().clamp_min(torch.finfo(slope.dtype).tiny)  # its tolerance is absolute
    rounding = 1e-15 * case.steps * size(case) / float(slope.norm())  # of ∇J, which no F·x can undo
    climbed = slope.norm() * conjugate_gradient(curvature(case), unit, 3 * len(F), max(1e-13, rounding) ** 2)
    missed = gradient_error(F @ climbed, case)
    batch = every_decision(case)
    assert case.problem.observation is not None
    pi, onto = exact.policy(case.problem, case.theta), torch.zeros_like(x)
    weighted = onto.index_add(0, case.problem.observation, (batch.mask / pi * batch.advantage).sum(0))
    share = torch.zeros_like(x[:, 0]).index_add(0, case.problem.observation, shares(case))
    A = torch.where(share.unsqueeze(1) > 0, weighted / share.unsqueeze(1), 0.0)
    weighted_A = gradient_error(F @ A.flatten(), case)  # A is F⁺∇J but for a constant in each state
    names = [f"state {o}: x(a₀) − x(a₁)" for o in range(min(3, len(x)))]
    return Measured(
        holds=relative_error(forward, F) < ZERO,
        right=max(relative_error(backward, F), missed, weighted_A) < ZERO,
        numbers={
            "|Hess KL − F| / |F|": relative_error(forward, F),
            "|natural − weighted A| / |natural|": relative_error(A - A.mean(1, keepdim=True), x),
            "… by conjugate gradients": relative_error(climbed.view_as(x), x),
        }
        | dict(zip(names, (x[:, 0] - x[:, 1]).tolist(), strict=False)),
    )


def _trust_region(case: Case) -> Measured:
    """L-37: the natural and the plain step to ½·xᵀFx = δ; then shortened until KL ≤ δ and L^CPI > 0."""
    x, F = natural_gradient(case)
    slope = true_gradient(case)
    L = surrogate(case, every_decision(case), importance_weighted)
    J = exact.objective(case.problem, case.theta, case.gamma)

    def step(direction: Tensor, delta: float) -> Tensor:
        flat = direction.flatten()
        return trust_region_scale(flat, F @ flat, delta) * direction

    def gain(direction: Tensor, delta: float) -> float:
        there = case.theta + step(direction, delta)
        return float(exact.objective(case.problem, there, case.gamma) - J)

    def searched(delta: float) -> Tensor:
        full = step(x, delta)
        tries = (case.theta + TRPO.line_search_shrinking_factor**k * full for k in range(50))
        return next(t for t in tries if float(divergence(case, t)) <= delta and float(L(t)) > 0)

    radii = (0.001, 0.01, 0.1)
    raw = [float(divergence(case, case.theta + step(x, delta))) for delta in radii]
    kept = [float(divergence(case, searched(delta))) for delta in radii]
    return Measured(
        holds=all(r <= delta for r, delta in zip(raw, radii, strict=True)),
        right=all(0 < r <= delta for r, delta in zip(kept, radii, strict=True)),
        numbers={
            "KL, δ = .001": raw[0],
            "KL, δ = .01": raw[1],
            "KL, δ = .1": raw[2],
            "after the search, δ = .1": kept[2],
            "ΔJ, δ = .001": gain(x, 0.001),
            "ΔJ of ∇J, δ = .001": gain(slope, 0.001),
            "ΔJ, δ = .01": gain(x, 0.01),
            "ΔJ of ∇J, δ = .01": gain(slope, 0.01),
            "ΔJ, δ = .1": gain(x, 0.1),
            "ΔJ of ∇J, δ = .1": gain(slope, 0.1),
        },
    )


def _tilted(case: Case) -> Measured:
    """L-38: one state, three actions; no gradient at the closed form, and 200 policies that do worse."""
    if case.seed is None:
        old = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
        A = torch.tensor([1.0, -0.5, -1.75], dtype=torch.float64)
    else:
        old, A = torch.randn(2, 3, generator=case.draws(), dtype=torch.float64).unbind()
        old, A = old.log_softmax(0), A - (old.softmax(0) * A).sum()
    beta, arms = 0.7, torch.arange(3)

    def objective(logits: Tensor) -> Tensor:
        policy, acted = Categorical(logits), Categorical(old)
        gained = importance_weighted(Categorical(logits.expand(3, 3)).log_prob(arms), old, A)
        return mean(gained, old.exp()) - beta * kl(policy, acted)

    best = old + A / beta
    value, slope = objective(best), gradient_of(objective, best)
    noise = torch.randn(200, 3, generator=case.draws(1), dtype=torch.float64)
    others = torch.func.vmap(objective)(best + noise)
    return Measured(
        holds=float(slope.norm()) < ZERO and bool((others <= value).all()),
        right=abs(float(value - beta * best.logsumexp(0))) < ZERO,
        numbers=dict(zip(("π(a₀)", "π(a₁)", "π(a₂)"), best.softmax(0).tolist(), strict=True))
        | {"gradient there": float(slope.norm()), "value − β log Z": float(value - beta * best.logsumexp(0))},
    )


def _directions(case: Case) -> Measured:
    """E-45: both KLs along the case's direction, their curvature, and the one that PPOKL ships."""

    def both(c: float) -> tuple[float, float]:
        theta = case.theta + c * case.direction
        return float(divergence(case, theta)), float(divergence(case, theta, backwards=True))

    near, far = both(0.1), both(1.0)
    F, ahead = exact.fisher(case.problem, case.theta, shares(case)), case.direction.flatten()
    bends = [float(ahead @ (curvature(case, way)(ahead) - F @ ahead)) for way in (False, True)]
    batch = every_decision(case)
    acted = table_agent(case, case.theta, batch).policy(batch.obs)
    idle = replace(batch, advantage=torch.zeros_like(batch.mask), policy=acted)
    penalty = PPOKL(beta=1.0, ent_coef=0.0, vf_coef=0.0, normalize_advantage=False)
    shipped = float(penalty.loss(table_agent(case, case.theta + case.direction, batch), idle)[0])
    return Measured(
        holds=abs(far[0] - far[1]) < ZERO,
        right=max(*map(abs, bends), abs(shipped - far[0])) < ZERO,
        numbers={
            "KL(old‖new), c = .1": near[0],
            "KL(new‖old), c = .1": near[1],
            "KL(old‖new), c = 1": far[0],
            "KL(new‖old), c = 1": far[1],
            "PPOKL's penalty, c = 1": shipped,
        },
    )


def total(case: Case, batch: Batch, ppo: PPO, theta: Tensor) -> Tensor:
    """PPO's loss for the policy: −E Σ γᵗ L^CLIP − c₂·S, with S the mean entropy over dᵖⁱ."""
    summed = replace(batch, advantage=batch.advantage * batch.mask.sum())
    return ppo.loss(table_agent(case, theta, batch), summed)[0]


def _entropy(case: Case, batch: Batch, theta: Tensor) -> Tensor:
    """S, the mean entropy over dᵖⁱ."""
    return mean(table_agent(case, theta, batch).policy(batch.obs).entropy(), batch.mask)


def _sign(case: Case) -> Measured:
    """L-45: the same loss descended, and ascended; and with nothing to gain but entropy."""
    steps, batch = 50 if case.seed is None else 10, every_decision(case)
    ppo = PPO(gamma=case.gamma, normalize_advantage=False, ent_coef=0.01)
    idle = replace(batch, advantage=torch.zeros_like(batch.mask))

    def walk(rate: float, batch: Batch) -> Tensor:
        theta = case.theta
        for _ in range(steps):
            theta = theta - rate * gradient_of(partial(total, case, batch, ppo), theta)
        return theta

    def J(theta: Tensor) -> float:  # noqa: N802
        return float(exact.objective(case.problem, theta, case.gamma))

    pull = -gradient_of(partial(total, case, batch, replace(ppo, ent_coef=0.0)), case.theta)

    def S(theta: Tensor) -> float:  # noqa: N802
        return float(_entropy(case, batch, theta))

    wrong, right, before = walk(-0.1, batch), walk(0.1, batch), J(case.theta)
    less, more = S(walk(-0.1, idle)), S(walk(0.1, idle))
    climbs = J(right) > before or any(J(case.theta + 10.0**-k * pull) > before for k in range(2, 10))
    at_most = float(gradient_of(partial(_entropy, case, batch), case.theta).norm()) < 1e-6  # nowhere to go
    still = at_most and same(less, S(case.theta)) and same(more, S(case.theta))
    return Measured(
        holds=J(wrong) > before,
        right=climbs and gradient_error(pull, case) < ZERO and (still or less < S(case.theta) < more),
        numbers={
            "J at first": before,
            "J as written": J(wrong),
            "J with the right sign": J(right),
            "S at first": S(case.theta),
            "S as written": S(wrong),
            "S with the right sign": S(right),
        },
    )


def _coefficient(case: Case) -> Measured:
    """E-32: the critic's gradient of the notes' code, of their text and of what ships, where V = 0."""
    batch = every_decision(case)
    assert batch.target is not None
    target = batch.target

    def halved_twice(values: Tensor) -> Tensor:
        return 0.5 * (0.5 * mean((values.unsqueeze(-1) - target).square(), batch.mask))

    def shipped(algorithm: PPO | A2C) -> Callable[[Tensor], Tensor]:
        blind = replace(batch, value=torch.zeros_like(batch.mask))

        def loss(values: Tensor) -> Tensor:
            agent = table_agent(case, case.theta, blind)
            agent.critic = values
            return algorithm.loss(agent, blind)[0]

        return loss

    zero = torch.zeros(target.shape[:2], dtype=torch.float64)
    code = gradient_of(halved_twice, zero)
    unit, text = (gradient_of(shipped(PPO(vf_coef=c)), zero) for c in (1.0, 0.5))
    quarter, a2c = gradient_of(shipped(PPO(vf_coef=0.25)), zero), gradient_of(shipped(A2C()), zero)
    return Measured(
        holds=relative_error(code, text) < ZERO,
        right=max(relative_error(code, quarter), relative_error(a2c, text)) < ZERO,
        numbers={
            "c₁ of the code": float(code.norm() / unit.norm()),
            "c₁ of the text": float(text.norm() / unit.norm()),
        },
    )


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="L-36",
        title="KL, Fisher and the natural gradient",
        statement="The second derivative of the mean KL(π_old‖π) at π_old is the Fisher matrix.",
        verdict=Verdict.TRUE,
        measure=_natural,
        equation="∇²KL = F = E_d[∇log π ∇log πᵀ];   (F⁺∇J)(s, a) = Σₜ γᵗP(sₜ = s)A_t(s, a) / d(s) + const(s)",
        source="001:962-966; 000:160",
        paper="Kakade 2001, natural policy gradient; Schulman et al. 2015, arXiv 1502.05477, appendix C",
        explanation="So TRPO's step is, to second order, the natural gradient. With d the normalised dᵖⁱ "
        "and a tabular softmax it is the advantage in each state, averaged over time with weights γᵗP(sₜ = "
        "s) and multiplied by dᵖⁱ's mass: rarely visited states move as fast as others. KL(π‖π_old) has the "
        "same F.",
        audit={
            "|Hess KL − F| / |F|": "1.6e-7",
            "|natural − weighted A| / |natural|": "<1e-9",
            "state 0: x(a₀) − x(a₁)": "5.02011",
            "state 1: x(a₀) − x(a₁)": "3.95801",
            "state 2: x(a₀) − x(a₁)": "-9.57187",
        },
        differs={
            "|Hess KL − F| / |F|": "the audit took finite differences; automatic differentiation is exact"
        },
    ),
    Claim(
        id="L-37",
        title="Does TRPO's step keep KL ≤ δ?",
        statement="The step θ + √(2δ/xᵀFx)·x along x = F⁺∇J keeps the mean KL(π_old‖π) ≤ δ.",
        verdict=Verdict.TRUE_IF,
        correction="A backtracking line search shortens it until KL ≤ δ and L^CPI > 0; alone it does so to "
        "second order only.",
        measure=_trust_region,
        equation="max E[rA]  subject to  E[KL(π_old‖π)] ≤ δ",
        source="often concluded from 001:962-966",
        paper="Schulman et al. 2015, arXiv 1502.05477, eq. (14), appendix C",
        explanation="The step's length comes from the quadratic ½·xᵀFx, which KL exceeds or not by a "
        "third-order term: 1.6 % at δ = .001, 14 % at δ = .1 on the reference problem. Against ∇J scaled to "
        "the same quadratic radius the natural direction gains more.",
        audit={
            "KL, δ = .001": ".00102",
            "KL, δ = .01": ".01052",
            "KL, δ = .1": ".11410",
            "ΔJ, δ = .001": ".1275",
            "ΔJ of ∇J, δ = .001": ".1191",
            "ΔJ, δ = .01": ".4232",
            "ΔJ of ∇J, δ = .01": ".3824",
            "ΔJ, δ = .1": "1.4770",
            "ΔJ of ∇J, δ = .1": "1.2285",
        },
        differs={"ΔJ of ∇J, δ = .1": "the audit rounded twice, 1.228445 to 1.22845 to 1.2285"},
        also=("M-77",),
        always=False,
    ),
    Claim(
        id="L-38",
        title="The optimum under a KL penalty",
        statement="E[rA] − β·KL(π‖π_old) is largest at π = π_old·exp(A/β)/Z.",
        verdict=Verdict.TRUE,
        measure=_tilted,
        equation="π* = π_old exp(A/β)/Z:  β log Z;   π_old = (.5, .3, .2), A = (1, −.5, −1.75), β = .7",
        source="004:91",
        paper="Peters et al. 2010 (REPS); Abdolmaleki et al. 2018, arXiv 1806.06920 (MPO)",
        explanation="The objective is concave in π, and setting its derivative to zero gives the "
        "exponential tilt. Logits move by A/β: β is an inverse step size. With KL(π_old‖π), PPO's penalty, "
        "the optimum is another one, βπ_old/(λ − A).",
        audit={"π(a₀)": ".92742", "π(a₁)": ".06528", "π(a₂)": ".0073"},
        also=("M-66",),
        own=True,
    ),
    Claim(
        id="E-45",
        title="Which way round is the KL?",
        statement="The penalty KL(π‖π_old) and the constraint KL(π_old‖π) are the same divergence.",
        verdict=Verdict.FALSE,
        correction="They agree to second order at π_old, where both are ½·ΔᵀFΔ, and part further away; TRPO "
        "and PPO have KL(π_old‖π), in the mean over states.",
        measure=_directions,
        equation="KL(π_old‖π), KL(π‖π_old) = ½·c²·ΔᵀFΔ + O(c³)",
        source="often concluded from 004:91 and 001:964",
        paper="Schulman et al. 2015, arXiv 1502.05477, eq. (14); 2017, arXiv 1707.06347, eqs. (4) and (8)",
        explanation="Third derivatives differ. KL(π_old‖π) forbids giving up what π_old does, KL(π‖π_old) "
        "forbids doing what it does not. PPOKL's penalty is the first, exact, in the mean over the batch.",
        audit={
            "KL(old‖new), c = .1": ".00139",
            "KL(new‖old), c = .1": ".00141",
            "KL(old‖new), c = 1": ".15008",
            "KL(new‖old), c = 1": ".15643",
        },
        also=("M-66",),
    ),
    Claim(
        id="L-45",
        title="The sign of PPO's total loss",
        statement="PPO descends L^TOTAL = L^CLIP + c₁·L^VF + c₂·S.",
        verdict=Verdict.FALSE,
        correction="Descend −L^CLIP + c₁·L^VF − c₂·S, as 001:763 and the code have it; S is a bonus, "
        "maximised.",
        measure=_sign,
        equation="θ ← θ ∓ .1·∇(L^CLIP + c₁·L^VF + c₂·S),   c₂ = .01, fifty steps, decisions of θ_old",
        source="001:795,829-830",
        paper="Schulman et al. 2017, arXiv 1707.06347, eq. (9)",
        explanation="As written, both policy terms are minimised: good actions become rare, and nothing "
        "stops it, for the clip is one-sided. Where all advantages are zero the right sign raises S and the "
        "written one lowers it, so the bonus would hasten collapse.",
        audit={
            "J at first": ".2447",
            "J as written": "-1.4764",
            "J with the right sign": "1.1288",
            "S at first": ".595",
            "S as written": ".229",
            "S with the right sign": ".624",
        },
        also=("E-30", "E-31", "M-67", "M-71"),
    ),
    Claim(
        id="E-32",
        title="The critic's coefficient, twice halved",
        statement="The code's critic loss has the coefficient c₁ = .5 of the text.",
        verdict=Verdict.FALSE,
        correction="It has .25: ½ stands in front of the squared error and again in the total; A2C's update "
        "rule for the critic has none at all, c₁ being absorbed by its step size.",
        measure=_coefficient,
        equation=".5·(.5·mean (V − V̂)²) = .25·L^VF",
        source="001:943,949 against 001:152-154; 001:162,170",
        paper="Schulman et al. 2017, arXiv 1707.06347, eq. (9)",
        explanation="Only the product of c₁ and the step size matters to a separate critic under plain "
        "descent; with a shared trunk, or a common gradient norm, c₁ decides how loud the critic is. PPO "
        "and A2C here apply it once, to an error without ½.",
        audit={"c₁ of the code": ".25", "c₁ of the text": ".5"},
    ),
)
"""L-36 to L-38, L-45, E-32 and E-45."""
