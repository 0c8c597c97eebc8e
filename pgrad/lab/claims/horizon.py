"""Long horizons: what a weight per decision becomes over many, and where V-trace's truncation leads."""

from dataclasses import replace
from math import inf, nan
from typing import NamedTuple

import torch
from torch import Tensor

from pgrad.lab import exact
from pgrad.lab.claim import ZERO, Claim, Measured, Verdict
from pgrad.lab.claims.common import given, several
from pgrad.lab.claims.weights import Form, error, marginal, new_logp, per_decision, score_times, step, whole
from pgrad.lab.estimate import variance
from pgrad.lab.problems import Case
from pgrad.math.credit import gae, vtrace
from pgrad.math.importance import effective_sample_size, truncate
from pgrad.worlds.tensors.tabular import Tabular

LONG = 100
"""Decisions after which growth is looked at."""


def lengthened(case: Case, T: int) -> Case:
    """The same with T decisions."""
    return replace(case, problem=replace(case.problem, horizon=T))


class Squares(NamedTuple):
    """E_old[w²] of the weights of decision t = 0 … n−1, [n] each."""

    product: Tensor  # ρ₀…ρₜ
    marginal: Tensor  # p_new(sₜ, aₜ)/p_old(sₜ, aₜ)
    step: Tensor  # ρₜ


def squares(case: Case, n: int) -> Squares:
    """`Squares` by dynamic programming. In an episode that has ended nothing is done, and ρₜ is 1."""
    assert case.problem.terminal is not None
    ended = case.problem.terminal.to(torch.float64)
    by_state = state_squares(case)
    pi, mu = (exact.policy(case.problem, theta) for theta in (case.theta, case.actor))
    onward = torch.einsum("sa,sax->sx", pi.square() / mu, case.problem.P) * (1 - ended).unsqueeze(1)
    onward = onward + torch.diag(ended)
    weighed, product = case.problem.rho0, []
    for _ in range(n):
        product.append(weighed @ by_state)
        weighed = weighed @ onward
    new, old = (exact.marginals(case.problem, theta, n) for theta in (case.theta, case.actor))
    return Squares(
        product=torch.stack(product),
        marginal=torch.where(old > 0, new.square() / old, 0.0) @ by_state + ended_square(case, n),
        step=old @ by_state + 1 - old.sum(1),
    )


def ended_square(case: Case, n: int) -> Tensor:
    """What ended episodes add to E_old[w²] at t = 0 … n−1 [n], with w = p_new(ended)/p_old(ended)."""
    new, old = (1 - exact.marginals(case.problem, theta, n).sum(1) for theta in (case.theta, case.actor))
    return torch.where(old > ZERO, new.square() / old, new)


def state_squares(case: Case) -> Tensor:
    """E_old[ρₜ² | sₜ = s] = Σ_a π_new²/π_old [S], and 1 where an episode has ended."""
    assert case.problem.terminal is not None
    pi, mu = (exact.policy(case.problem, theta) for theta in (case.theta, case.actor))
    return torch.where(case.problem.terminal, 1.0, (pi.square() / mu).sum(1))


def last_square(case: Case, weight: Form) -> float:
    """E_old[w²] of the last decision's weight where it is made, by the functions that ship."""
    traj = case.trajectory
    square = weight(case, new_logp(case), traj)[-1].square()
    return float((traj.mask[-1] * square).sum())


def _apart(case: Case) -> bool:
    """Whether there are several decisions, and policies that differ in one."""
    return several(case) and float(squares(case.at(1.0), case.steps).step.max()) > 1 + ZERO


