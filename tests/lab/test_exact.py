"""The exact side against recursion over histories, finite differences, and the audit's numbers."""

import dataclasses

import numpy as np
import pytest
import torch

from pgrad.errors import UsageError
from pgrad.lab import Case, exact, random_case, reference
from pgrad.lab.enumerate import every_group, every_trajectory
from pgrad.lab.problems import mixed_case
from tests.lab.brute import Plain, objective_and_gradient
from tests.math.oracles import THETA_OLD, Lab

KINDS = {
    "plain": lambda seed: random_case(seed),
    "lengths": lambda seed: random_case(seed, n_states=3, n_terminal=1),
    "aliased": lambda seed: random_case(seed, n_states=3, n_observations=2),
    "endless": lambda seed: random_case(seed, endless=True, horizon=2),
    "endless with an end": lambda seed: random_case(seed, endless=True, n_states=3, n_terminal=1, horizon=2),
}


def behind(case: Case) -> list[float] | None:
    """V behind the window of an endless problem, by iterating the Bellman equation."""
    problem = case.problem
    if problem.horizon is not None:
        return None
    pi = Plain(problem, case.theta.tolist(), 1)
    v = [0.0] * problem.n_states
    for _ in range(1500):
        v = [
            0.0
            if pi.over[s]
            else sum(
                pi.pi(s, a).real * (pi.r[s][a] + case.gamma * sum(p * x for p, x in zip(row, v, strict=True)))
                for a, row in enumerate(pi.P[s])
            )
            for s in range(problem.n_states)
        ]
    return v


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(8))
def test_objective_and_gradient(kind: str, seed: int) -> None:
    """Dynamic programming, recursion over histories with complex steps, and differences agree to 1e-9."""
    case = KINDS[kind](seed)
    tail = behind(case)
    J, slopes = objective_and_gradient(case.problem, case.theta, case.gamma, case.steps, tail)
    grad = exact.gradient(case.problem, case.theta, case.gamma, case.steps)
    np.testing.assert_allclose(grad, slopes, atol=1e-9)
    assert float(exact.objective(case.problem, case.theta, case.gamma)) == pytest.approx(J, abs=1e-9)
    if case.problem.horizon is not None:
        h = 1e-5
        for o, a in np.ndindex(*case.theta.shape):
            step = torch.zeros_like(case.theta)
            step[o, a] = h
            up, down = (exact.objective(case.problem, case.theta + x, case.gamma) for x in (step, -step))
            assert float((up - down) / (2 * h)) == pytest.approx(float(grad[o, a]), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_gradient_of_an_endless_problem(seed: int) -> None:
    """Differentiating (I − γP)⁻¹r is the limit of ever longer horizons."""
    case = random_case(seed, endless=True, gamma=0.7)
    long = dataclasses.replace(case.problem, horizon=80)
    whole = exact.gradient(case.problem, case.theta, 0.7)
    torch.testing.assert_close(whole, exact.gradient(long, case.theta, 0.7), atol=1e-10, rtol=0)
    window = exact.gradient(case.problem, case.theta, 0.7, 80)
    torch.testing.assert_close(whole, window, atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_every_trajectory(kind: str, seed: int) -> None:
    """The columns are the histories, each once, with their probabilities, endings and padding."""
    case = KINDS[kind](seed)
    traj, S = case.trajectory, case.problem.n_states
    expected = {
        (tuple((s, a) for s, a, _ in past), last): p.real
        for p, past, last in Plain(case.problem, case.theta.tolist(), case.steps).histories()
    }
    found = {}
    log_pi = case.theta.log_softmax(1)[case.problem.observation]
    for k in range(traj.mask.shape[1]):
        n = int((traj.mask[:, k] > 0).sum())
        states = [int(x) - S * t for t, x in enumerate(traj.obs[:, k])]
        actions = traj.action[:, k].tolist()
        ended = bool(traj.terminated[n - 1, k])
        found[tuple(zip(states[:n], actions[:n], strict=True)), None if ended else states[n]] = float(
            traj.mask[0, k]
        )
        assert (traj.mask[:n, k] == traj.mask[0, k]).all()
        assert (traj.mask[n:, k] == 0).all()
        assert traj.done[:, k].tolist() == [t >= n - 1 for t in range(case.steps)]
        assert traj.terminated[:, k].tolist() == [ended and t == n - 1 for t in range(case.steps)]
        assert (traj.reward[n:, k] == 0).all()
        for t in range(n):
            assert traj.reward[t, k] == case.problem.r[states[t], actions[t]]
            assert traj.logp[t, k] == log_pi[states[t], actions[t]]
    assert found.keys() == expected.keys()
    assert max(abs(found[key] - expected[key]) for key in found) < 1e-15
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_values_are_conditional_means(seed: int) -> None:
    """Q_t(s, a) and V_t(s) are means of what was earned from t on, given where one was; so is P(s_t = s)."""
    case = mixed_case(seed)
    T, S = case.steps, case.problem.n_states
    values = exact.values(case.problem, case.theta, case.gamma, T)
    marginals = exact.marginals(case.problem, case.theta, T)
    mass, earned = np.zeros((T, S, case.problem.n_actions)), np.zeros((T, S, case.problem.n_actions))
    for p, past, _ in Plain(case.problem, case.theta.tolist(), T).histories():
        for t, (s, a, _) in enumerate(past):
            mass[t, s, a] += p.real
            earned[t, s, a] += p.real * sum(case.gamma ** (k - t) * past[k][2] for k in range(t, len(past)))
    np.testing.assert_allclose(marginals, mass.sum(2), atol=1e-12)
    seen = mass > 1e-9
    np.testing.assert_allclose(values.Q.numpy()[seen], (earned / np.where(seen, mass, 1))[seen], atol=1e-9)
    state = mass.sum(2) > 1e-9
    mean = (earned.sum(2) / np.where(state, mass.sum(2), 1))[state]
    np.testing.assert_allclose(values.V[:-1].numpy()[state], mean, atol=1e-9)
    pi = exact.policy(case.problem, case.theta)
    assert (pi * values.A).sum(2).abs().max() < 1e-14
    visits = exact.visitation(case.problem, case.theta, case.gamma, T)
    np.testing.assert_allclose(visits, (case.gamma ** np.arange(T)) @ mass.sum(2), atol=1e-12)


def test_the_audits_numbers() -> None:
    """J, ∇J, V and Q of the reference problem, against the audit and the oracle of the mathematics' tests."""
    lab = Lab()
    for gamma, J, grad in (
        (0.9, 0.244715, [0.48315, -0.48315, 0.23409, -0.23409, -0.45972, 0.45972]),
        (1.0, 0.262684, [0.56676, -0.56676, 0.27295, -0.27295, -0.54314, 0.54314]),
    ):
        case = reference(gamma)
        assert float(exact.objective(case.problem, case.theta, gamma)) == pytest.approx(J, abs=5e-7)
        found = exact.gradient(case.problem, case.theta, gamma).flatten()
        np.testing.assert_allclose(found, grad, atol=5e-6)
        assert (found - lab.gradient(THETA_OLD, gamma)).abs().max() < 1e-14
        values = exact.values(case.problem, case.theta, gamma, 4)
        V, Q = lab.values(THETA_OLD, gamma)
        assert (values.V - V).abs().max() < 1e-14
        assert (values.Q - Q).abs().max() < 1e-14
    assert case.trajectory.mask.shape == (4, 1296)


def test_fisher_is_the_curvature_of_the_divergence() -> None:
    """Fisher = Hessian of Σ_s d(s)·KL(π_old‖π) at π_old; scores are derivatives of log π."""
    case = random_case(11, n_states=3, n_actions=3)
    weight = exact.visitation(case.problem, case.theta, case.gamma, case.steps)
    old = case.theta.log_softmax(1)

    def divergence(flat: torch.Tensor) -> torch.Tensor:
        new = flat.reshape(case.theta.shape).log_softmax(1)
        return (weight * (old.exp() * (old - new)).sum(1)).sum()

    hessian = torch.autograd.functional.hessian(divergence, case.theta.flatten())
    assert (exact.fisher(case.problem, case.theta, weight) - hessian).abs().max() < 1e-14
    jacobian = torch.autograd.functional.jacobian(lambda x: x.log_softmax(1), case.theta)
    assert (exact.scores(case.theta) - jacobian.reshape(3, 3, 9)).abs().max() < 1e-15


@pytest.mark.parametrize("seed", range(5))
def test_soft_optimum(seed: int) -> None:
    """No policy has a larger discounted sum of r + α·H(π), and V* is what the best one earns."""
    case = random_case(seed, endless=True)
    problem, alpha, gamma = case.problem, 0.4, 0.8
    best, V = exact.soft_optimum(problem, gamma, alpha)

    def soft_value(pi: torch.Tensor) -> torch.Tensor:
        P = torch.einsum("sa,sax->sx", pi, problem.P)
        r = (pi * (problem.r - alpha * pi.log())).sum(1)
        return torch.linalg.solve(torch.eye(len(r), dtype=r.dtype) - gamma * P, r)

    assert (soft_value(best) - V).abs().max() < 1e-11
    draw = torch.Generator().manual_seed(seed)
    for _ in range(50):
        other = (best.log() + 0.1 * torch.randn(best.shape, generator=draw, dtype=best.dtype)).softmax(1)
        assert (soft_value(other) < V).all()


@pytest.mark.parametrize("seed", range(5))
def test_optimal_step_baseline(seed: int) -> None:
    """No other constant gives ∇log π·(Q − b) less variance in a state."""
    draw = torch.Generator().manual_seed(seed)
    logits, Q = (torch.randn(1, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    pi, score = logits.softmax(1)[0], exact.scores(logits)[0]
    best = float(exact.optimal_step_baseline(pi, Q[0]))

    def spread(b: float) -> float:
        estimate = score * (Q[0] - b)[:, None]
        mean = pi @ estimate
        return float(pi @ (estimate - mean).square().sum(1))

    for b in torch.linspace(best - 2, best + 2, 41):
        assert spread(best) <= spread(float(b)) + 1e-12
    assert spread(best) < spread(best + 0.05)


def test_every_group() -> None:
    """Unordered choices with the number of their orders: together all Kᴺ ordered ones."""
    for K, N in ((5, 1), (5, 2), (4, 3), (3, 4)):
        columns, orders = every_group(K, N, 10_000)
        assert orders.sum() == K**N
        assert len({tuple(row) for row in columns.tolist()}) == len(columns)
        assert all(list(row) == sorted(row) for row in columns.tolist())
        p = torch.rand(K, dtype=torch.float64)
        p = p / p.sum()
        assert float((orders * p[columns].prod(1)).sum()) == pytest.approx(1.0, abs=1e-12)


def test_too_much_is_refused() -> None:
    case = reference()
    with pytest.raises(UsageError, match="more than 100 trajectories of 4 decisions"):
        every_trajectory(case.problem, case.theta, 4, 100)
    with pytest.raises(UsageError, match="363,637,296 groups of 3 out of 1,296 trajectories"):
        every_group(1296, 3, 1_000_000)
    endless = random_case(1, endless=True)
    with pytest.raises(UsageError, match="gamma below 1"):
        exact.objective(endless.problem, endless.theta, 1.0)
    with pytest.raises(UsageError, match="gamma in"):
        exact.soft_optimum(endless.problem, 1.0, 0.5)
