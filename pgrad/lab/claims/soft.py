"""Off-policy actors and maximum entropy: what a Q actor climbs, and what makes it SAC."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from pgrad.data import Trajectory
from pgrad.lab import exact
from pgrad.lab.agent import TabularAgent
from pgrad.lab.claim import ZERO, Claim, Measured, Verdict
from pgrad.lab.claims.bootstrap import endless, of_states
from pgrad.lab.claims.common import (
    given,
    gradient_error,
    gradient_of,
    relative_error,
    room,
    rounded_error,
    several,
    size,
    true_gradient,
)
from pgrad.lab.estimate import Estimator, cosine, episode_sum, estimator, expectation
from pgrad.lab.problems import Case
from pgrad.math.credit import discount_weight
from pgrad.math.distributions import Categorical
from pgrad.math.gaussians import Gaussian, TanhGaussian
from pgrad.math.objectives import importance_weighted, score_function
from pgrad.worlds.tensors.tabular import Tabular

ALPHA = 0.5


def buffered(case: Case, offset: float = 0.0) -> Case:
    """The policy theta, with data of theta + direction; every reward raised by `offset`."""
    problem = replace(case.problem, r=case.problem.r + offset)
    return replace(case, problem=problem, behaviour=case.theta + case.direction)


def weighted_q(case: Case) -> Tensor:
    """γᵗ·Q_t(s, a) of the policy asked about for every action, [T, K, A]."""
    traj, Q = case.trajectory, exact.values(case.problem, case.theta, case.gamma, case.steps).Q
    discount = discount_weight(traj.done, case.gamma, Q.dtype)
    return discount.unsqueeze(-1) * Q.flatten(0, 1)[traj.decisions]


def fresh(case: Case, weight: Tensor | float = 1.0) -> Tensor:
    """E Σ_t γᵗ weight·∇log π(a|s_t)·Q(s_t, a): states of the buffer, actions of the policy itself."""
    Q = weighted_q(case)

    def estimate(agent: TabularAgent, traj: Trajectory) -> Tensor:
        policy = agent.policy(traj.decisions)
        each = [policy.log_prob(torch.full_like(traj.action, a)) for a in range(Q.shape[-1])]
        logp = torch.stack(each, -1)
        over_actions = (logp.detach().exp() * score_function(logp, Q)).sum(-1)
        return episode_sum(weight * over_actions, traj.mask)

    return expectation(estimate, case)


def stored(case: Case, corrected: bool) -> Tensor:
    """E Σ_t γᵗ ∇log π(a_t|s_t)·Q(s_t, a_t): actions of the buffer too, or corrected by π/μ."""
    taken = weighted_q(case).gather(-1, case.trajectory.action.unsqueeze(-1)).squeeze(-1)
    how: Estimator = estimator(
        lambda agent, traj: taken,
        importance_weighted if corrected else lambda logp, _, advantage: score_function(logp, advantage),
    )
    return expectation(how, case)


def _fresh(case: Case) -> Measured:
    """A Q actor with actions of its own in states of other data, without and with the ratio of states."""
    off = buffered(case)
    truth, found = true_gradient(off), fresh(off)
    plain = gradient_error(found, off)
    ours, theirs = (exact.marginals(off.problem, theta, off.steps) for theta in (off.theta, off.actor))
    ratio = torch.where(theirs > 0, ours / theirs, 0.0).flatten()[off.trajectory.decisions]
    corrected = gradient_error(fresh(off, ratio), off)
    return Measured(
        holds=plain < ZERO,
        right=corrected < ZERO,
        numbers={
            "rel. error": plain,
            "cosine": cosine(found, truth),
            "rel. error with the state ratio": corrected,
        },
    )


def _stored(case: Case) -> Measured:
    """A Q actor with the actions of the data, for rewards raised by 0, 10 and −10."""
    cases = {x: buffered(case, x) for x in (0.0, 10.0, -10.0)}
    found = {x: stored(off, corrected=False) for x, off in cases.items()}
    truth = {x: true_gradient(off) for x, off in cases.items()}
    own = {x: fresh(off) for x, off in cases.items()}
    gaps = {
        x: rounded_error(stored(off, corrected=True), own[x], off.steps * size(off))
        for x, off in cases.items()
    }
    gap = max(gaps.values())
    return Measured(
        holds=rounded_error(found[0.0], own[0.0], case.steps * size(case)) < ZERO,
        right=gap < ZERO,
        numbers={"rel. error": relative_error(found[0.0], truth[0.0])}
        | {f"cosine, rewards {x:+g}": cosine(found[x], truth[x]) for x in cases}
        | {f"fresh actions, rewards {x:+g}": cosine(own[x], truth[x]) for x in cases}
        | {"with π/μ: gap to fresh": gap},
    )


def entropic(problem: Tabular, theta: Tensor) -> Tabular:
    """The problem whose rewards are r − α log π: its value is the soft value of the policy."""
    return replace(problem, r=problem.r - ALPHA * exact.policy(problem, theta).log())


def visits(problem: Tabular, theta: Tensor, gamma: float) -> Tensor:
    """dᵖⁱ of the endless problem [S]: d = ρ₀ + γ·d·P_π over states that go on."""
    alive = (~problem.terminal).to(torch.float64)
    onward = torch.einsum("sa,sax->sx", exact.policy(problem, theta), problem.P) * alive
    return torch.linalg.solve(torch.eye(len(alive), dtype=alive.dtype) - gamma * onward.T, problem.rho0)


def soft_gradients(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """∇J_soft, E_d[∇log π·(Q_soft − α log π)] and E_d[∇log π·Q_soft] of the endless problem, [O, A] each."""
    ever = endless(case)
    problem, gamma = ever.problem, case.gamma
    truth = gradient_of(lambda theta: exact.objective(entropic(problem, theta), theta, gamma), case.theta)
    visited = visits(problem, case.theta, gamma)
    start = replace(ever, problem=replace(problem, rho0=visited / visited.sum()))
    V = exact.stationary_value(entropic(problem, case.theta), case.theta, gamma)
    Q = (problem.r + gamma * problem.P @ V)[start.trajectory.obs[:-1] % len(V), start.trajectory.action]

    def climbed(temperature: float) -> Tensor:
        how = estimator(
            lambda agent, traj: Q - temperature * traj.logp,
            lambda logp, _, advantage: score_function(logp, advantage),
        )
        return visited.sum() * expectation(how, start)

    return truth, climbed(ALPHA), climbed(0.0)


def soft_error(found: Tensor, truth: Tensor, case: Case) -> float:
    """The relative error of soft gradients: sums over all time of scores times soft values."""
    largest = float(entropic(case.problem, case.theta).r.abs().max())
    return rounded_error(found, truth, largest / (1 - case.gamma) ** 2)


def _soft(case: Case) -> Measured:
    """The soft policy gradient, with and without its log π, the gradient of this decision's entropy."""
    truth, whole, without = soft_gradients(case)
    visited = visits(endless(case).problem, case.theta, case.gamma)

    def entropy(theta: Tensor) -> Tensor:
        return ALPHA * visited @ Categorical(theta).entropy()[case.problem.observation]

    missing = gradient_of(entropy, case.theta)
    return Measured(
        holds=soft_error(whole, truth, case) < ZERO,
        right=soft_error(without + missing, truth, case) < ZERO,
        numbers={
            "rel. error": soft_error(whole, truth, case),
            "rel. error without log π": soft_error(without, truth, case),
            "cosine without log π": cosine(without, truth),
        },
    )


