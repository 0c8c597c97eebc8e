"""Value targets and bootstrapping: what a critic is fitted to, and where an episode ends."""

from dataclasses import replace

import torch
from torch import Tensor

from pgrad.lab import exact
from pgrad.lab.claim import ZERO, Claim, Measured, Verdict
from pgrad.lab.claims.common import given, gradient_error, gradient_of, room, several, size
from pgrad.lab.claims.critics import (
    advantages,
    ahead,
    bias_of,
    exact_critic,
    gae_gradient,
    largest,
    mistaken_critic,
    n_step,
)
from pgrad.lab.problems import MAX_TRAJECTORIES, Case
from pgrad.math.credit import gae, lambda_return, n_step_return, reward_to_go, td_error
from pgrad.math.objectives import squared_error
from pgrad.math.reduce import mean
from pgrad.math.scan import reverse_scan


def at_start(case: Case, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of x [T, K] in its first row given s₀, [S] each; V₀ and 0 where none starts."""
    traj, V = case.trajectory, exact_critic(case)[0]
    mass, average, variance = given(x[0], traj.obs[0], traj.mask[0], len(V))
    return torch.where(mass > 0, average, V), variance


def of_states(name: str, x: Tensor) -> dict[str, float]:
    """A number for each of the first three states."""
    return {f"{name} (s{'₀₁₂'[s]})": value for s, value in enumerate(x.tolist()[:3])}


def endless(case: Case, window: int = 1) -> Case:
    """The same problem without a horizon, seen through windows of so many decisions."""
    return replace(case, problem=replace(case.problem, horizon=None), window=window, behaviour=None)


def _tail(case: Case) -> Measured:
    """The return from s₀ against V(s₀), one by one and on average; n-step advantages on average."""
    traj = case.trajectory
    average, variance = at_start(case, reward_to_go(traj.reward, traj.done, case.gamma))
    V = exact_critic(case)
    gap = largest(average - V[0])
    biases = [largest(bias_of(case, n_step(case, V, n))) for n in (1, 2, 3)]
    return Measured(
        holds=largest(variance) < ZERO * size(case) ** 2,
        right=max(gap, *biases) < room(case),
        numbers=of_states("Var[G₀|s₀]", variance)
        | {"E[G₀|s₀] − V": gap, "bias of Âₙ, n = 1, 2, 3": max(biases)},
    )


def _targets(case: Case) -> Measured:
    """V_target at the two ends of λ, whatever the critic says."""
    traj, V = case.trajectory, mistaken_critic(case)
    value = V.flatten()[traj.obs]
    flags = (traj.terminated, traj.done, case.gamma)
    target = {x: lambda_return(traj.reward, value, *flags, x) for x in (0.0, 0.95, 1.0)}
    whole = n_step_return(traj.reward, value, *flags, case.steps)
    one = td_error(traj.reward, value, traj.terminated, case.gamma) + value[:-1]
    parts = largest(target[0.95] - value[:-1] - advantages(case, V, 0.95))
    ends = (largest(target[1.0] - whole), largest(target[0.0] - one))
    return Measured(
        holds=max(ends) < room(case, largest(V)),
        right=parts < room(case, largest(V)),
        numbers={"λ = 1: gap to the return": ends[0], "λ = 0: gap to r + γV'": ends[1], "Â + V": parts},
    )


def _bias_and_variance(case: Case) -> Measured:
    """Targets from s₀: Monte Carlo, and one step with the exact, a wrong and a very wrong critic."""
    traj, V = case.trajectory, exact_critic(case)
    error = mistaken_critic(case) - V

    def one_step(critic: Tensor) -> tuple[Tensor, Tensor]:
        return at_start(case, n_step(case, critic, 1) + critic.flatten()[traj.obs[:-1]])

    average, noise = at_start(case, reward_to_go(traj.reward, traj.done, case.gamma))
    (right, right_noise), (wrong, wrong_noise), (_, worse_noise) = map(
        one_step, (V, V + error, V + 10 * error)
    )
    unbiased = max(largest(average - V[0]), largest(right - V[0]))
    opinion = (exact.policy(case.problem, case.theta) * ahead(case, error)[0]).sum(1)
    off = largest(wrong - V[0] - torch.where(case.problem.rho0 > 0, opinion, 0.0))
    return Measured(
        holds=largest(right - V[0]) > room(case),
        right=unbiased < room(case)
        and off < room(case, largest(error))
        and bool((right_noise <= noise * (1 + ZERO) + ZERO * size(case) ** 2).all()),
        numbers=of_states("TD bias", wrong - V[0])
        | of_states("TD variance", wrong_noise)
        | {"MC variance, largest": largest(noise), "TD variance, 10 times the error": largest(worse_noise)},
    )


def _undiscounted(case: Case) -> Measured:
    """The mean of the note's n-step target with the exact V: rewards summed without γ."""
    traj, V = case.trajectory, exact_critic(case)
    value = V.flatten()[traj.obs]

    def note(n: int) -> Tensor:
        scaled = case.gamma**n * value
        return at_start(case, n_step_return(traj.reward, scaled, traj.terminated, traj.done, 1.0, n))[0]

    ours = [n_step_return(traj.reward, value, traj.terminated, traj.done, case.gamma, n) for n in (1, 2, 3)]
    gap = max(largest(at_start(case, target)[0] - V[0]) for target in ours)
    return Measured(
        holds=largest(note(2) - V[0]) < room(case),
        right=gap < room(case),
        numbers=of_states("E[target], n = 2", note(2))
        | {"largest bias, n = 2": largest(note(2) - V[0]), "with γ, n = 1, 2, 3": gap},
    )


def _stationary(case: Case) -> Measured:
    """One table V(s) for every t against V_t(s), in r + γV(s') − V(s)."""
    V = exact_critic(case)
    one = V[0].expand_as(V)
    timeless = largest(bias_of(case, advantages(case, one, 0.0)))
    timed = largest(bias_of(case, advantages(case, V, 0.0)))
    return Measured(
        holds=timeless < room(case),
        right=timed < room(case),
        numbers={
            "V₀(s₀)": float(V[0, 0]),
            "V at the last decision, s₀": float(V[-2, 0]),
            "bias with V₀ at every t": timeless,
            "bias with V_t": timed,
            "rel. error of the gradient": gradient_error(gae_gradient(case, one, 0.0).mean, case),
        },
    )


def note_advantages(
    reward: Tensor, value: Tensor, done: Tensor, next_value: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """The note's compute_advantages: the last target is next_value alone, and no end cuts the sum of δ."""
    following = gamma * value[1:].masked_fill(done[:-1], 0.0)
    target = torch.cat([reward[:-1] + following, next_value.unsqueeze(0)])
    return reverse_scan(torch.full_like(target, gamma * gae_lambda), target - value)


def _code(case: Case) -> Measured:
    """compute_advantages as written on two short records, and `gae` on everything that can happen."""
    r, V, r2 = (torch.tensor(x, dtype=torch.float64) for x in ([1, 1, 10], [0.5, 0.6, 0.7], [0, 0, 100, 0]))
    if case.seed is not None:
        r, V, r2 = (torch.randn(n, generator=case.draws(n), dtype=torch.float64) for n in (3, 3, 4))
    end, two = torch.tensor([False, False, True]), torch.tensor([False, True, False, True])
    nil, none = torch.zeros((), dtype=r.dtype), torch.zeros(4, dtype=r.dtype)
    note = note_advantages(r, V, end, nil, 0.99, 0.95)
    ours = gae(r, torch.cat([V, V[:1]]), end, end, 0.99, 0.95)
    note2 = note_advantages(r2, none, two, nil, 0.99, 0.95)
    ours2 = gae(r2, torch.zeros(5, dtype=r.dtype), two, two, 0.99, 0.95)
    unbiased = largest(bias_of(case, advantages(case, exact_critic(case), 0.95)))
    numbers = {
        f"{who} Â{'₀₁₂'[t]}": float(x[t]) for who, x in (("note", note), ("gae", ours)) for t in range(3)
    }
    return Measured(
        holds=max(largest(note - ours), largest(note2 - ours2)) < ZERO,
        right=unbiased < room(case),
        numbers=numbers
        | {"two episodes, note Â₀": float(note2[0]), "two episodes, note Â₁": float(note2[1])},
    )


def on_the_long_run(case: Case) -> Case:
    """One decision from the states that long training visits: after an end it starts anew from rho0."""
    problem = case.problem
    assert problem.terminal is not None
    ends = problem.terminal.to(torch.float64)
    P = torch.einsum("sa,sax->sx", exact.policy(problem, case.theta), problem.P)
    again = P * (1 - ends) + torch.outer(P @ ends, problem.rho0)
    lazy = 0.5 * (
        again + torch.eye(len(ends), dtype=P.dtype)
    )  # stays now and then: no period, the same limit
    visited = problem.rho0 @ torch.linalg.matrix_power(lazy, 2**20)
    return endless(replace(case, problem=replace(problem, rho0=visited / visited.sum())))


def _undetached(case: Case) -> Measured:
    """The V that minimises E(r + γV(s') − V(s))² with V in the target, and with the target held fixed."""
    long = on_the_long_run(case)
    traj, S = long.trajectory, case.problem.n_states
    V = exact.stationary_value(long.problem, case.theta, case.gamma)

    def loss(table: Tensor, detach: bool) -> Tensor:
        value = table[traj.obs % S]
        error = td_error(traj.reward, value, traj.terminated, case.gamma)
        target = error + value[:-1]
        return mean(squared_error(value[:-1], target) if detach else error.square(), traj.mask)

    derivative = torch.func.grad(lambda table: loss(table, False))
    curvature = torch.func.jacrev(derivative)(torch.zeros_like(V))
    slope = derivative(torch.zeros_like(V))
    found = -torch.linalg.pinv(curvature) @ slope
    apart = torch.where(long.problem.rho0 > ZERO, found - V, 0.0)
    still = largest(gradient_of(lambda table: loss(table, True), V))
    return Measured(
        holds=largest(apart) < room(case, largest(V)),
        right=still < room(case, largest(V)),
        numbers=of_states("argmin", found)
        | of_states("V^π", V)
        | {"largest error": largest(apart), "semi-gradient at V^π": still},
    )


def _enumerable(case: Case) -> bool:
    """Whether the states behind the last decision can be told apart too."""
    return case.trajectory.mask.shape[1] * case.problem.n_states <= MAX_TRAJECTORIES


def _time_limit(case: Case) -> Measured:
    """A constant reward of 1 for 50 steps, and windows of this problem without its horizon."""
    end = torch.arange(50) == 49
    hundred = torch.full((51,), 100.0, dtype=torch.float64)
    ones, never = torch.ones(50, dtype=torch.float64), torch.zeros(50, dtype=torch.bool)
    cut, whole = (float(n_step_return(ones, hundred, ends, end, 0.99, 50)[0]) for ends in (end, never))
    windows = endless(case, case.steps if _enumerable(case) else case.steps - 1)
    traj, value = windows.trajectory, exact_critic(windows).flatten()[windows.trajectory.obs]
    as_end, as_cut = (
        largest(bias_of(windows, gae(traj.reward, value, ends, traj.done, case.gamma, 0.95)))
        for ends in (traj.done, traj.terminated)
    )
    return Measured(
        holds=as_end < room(case, largest(value)),
        right=as_cut < room(case, largest(value)) and abs(whole - 100.0) < ZERO,
        numbers={
            "V(s₀), limit as an end": cut,
            "V(s₀), bootstrapped": whole,
            "bias of Â here, as an end": as_end,
            "bias of Â here, bootstrapped": as_cut,
        },
    )


CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="E-08",
        title="The rest of the return is V",
        statement="The discounted rewards from t + n on are V(s_{t+n}).",
        verdict=Verdict.FALSE,
        correction="V(s_{t+n}) is their mean given s_{t+n}; single returns scatter around it. So Âₙ is "
        "unbiased for every n, given (s_t, a_t) and with V^π, not with whatever V_φ says.",
        measure=_tail,
        equation="E[Σ_l γˡ r_{t+n+l} | s_{t+n}] = V^π(s_{t+n})",
        source="001:91, 107",
        paper="Sutton & Barto 2018, §3.5 and §7.1",
        explanation="A return is a random number and V(s) is not. Replacing one by the other keeps the mean "
        "and removes the variance, which is the whole point of a critic.",
        audit={"Var[G₀|s₀] (s₀)": "2.253", "Var[G₀|s₀] (s₁)": "2.171", "Var[G₀|s₀] (s₂)": "2.957"}
        | {"E[G₀|s₀] − V": "<1e-9", "bias of Âₙ, n = 1, 2, 3": "<1e-9"},
        also=("M-30", "M-39"),
    ),
    Claim(
        id="M-33",
        title="TD targets: low variance, with a bias",
        statement="Monte Carlo targets have high variance and no bias; TD targets r + γV(s') have low "
        "variance and a bias.",
        verdict=Verdict.TRUE_IF,
        correction="The critic is wrong, but not by much: the bias is γ times the mean error at s', none "
        "with V^π. Lower variance is certain with V^π only; a large error adds its own.",
        measure=_bias_and_variance,
        equation="E[r + γV(s') | s] − V^π(s) = γ E[V(s') − V^π(s') | s]",
        source="004:74-76",
        paper="Sutton 1988; Sutton & Barto 2018, §6.2",
        explanation="The TD target replaces what follows s' by an opinion about it. Var[G|s] = Var[r + "
        "γV^π(s')|s] + γ² E[Var[G'|s']|s], so the exact opinion removes the second term and brings nothing "
        "in.",
        audit={"TD bias (s₀)": ".107", "TD bias (s₁)": ".124", "TD bias (s₂)": ".133"}
        | {"TD variance (s₀)": "1.221", "TD variance (s₁)": ".479", "TD variance (s₂)": "1.665"},
        also=("M-31",),
        fits=several,
        needs="two decisions",
    ),
    Claim(
        id="L-42",
        title="n-step targets need no γ on rewards",
        statement="With a discount the n-step target is Σ_{m=t}^{t+n−1} r_m + γⁿ V(s_{t+n}).",
        verdict=Verdict.FALSE,
        correction="Every reward needs its own discount: Σ_m γ^{m−t} r_m + γⁿ V(s_{t+n}), whose mean is V^π "
        "for every n.",
        measure=_undiscounted,
        equation="E[Σ_{m=t}^{t+n−1} γ^{m−t} r_m + γⁿ V^π(s_{t+n}) | s_t] = V^π(s_t)",
        source="004:77",
        paper="Sutton & Barto 2018, §7.1",
        explanation="The discounted value of s_t discounts r_m by γ^{m−t}. Without it rewards inside the n "
        "steps count in full and those behind them do not: no discounted problem has such values.",
        audit={"E[target], n = 2 (s₀)": ".8076", "E[target], n = 2 (s₁)": "-.3509"}
        | {"E[target], n = 2 (s₂)": "-.2528", "largest bias, n = 2": ".0208"},
        also=("E-19", "M-32"),
        fits=lambda case: 0 < case.gamma < 1 and several(case),
        needs="0 < γ < 1, two decisions",
    ),
    Claim(
        id="L-41",
        title="V_target is Â plus V",
        statement="V_target = Â_GAE + V_old is the Monte Carlo return at λ = 1 and r + γV(s') at λ = 0.",
        verdict=Verdict.TRUE,
        measure=_targets,
        equation="Â^{GAE(1)} + V = Σ γˡ r_{t+l},   Â^{GAE(0)} + V = r_t + γV(s_{t+1})",
        source="001:767-777",
        paper="Sutton & Barto 2018, §12.1; Schulman et al. 2017, arXiv 1707.06347",
        explanation="V(s_t) is subtracted in δ_t and added again; at λ = 1 the other values cancel in "
        "pairs, at λ = 0 only the next one is left. V_old has to be the one that Â was made of.",
        audit={"λ = 1: gap to the return": "<1e-9", "λ = 0: gap to r + γV'": "<1e-9"},
        also=("M-68",),
    ),
    Claim(
        id="E-20",
        title="One V(s) serves every step",
        statement="In episodes of T decisions A(s_t, a_t) is estimated by r + V(s_{t+1}) − V(s_t) with one "
        "V(s) for every t.",
        verdict=Verdict.FALSE,
        correction="V^π depends on how many decisions are left. With V_t(s), the time among the critic's "
        "inputs, the TD error is an unbiased advantage.",
        measure=_stationary,
        equation="E[r + γV_{t+1}(s') | s_t, a_t] − V_t(s_t) = A_t(s_t, a_t)",
        source="004:70-73",
        paper="Pardo et al. 2018, arXiv 1712.00378",
        explanation="Near the end there is less to win, so the same state is worth something else. A critic "
        "that cannot see the time must be wrong at some steps, and one-step targets pass its error on.",
        audit={"V₀(s₀)": ".793", "V at the last decision, s₀": ".622", "bias with V_t": "<1e-9"},
        also=("M-29",),
        fits=lambda case: case.problem.horizon is not None and several(case),
        needs="a horizon of two decisions",
    ),
    Claim(
        id="L-43",
        title="compute_advantages of the note is GAE",
        statement="The note's compute_advantages computes GAE.",
        verdict=Verdict.FALSE,
        correction="Its last target is next_value alone, without reward and γ, and its sum runs on across "
        "ends. `gae` keeps the reward, cuts at done, and bootstraps unless terminated.",
        measure=_code,
        equation="δ_t = r_t + γ(1 − terminated_t) V(s_{t+1}) − V(s_t),   Â_t = δ_t + γλ(1 − done_t) Â_{t+1}",
        source="001:876-896",
        paper="Schulman et al. 2016, arXiv 1506.02438, eq. (16)",
        explanation="Python's conditional expression binds last, so `… if t < n−1 else next_value` replaces "
        "the whole target. Without (1 − done) in the recursion the reward of one episode is credited to the "
        "one before it.",
        audit={"note Â₀": "1.50279", "note Â₁": ".43465", "note Â₂": "-.7"}
        | {"gae Â₀": "10.34819", "gae Â₁": "9.83965", "gae Â₂": "9.3"}
        | {"two episodes, note Â₀": "88.45", "two episodes, note Â₁": "94.05"},
        also=("E-36", "E-37", "M-74"),
        own=True,
    ),
    Claim(
        id="L-44",
        title="The target may stay in the graph",
        statement="Minimising E(r + γV(s') − V(s))² with V's own gradient in the target has the optimum V^π.",
        verdict=Verdict.FALSE,
        correction="Where transitions are random it also punishes the spread of V(s'), so its optimum is "
        "another. With the target held fixed (semi-gradient) the gradient is zero at V^π.",
        measure=_undetached,
        equation="E[(r + γV(s') − V(s))²] = E[(E[r + γV(s')|s] − V(s))²] + E[Var[r + γV(s')|s]]",
        source="001:139",
        paper="Baird 1995; Sutton & Barto 2018, §11.5",
        explanation="The second term is smaller for a flatter V, so the minimiser is flatter than V^π. An "
        "unbiased gradient of the Bellman error would need two independent successors of the same state "
        "(double sampling).",
        audit={"argmin (s₀)": ".649", "argmin (s₁)": ".175", "argmin (s₂)": ".104"}
        | {"V^π (s₀)": "1.008", "V^π (s₁)": "-.116", "V^π (s₂)": "-.048", "largest error": ".3586"},
        also=("E-35", "M-41"),
        always=False,
        fits=lambda case: case.gamma < 1,
        needs="γ < 1",
    ),
    Claim(
        id="L-58",
        title="A time limit is the end",
        statement="Where a time limit cuts an episode, what comes after is worth nothing, as at its end.",
        verdict=Verdict.FALSE,
        correction="The task goes on, only the watching stops: the value of the last state counts. The "
        "limit cuts sums and traces (done) and keeps the bootstrap (not terminated).",
        measure=_time_limit,
        equation="V(s₀) = Σ_{t<T} γᵗ r_t + γᵀ V(s_T)",
        source="001:806-819, 849-866, 887-896",
        paper="Pardo et al. 2018, arXiv 1712.00378",
        explanation="With r = 1 and γ = .99 a state is worth 100 whatever the clock says; with 50 steps and "
        "no bootstrap its target is 39.5. A state would then be worth less the later it is visited, "
        "and a critic that is not told the time cannot say so.",
        audit={"V(s₀), limit as an end": "39.5", "V(s₀), bootstrapped": "100"},
        also=("E-37",),
        fits=lambda case: case.gamma < 1,
        needs="γ < 1",
    ),
)