def _horizon(case: Case) -> Measured:
    at = case.at(1.0)
    long, by_state = squares(at, LONG), state_squares(at)
    off = []
    for T in range(1, case.steps + 1):
        short = lengthened(at, T)
        traj = short.trajectory
        rho = whole(short, new_logp(short), traj)[0]
        off += [
            1 / float(effective_sample_size(rho, traj.mask[0])) - float(long.product[T - 1]),
            last_square(short, marginal) + float(ended_square(at, T)[-1]) - float(long.marginal[T - 1]),
            last_square(short, step) + float(1 - traj.mask[-1].sum()) - float(long.step[T - 1]),
        ]
    cut = truncate(rho, 1.0)
    length = torch.arange(1, LONG + 1)
    room = 1 + ZERO
    right = max(map(abs, off)) < ZERO
    right &= bool((by_state.min() ** length <= long.product * room).all())
    right &= bool((long.product <= by_state.max() ** length * room).all())
    right &= bool((long.marginal <= long.product * room).all())
    right &= bool((long.step <= by_state.max() * room).all())
    right &= float(traj.mask[0] @ cut.square()) <= 1 and float(traj.mask[0] @ cut) < 1
    half = LONG // 2
    grows = all(bool(x[-1] - 1 > 2 * (x[half - 1] - 1)) for x in long)
    names = ("product", "marginal ratio", "step ratio")
    numbers = {
        f"growth of {name}": float(x[-1] / x[half - 1]) ** (1 / half)
        for name, x in zip(names, long, strict=True)
    }
    first, last = (variance(score_times(per_decision, x), x) for x in (lengthened(at, 1), at))
    growth = (last / first) ** (1 / (case.steps - 1)) if first > 0 else nan
    numbers["growth of gradient, per decision"] = growth
    numbers |= {
        f"variance of {name}, T = {LONG}": float(x[-1]) - 1 for name, x in zip(names, long, strict=True)
    }
    return Measured(grows, right, {**numbers, "mean of product cut at 1": float(traj.mask[0] @ cut)})


def fixed_point(case: Case, rho_max: float, c_max: float) -> tuple[Tensor, int]:
    """The critic [T+1, S] that the expected V-trace target leaves as it is, and the sweeps it took."""
    traj, S = case.trajectory, case.problem.n_states
    ratio, critic = step(case, new_logp(case), traj), torch.zeros(case.steps + 1, S, dtype=torch.float64)
    sweeps, change = 0, inf
    rounding = 1e-14 * case.steps * float(traj.reward.abs().max())
    while change > ZERO / 1e3 + rounding:
        seen = critic.flatten()[traj.obs]
        target = vtrace(
            traj.reward, seen, traj.terminated, traj.done, ratio, case.gamma, rho_max=rho_max, c_max=c_max
        ).target
        new = given(target, traj.decisions, traj.mask, case.steps * S).mean.view(case.steps, S)
        change = float((new - critic[:-1]).abs().max())
        critic = torch.cat([new, critic[-1:]])
        sweeps += 1
    return critic, sweeps


def truncated_policy(case: Case, rho_max: float) -> Tensor:
    """Logits [O, A] of π_ρ̄(a|s) ∝ min(ρ̄·μ(a|s), π(a|s))."""
    return torch.minimum(rho_max * case.actor.softmax(1), case.theta.softmax(1)).log()


def _vtrace(case: Case) -> Measured:
    at = case.at(1.0)
    reached = exact.marginals(at.problem, at.actor, at.steps) > 0

    def away(critic: Tensor, theta: Tensor) -> float:
        V = exact.values(at.problem, theta, at.gamma, at.steps).V
        return float((critic - V)[:-1][reached].abs().max())

    largest = float(step(at, new_logp(at), at.trajectory).max())
    (cut, sweeps), (slow, more), (whole_ratio, _) = (
        fixed_point(at, *bounds) for bounds in ((1.0, 1.0), (1.0, 0.2), (largest, 1.0))
    )
    other = truncated_policy(at, 1.0)
    own, draw = case.trajectory, case.draws()
    value = torch.randn(case.steps + 1, case.problem.n_states, generator=draw, dtype=torch.float64)
    told = (own.reward, value.flatten()[own.obs], own.terminated, own.done)
    trace = vtrace(*told, torch.ones_like(own.reward), case.gamma, 0.95)
    gap = float((trace.advantage - gae(*told, case.gamma, 0.95)).abs().max())
    numbers = {
        "distance from V^π": away(cut, at.theta),
        "distance from V of π_ρ̄": away(cut, other),
        "… with c̄ = 0.2": away(slow, other),
        "ρ̄ = max ρ: distance from V^π": away(whole_ratio, at.theta),
        "on-policy: distance from GAE": gap,
        "sweeps, c̄ = 1": float(sweeps),
        "sweeps, c̄ = 0.2": float(more),
    }
    size = float(exact.values(at.problem, at.actor, at.gamma, at.steps).V.abs().max())
    right = max(list(numbers.values())[1:5]) < ZERO * max(1.0, size)
    return Measured(numbers["distance from V^π"] < ZERO, right, numbers)