def tanh_mass(mean: float, std: float) -> tuple[float, float]:
    """∫ of the density of a = tanh(u) over (−1, 1): with the Jacobian, and of the Gaussian's alone."""
    u = torch.linspace(-15.0, 15.0, 20_001, dtype=torch.float64)
    action, one = u.tanh().unsqueeze(-1), torch.ones(len(u), 1, dtype=u.dtype)
    gaussian = Gaussian(mean * one, math.log(std) * one)
    squashed = TanhGaussian(gaussian.mean, gaussian.log_std, -one, one)
    densities = (squashed.log_prob(action).exp(), gaussian.log_prob(u.unsqueeze(-1)).exp())
    whole, without = (float(torch.trapezoid(density, action[:, 0])) for density in densities)
    return whole, without


def noise_bias(n_actions: int, std: float) -> tuple[float, float, float]:
    """What noise does to the value of the greedy action, all actions being worth 0.

    E[Q₁(a*)] and E[min(Q₁(a*), Q₂(a*))] with a* = argmax Q₁, and the closed form e_A − e_{A+1} of the latter;
    e_k is the expected maximum of k normal numbers, times std.
    """
    x = torch.linspace(-12.0, 12.0, 4001, dtype=torch.float64)
    below, density = torch.special.ndtr(x), torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)

    def maximum(k: int) -> Tensor:
        return k * density * below ** (k - 1)

    def average(p: Tensor) -> float:
        return std * float(torch.trapezoid(x * p, x))

    lesser = maximum(n_actions) * (1 - below) + density * (1 - below**n_actions)
    greedy, more = average(maximum(n_actions)), average(maximum(n_actions + 1))
    return greedy, average(lesser), greedy - more


def _missing(case: Case) -> Measured:
    """The parts of SAC that a plain Q actor lacks."""
    truth, whole, without = soft_gradients(case)
    draw = torch.rand(3, generator=case.draws(43)).tolist()
    mean, std, noise = (
        (0.4, 0.6, 1.0) if case.seed is None else (draw[0] - 0.5, 0.3 + 0.5 * draw[1], 0.5 + draw[2])
    )
    mass, plain = tanh_mass(mean, std)
    greedy, lesser, closed = noise_bias(case.problem.n_actions, noise)
    off = soft_error(without, truth, case)
    return Measured(
        holds=off < ZERO and abs(plain - 1) < 1e-6 and greedy < ZERO,
        right=max(soft_error(whole, truth, case), abs(lesser - closed)) < ZERO
        and abs(mass - 1) < 1e-6
        and -greedy < lesser < 0,
        numbers={
            "rel. error without log π": off,
            "tanh: mass without Jacobian": plain,
            "tanh: mass with it": mass,
            "one critic: noise bias": greedy,
            "min of two: noise bias": lesser,
        },
    )


def _old_actions(case: Case) -> Measured:
    """Targets for V and for Q from data of another policy, with the exact values of this one."""
    off = replace(endless(case), behaviour=case.theta + case.direction)
    problem, traj = off.problem, off.trajectory
    S, A = problem.n_states, problem.n_actions
    V = exact.stationary_value(problem, case.theta, case.gamma)
    Q = problem.r + case.gamma * problem.P @ V
    assert problem.terminal is not None
    ended = problem.terminal[traj.obs[1:] % S]
    expected = (exact.policy(problem, case.theta) * Q).sum(1)[traj.obs[1:] % S]  # a' ~ π
    target = traj.reward + case.gamma * expected.masked_fill(ended, 0.0)
    start, own = given(target, traj.decisions, traj.mask, S), traj.decisions * A + traj.action
    pairs = given(target, own, traj.mask, S * A)
    biased = torch.where(start.mass > 0, start.mean - V, 0.0)
    gap = float(torch.where(pairs.mass > 0, pairs.mean - Q.flatten(), 0.0).abs().max())
    return Measured(
        holds=float(biased.abs().max()) < room(case, float(V.abs().max())),
        right=gap < room(case, float(V.abs().max())),
        numbers=of_states("V target", biased + V) | of_states("V^π", V) | {"Q target: bias": gap},
    )


def _seen(case: Case) -> Tabular:
    """The endless problem, in which every state is seen as it is."""
    return replace(case.problem, horizon=None, observation=torch.arange(case.problem.n_states))


def _every_action(case: Case) -> bool:
    """Whether value iteration is quick, and the soft optimum has a logarithm."""
    return case.gamma <= 0.999 and bool((exact.soft_optimum(_seen(case), case.gamma, ALPHA)[0] > 0).all())