def _any_behaviour(case: Case) -> Measured:
    stranger = error(per_decision, replace(case, behaviour=torch.zeros_like(case.theta)))
    A = case.problem.n_actions
    alone = Tabular(torch.ones(1, A, 1), torch.zeros(1, A), torch.ones(1), horizon=1)
    first = replace(case, problem=alone, theta=case.theta[:1], direction=case.direction[:1])
    found = [last_square(lengthened(first.at(1.0), T), whole) for T in (1, 2, 3)]
    square = found[0]
    off = max(abs(x - float(state_squares(first.at(1.0))[0]) ** T) for T, x in enumerate(found, start=1))
    numbers = {"rel. error, uniform policy acts": stranger, "E ρ² of a decision": square}
    numbers |= {f"variance, T = {T}": square**T - 1 for T in (10, 50, 100)}
    return Measured(stranger > ZERO, stranger < ZERO and off < ZERO and square > 1 - ZERO, numbers)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="E-56",
        title="Only for an on-policy method's old data",
        statement="Importance sampling only serves to reuse the data of an on-policy method's own past.",
        verdict=Verdict.FALSE,
        measure=_any_behaviour,
        equation="Var ρ(τ) = E[ρₜ²]^T − 1 for T alike and independent decisions",
        source="001:627-629",
        paper="Precup, Sutton & Singh 2000",
        explanation=(
            "Nothing in the identity asks where the other policy comes from: the gradient is exact though "
            "the uniform policy acted. What limits it is length, since second moments of decisions multiply; "
            "the numbers are for decisions at the first state alone, between the policies c = 1 apart."
        ),
        correction=(
            "It holds for every policy that does all that the new one does; what limits it is the variance, "
            "which grows exponentially with the number of decisions."
        ),
        audit={
            "E ρ² of a decision": "1.162",
            "variance, T = 10": "3.49",
            "variance, T = 50": "1.8e3",
            "variance, T = 100": "3.3e6",
        },
    ),
    Claim(
        id="N-05",
        title="The fixed point of V-trace",
        statement=(
            "V-trace corrects for the policy that acted: its critic converges to the value of the target "
            "policy."
        ),
        verdict=Verdict.TRUE_IF,
        measure=_vtrace,
        equation="V* = V of π_ρ̄,  π_ρ̄(a|s) = min(ρ̄·μ(a|s), π(a|s)) / Σ_b min(ρ̄·μ(b|s), π(b|s))",
        source="implementations of IMPALA, with ρ̄ = 1",
        paper="Espeholt et al. 2018 (IMPALA), arXiv 1802.01561, §4.1 and appendix A",
        explanation=(
            "At the fixed point E_μ[min(ρ̄, ρ)·δ] = 0 in every state, and min(ρ̄·μ, π), normalised, is a "
            "policy between μ and π. The bound c̄ on the traces weighs TD errors that are zero there on "
            "average: it changes how fast one arrives, never where. On-policy all of it is GAE."
        ),
        correction=(
            "Where no ratio exceeds ρ̄. In general it is the value of the policy π_ρ̄ between the two, "
            "whatever c̄."
        ),
    ),
    Claim(
        id="N-06",
        title="How weights grow with the horizon",
        statement=(
            "The variance of importance weights grows exponentially with the horizon, whatever their form."
        ),
        verdict=Verdict.TRUE_IF,
        measure=_horizon,
        equation=(
            "m^T ≤ E[(ρ₀…ρ_{T−1})²] ≤ M^T,  E[ρₜ²] ≤ M,  m, M = least, largest over s of Σ_a π(a|s)²/μ(a|s)"
        ),
        source="001:621-633; 004:61; and wherever off-policy methods are compared",
        paper="Liu, Li, Tang & Zhou 2018, Breaking the curse of horizon, arXiv 1810.12429",
        explanation=(
            "Second moments of a product's factors multiply, one per decision; the ratio of marginals is the "
            "mean of the product given where it led, never varies more, and stays bounded where states keep "
            "mixing; the step ratio has one factor only. Leaving factors out (step ratio) or cutting the "
            "product (truncation) bounds the variance and costs a bias. Growth is the factor per decision "
            "between 50 and 100 decisions, and for the gradient from 1 to T."
        ),
        correction=(
            "It must be a product over decisions (of a trajectory, of a prefix, of what led to a reward), "
            "the policies must differ in every state, and episodes must go on. The marginal ratio never "
            "varies more than the product, and the step ratio's second moment stays below M at any length."
        ),
        fits=_apart,
        needs="two decisions or more, and a direction that changes what the policy does",
        picture="horizon",
    ),
)
"""Any behaviour policy; the method that truncates its weights; and what every weight does in the long run."""