def _optimum(case: Case) -> Measured:
    """The soft optimum: its residuals, its own soft value, and that no other policy is worth more."""
    problem = _seen(case)
    pi, V = exact.soft_optimum(problem, case.gamma, ALPHA)
    assert problem.terminal is not None
    alive = ~problem.terminal
    Q = problem.r + case.gamma * problem.P @ V
    residual = float(((pi * (Q - ALPHA * pi.log())).sum(1) - V)[alive].abs().max())

    def worth(theta: Tensor) -> Tensor:
        return exact.stationary_value(entropic(problem, theta), theta, case.gamma)

    others = torch.randn(8, *pi.shape, generator=case.draws(82), dtype=V.dtype)
    best, size = pi.log(), max(1.0, float(V.abs().max()))
    gain = max(float((worth(best + other) - V).max()) for other in others)
    slope = float(gradient_of(lambda theta: worth(theta).sum(), best).abs().max())
    own = float((worth(best) - V).abs().max())
    return Measured(
        holds=max(residual, (1 - case.gamma) * own)
        < ZERO * size,  # a residual moves values by 1/(1 − γ) of it
        right=slope < 1e-8 * size and gain < ZERO * size,
        numbers={f"π*(a₀|s{'₀₁₂'[s]})": p for s, p in enumerate(pi[:3, 0].tolist())}
        | of_states("V*", V)
        | {"Bellman residual": residual, "largest slope": slope},
    )


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="L-46",
        title="A Q actor may take any states",
        statement="Off-policy, Σ ∇log π(a|s)·Q^π(s, a) with states from old data and fresh actions a ~ π is "
        "∇J.",
        verdict=Verdict.FALSE,
        correction="It is the off-policy gradient of Degris et al.: its states are the data's. With the "
        "ratio of state probabilities d_π/d_μ it is ∇J.",
        measure=_fresh,
        equation="E_{s~d_μ, a~π}[∇log π(a|s)·Q^π(s, a)] against ∇J = E_{s~d_π, a~π}[…]",
        source="004:96",
        paper="Degris, White & Sutton 2012, arXiv 1205.4839; Imani, Graves & White 2018, arXiv 1811.09013",
        explanation="States that the policy no longer visits keep their say, and new ones lack theirs. In "
        "an endless problem with parameters of its own for every state each part still points uphill, only "
        "their weights are wrong; with shared parameters not even the direction is certain.",
        audit={"rel. error": ".0756", "cosine": ".9972"},
        also=("M-81",),
        fits=several,
        needs="two decisions",
    ),
    Claim(
        id="L-47",
        title="A Q actor may take the buffer's actions",
        statement="The actor's gradient is (1/N) Σ_i ∇log π(a_i|s_i)·Q(s_i, a_i) over the (s_i, a_i) of the "
        "replay buffer.",
        verdict=Verdict.FALSE,
        correction="The action a_i has to come from the current policy, or be weighted by π/μ, which gives "
        "the same mean. Only then does a constant added to rewards cancel.",
        measure=_stored,
        equation="E_{a~μ}[∇log π(a|s)·Q] ≠ E_{a~π}[∇log π(a|s)·Q] = E_{a~μ}[(π/μ) ∇log π(a|s)·Q]",
        source="004:96",
        paper="Degris, White & Sutton 2012, arXiv 1205.4839; Haarnoja et al. 2018, arXiv 1801.01290",
        explanation="E_{a~μ}[∇log π(a|s)] is not zero, so the level of Q becomes a gradient of its own, "
        "towards or away from the old policy: with rewards lowered by 10 it points almost straight down.",
        audit={"rel. error": ".559", "cosine, rewards +0": ".986", "cosine, rewards +10": ".974"}
        | {"cosine, rewards -10": "-.958", "fresh actions, rewards +0": ".9972"}
        | {"fresh actions, rewards +10": ".9972", "fresh actions, rewards -10": ".9972"},
        also=("E-44",),
    ),
    Claim(
        id="L-48",
        title="The soft gradient weighs Q − α log π",
        statement="The gradient of the entropy-regularised objective is E_d[∇log π·(Q_soft − α log π)].",
        verdict=Verdict.TRUE,
        measure=_soft,
        equation="∇E Σ γᵗ (r_t − α log π(a_t|s_t)) = E_d[∇log π(a|s)·(Q_soft(s, a) − α log π(a|s))]",
        source="004:96",
        paper="Haarnoja et al. 2017, arXiv 1702.08165; Haarnoja et al. 2018, arXiv 1801.01290",
        explanation="Q_soft holds the entropy of later states, −α log π that of this decision. The "
        "derivative of log π inside the reward has mean zero. Without the log π term the policy climbs "
        "future entropy only.",
        audit={"rel. error": "<1e-9", "rel. error without log π": ".212"},
        fits=lambda case: case.gamma < 1,
        needs="γ < 1",
    ),
    Claim(
        id="E-43",
        title="A replay buffer and a Q actor are SAC",
        statement="SAC is an actor-critic that fits Q^π from a replay buffer and climbs log π·Q.",
        verdict=Verdict.FALSE,
        correction="SAC also has −α log π in target and actor, the Jacobian of tanh in log π, and the "
        "lesser of two critics, whose noise bias is e_A − e_{A+1} < 0 instead of e_A.",
        measure=_missing,
        equation="p(a) = N(u; μ, σ)/(1 − tanh²u);   E[min(Q₁, Q₂)(a*)] = σ(e_A − e_{A+1}),  e_k = E max of "
        "k normals",
        source="004:96",
        paper="Haarnoja et al. 2018, arXiv 1801.01290 (appendix C), 1812.05905; Fujimoto et al. 2018",
        explanation="Without log π the gradient is another, without the Jacobian the density of a squashed "
        "action does not integrate to 1, and the maximum of one noisy critic is too high. The minimum of "
        "two does not remove that bias: it makes it smaller and negative, which does not feed on itself.",
        audit={"rel. error without log π": ".212", "tanh: mass without Jacobian": ".715"}
        | {"one critic: noise bias": ".566", "min of two: noise bias": "-.280"},
        differs={
            "one critic: noise bias": "The audit's number was sampled; the expected maximum of two standard "
            "normal numbers is 1/√π = .5642.",
            "min of two: noise bias": "The audit's number was sampled; the exact value is −1/(2√π) = −.2821.",
        },
        fits=lambda case: case.gamma < 1,
        needs="γ < 1",
    ),
    Claim(
        id="M-80",
        title="V can be fitted from a replay buffer",
        statement="The targets r + γV(s') of a replay buffer teach V^π, whatever policy filled it.",
        verdict=Verdict.FALSE,
        correction="They mix the actions of the old policy. Q can be fitted: r + γQ(s', a') with a' ~ π has "
        "the mean Q^π(s, a) under any data, because the pair (s, a) is given.",
        measure=_old_actions,
        equation="E_{a~μ}[r + γV^π(s') | s] = Σ_a μ(a|s) Q^π(s, a) ≠ V^π(s)",
        source="004:96",
        paper="Sutton & Barto 2018, §6.5 and §11.1",
        explanation="The note is right here. V is a mean over the policy's own actions, and the buffer's "
        "actions are another's; Q has the action among its arguments and only asks for the policy "
        "afterwards.",
        audit={"V target (s₀)": "1.319", "V target (s₁)": ".219", "V target (s₂)": ".774"}
        | {"V^π (s₀)": "1.008", "V^π (s₁)": "-.116", "V^π (s₂)": "-.048"},
        fits=lambda case: case.gamma < 1,
        needs="γ < 1",
    ),
    Claim(
        id="M-82",
        title="The soft optimum is exp((Q* − V*)/α)",
        statement="With reward r + α·H(π) the best policy is π* = exp((Q* − V*)/α), where V* = α log Σ_a "
        "exp(Q*/α).",
        verdict=Verdict.TRUE,
        measure=_optimum,
        equation="V*(s) = α log Σ_a exp((r + γ E V*(s'))/α) = max_π E_π[Q* − α log π]",
        source="004:96",
        paper="Haarnoja et al. 2017, arXiv 1702.08165; Haarnoja et al. 2018, arXiv 1801.01290, §4.1",
        explanation="The soft Bellman operator contracts by γ, and softmax is what maximises a mean plus "
        "entropy. Evaluated on its own, π* has the value V*; its gradient is zero and no other policy tried "
        "is better.",
        audit={"π*(a₀|s₀)": ".8137", "π*(a₀|s₁)": ".6191", "π*(a₀|s₂)": ".0008"}
        | {"V* (s₀)": "12.34628", "V* (s₁)": "12.26124", "V* (s₂)": "13.97768", "Bellman residual": "<1e-9"},
        fits=_every_action,
        needs="γ ≤ .999, and no action so bad that π* rounds to zero",
    ),
)
