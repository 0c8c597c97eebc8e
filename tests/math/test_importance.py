"""Importance ratios against products written out, and what each weighting gives, exactly, by enumeration."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgrad.math import credit, importance
from tests.math import oracles
from tests.math.oracles import DELTA, THETA_OLD, Lab, relative_error, windows

F64 = torch.float64
FAST = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
PRECISION = pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-10), (torch.float32, 1e-4)])


def agree(actual: torch.Tensor, expected: np.ndarray, dtype: torch.dtype, tolerance: float) -> None:
    assert actual.dtype == dtype
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale)


@PRECISION
@given(w=windows(), gamma=st.sampled_from([0.0, 0.9, 1.0]))
@FAST
def test_definitions(w, gamma, dtype, tolerance):
    x = w.tensors(dtype)
    agree(importance.step_ratio(x.logp, x.logp_old), np.exp(w.logp) / np.exp(w.logp_old), dtype, tolerance)
    for name in ("prefix_ratio", "trajectory_ratio"):
        expected = oracles.by_column(getattr(oracles, name), w.logp, w.logp_old, w.done)
        agree(getattr(importance, name)(x.logp, x.logp_old, x.done), expected, dtype, tolerance)
    expected = oracles.by_column(
        lambda *c: oracles.per_decision_return(*c, gamma), w.reward, w.logp, w.logp_old, w.done
    )
    actual = importance.per_decision_return(x.reward, x.logp, x.logp_old, x.done, gamma)
    agree(actual, expected, dtype, tolerance)


@given(windows())
@FAST
def test_the_same_policy_has_ratio_exactly_one(w):
    x = w.tensors(torch.float32)
    one = torch.ones_like(x.logp)
    assert torch.equal(importance.step_ratio(x.logp, x.logp), one)
    assert torch.equal(importance.prefix_ratio(x.logp, x.logp, x.done), one)
    assert torch.equal(importance.trajectory_ratio(x.logp, x.logp, x.done), one)
    on_policy = importance.per_decision_return(x.reward, x.logp, x.logp, x.done, 0.9)
    assert torch.equal(on_policy, credit.reward_to_go(x.reward, x.done, 0.9))


def test_products_that_would_overflow_on_the_way_do_not():
    log = torch.tensor([80.0, 80.0, -80.0, -80.0])[:, None]  # e^160 is not a float32, e^0 is
    done = torch.tensor([0, 0, 0, 1], dtype=torch.bool)[:, None]
    zero = torch.zeros_like(log)
    assert importance.trajectory_ratio(log, zero, done)[:, 0].tolist() == [1.0] * 4
    assert importance.prefix_ratio(log, zero, done)[3, 0] == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_an_impossible_action_ends_its_own_episode_only(dtype):
    logp = torch.tensor([0.0, -torch.inf, 0.0, 0.5], dtype=dtype)[:, None]
    done = torch.tensor([0, 0, 1, 1], dtype=torch.bool)[:, None]
    zero = torch.zeros_like(logp)
    expected = torch.exp(torch.tensor(0.5, dtype=dtype)).item()
    assert importance.step_ratio(logp, zero)[:, 0].tolist() == [1, 0, 1, expected]
    assert importance.prefix_ratio(logp, zero, done)[:, 0].tolist() == [1, 0, 0, expected]
    assert importance.trajectory_ratio(logp, zero, done)[:, 0].tolist() == [0, 0, 0, expected]


def test_truncate():
    ratio = torch.tensor([0.5, 1.0, 3.0])
    assert importance.truncate(ratio, 1.5).tolist() == [0.5, 1.0, 1.5]
    assert torch.equal(importance.truncate(ratio, float("inf")), ratio)


@given(
    st.lists(st.floats(0, 100, width=32), min_size=1, max_size=8),
    st.lists(st.booleans(), min_size=8, max_size=8),
)
@FAST
def test_effective_sample_size_is_the_definition(weights, kept):
    w, mask = torch.tensor(weights, dtype=F64), torch.tensor(kept[: len(weights)], dtype=F64)
    for m, used in (
        (None, weights),
        (mask, [x for x, keep in zip(weights, kept, strict=False) if keep]),
    ):
        size = importance.effective_sample_size(w, m)
        square = sum(x * x for x in used)
        assert size.shape == ()
        assert size.item() == pytest.approx(sum(used) ** 2 / square if square else 0.0)
        assert size <= len(used) + 1e-9


def test_effective_sample_size_by_hand_and_at_the_edges():
    size = importance.effective_sample_size
    assert size(torch.full((2, 5), 0.3)).item() == pytest.approx(10.0)
    assert size(torch.tensor([0.0, 7.0, 0.0])).item() == 1.0
    assert size(torch.tensor([3.0, 1.0])).item() == pytest.approx(1.6)
    assert size(torch.tensor([1e30, 1e30])).item() == 2.0  # squares overflow float32
    assert size(torch.tensor([torch.inf, 2.0]), torch.tensor([0.0, 1.0])).item() == 1.0
    assert size(torch.zeros(3)).item() == 0.0


# ---------------------------------------------------------------- by enumeration


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


SHIFTS = (0.1, 0.5, 1.0)  # θ_new = θ_old + c·DELTA


@pytest.mark.parametrize(
    ("c", "variance", "fraction", "largest"),
    [(0.1, 0.0115, 0.9887, 1.56), (0.5, 0.3576, 0.7366, 7.92), (1.0, 2.2909, 0.3039, 40.8)],
)
def test_trajectory_weights(lab, c, variance, fraction, largest):  # M-48, M-56, L-21
    theta, p = THETA_OLD + c * DELTA, lab.p(THETA_OLD)
    ratio = importance.trajectory_ratio(lab.logp(theta), lab.logp(THETA_OLD), lab.done)
    torch.testing.assert_close(ratio, (lab.p(theta) / p).expand(4, -1))  # the dynamics cancel
    assert abs(p @ ratio[0] - 1) < 1e-12
    assert abs(p @ ratio[0].square() - 1 - variance) < 5e-5
    assert abs(importance.effective_sample_size(ratio[0], p) - fraction) < 5e-5
    assert abs(ratio.max() - largest) < 0.05
    prefix = importance.prefix_ratio(lab.logp(theta), lab.logp(THETA_OLD), lab.done)
    torch.testing.assert_close(prefix @ p, torch.ones(4, dtype=F64))  # every prefix is a probability ratio
    torch.testing.assert_close(prefix[-1], ratio[-1])


def estimators(lab: Lab, c: float) -> dict[str, torch.Tensor]:
    """Weights of ∇ log π_new(aₜ|sₜ) for trajectories of π_old, [4, 1296]."""
    theta, gamma = THETA_OLD + c * DELTA, 0.9
    log = (lab.logp(theta), lab.logp(THETA_OLD))
    step = importance.step_ratio(*log)
    prefix, whole = (f(*log, lab.done) for f in (importance.prefix_ratio, importance.trajectory_ratio))
    discount = credit.discount_weight(lab.done, gamma, F64)
    to_go = credit.reward_to_go(lab.reward, lab.done, gamma)
    q_old, q_new = (lab.q_rows(lab.values(x, gamma)[1]) for x in (THETA_OLD, theta))
    v_new = lab.value_rows(lab.values(theta, gamma)[0])[:-1]
    state = (lab.marginal(theta) / lab.marginal(THETA_OLD)).gather(1, lab.state)
    return {
        "trajectory, full return": whole * credit.full_return(lab.reward, lab.done, gamma),
        "trajectory, reward to go": discount * whole * to_go,
        "per decision": discount * importance.per_decision_return(lab.reward, *log, lab.done, gamma),
        "causal, reward to go": discount * prefix * to_go,
        "causal, Q old": discount * prefix * q_old,
        "causal, Q new": discount * prefix * q_new,
        "marginal, Q new": discount * state * step * q_new,
        "step, Q new": discount * step * q_new,
        "none, A new": discount * (q_new - v_new),
        "none, reward to go": discount * to_go,
    }


EXACT = {  # trVar at c = .1, .5, 1
    "trajectory, full return": (7.41, 25.5, 134.06),  # M-49, L-23
    "trajectory, reward to go": (3.58, 11.6, 55.73),  # M-50
    "per decision": (3.39, 8.04, 24.84),  # M-51 (b), L-24
    "causal, Q new": (1.59, 3.86, 9.98),  # L-26
    "marginal, Q new": (1.52, 2.85, 4.71),  # M-52, L-27
}
BIASED = {  # relative error at c = .1, .5, 1
    "causal, reward to go": (5.0e-3, 3.6e-2, 9.1e-2),  # M-51 (a), E-26, L-25
    "step, Q new": (9.0e-3, 4.3e-2, 7.9e-2),  # M-53, L-28
    "none, A new": (4.9e-2, 0.170, 0.272),  # L-22
    "none, reward to go": (4.4e-2, 0.168, 0.231),
}


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("name", EXACT)
def test_exact_weightings(lab, name, which):
    theta = THETA_OLD + SHIFTS[which] * DELTA
    mean, variance = lab.moments(theta, estimators(lab, SHIFTS[which])[name], THETA_OLD)
    assert relative_error(mean, lab.gradient(theta, 0.9)) < 1e-12
    assert variance == pytest.approx(EXACT[name][which], rel=5e-3)


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("name", BIASED)
def test_biased_weightings(lab, name, which):
    theta = THETA_OLD + SHIFTS[which] * DELTA
    mean, _ = lab.moments(theta, estimators(lab, SHIFTS[which])[name], THETA_OLD)
    assert relative_error(mean, lab.gradient(theta, 0.9)) == pytest.approx(BIASED[name][which], rel=0.02)


@pytest.mark.parametrize("c", SHIFTS)
def test_the_notes_causal_form_is_the_policy_iteration_gradient(lab, c):  # M-51 (a), L-25
    weights = estimators(lab, c)
    theta = THETA_OLD + c * DELTA
    written, with_q_old = (
        lab.moments(theta, weights[name], THETA_OLD)[0] for name in ("causal, reward to go", "causal, Q old")
    )
    assert relative_error(written, with_q_old) < 1e-12


def test_differentiating_the_per_decision_objective_gives_its_gradient(lab):
    """E_μ of the first row is J(π), and its derivative through the ratios is the weighted score function."""
    theta = (THETA_OLD + DELTA).requires_grad_()
    p, logp_old = lab.p(THETA_OLD), lab.logp(THETA_OLD)
    first = importance.per_decision_return(lab.reward, lab.logp(theta), logp_old, lab.done, 0.9)[0]
    objective = p @ first
    torch.testing.assert_close(objective.detach(), lab.objective(theta.detach(), 0.9))
    gradient = torch.autograd.grad(objective, theta)[0].flatten()
    assert relative_error(gradient, lab.gradient(theta.detach(), 0.9)) < 1e-12


@pytest.mark.parametrize("c", SHIFTS)
def test_temporal_differences_in_place_of_rewards(lab, c):
    """Per decision, δ of any V keeps the mean; that of the new policy has less variance than rewards."""
    theta = THETA_OLD + c * DELTA
    log, truth = (lab.logp(theta), lab.logp(THETA_OLD)), lab.gradient(theta, 0.9)
    discount = credit.discount_weight(lab.done, 0.9, F64)
    generator = torch.Generator().manual_seed(3)
    own = lab.values(theta, 0.9)[0]
    wrong = torch.randn(own.shape, generator=generator, dtype=F64)
    wrong[-1] = 0.0
    variances = []
    for table in (own, torch.zeros_like(own), wrong):
        delta = credit.td_error(lab.reward, lab.value_rows(table), lab.done, 0.9)
        weight = discount * importance.per_decision_return(delta, *log, lab.done, 0.9)
        mean, variance = lab.moments(theta, weight, THETA_OLD)
        assert relative_error(mean, truth) < 1e-12
        variances.append(variance)
    assert variances[1] == pytest.approx(EXACT["per decision"][SHIFTS.index(c)], rel=5e-3)
    assert variances[0] < variances[1]


def test_missing_support_is_invisible_but_for_the_mean_ratio():  # M-47
    """p = (½, ½), q = (1, 0), f = (1, 3): E_q[p/q f] is ½, not 2, and E_q[p/q] is ½, not 1."""
    p, f = torch.tensor([0.5, 0.5], dtype=F64), torch.tensor([1.0, 3.0], dtype=F64)
    for q, estimate, mass in (([0.25, 0.75], 2.0, 1.0), ([1.0, 0.0], 0.5, 0.5)):
        seen = torch.tensor(q, dtype=F64) > 0
        behaviour = torch.tensor(q, dtype=F64)[seen]
        ratio = importance.step_ratio(p[seen].log(), behaviour.log())
        assert (behaviour * ratio * f[seen]).sum().item() == pytest.approx(estimate)
        assert (behaviour * ratio).sum().item() == pytest.approx(mass)


def test_variance_grows_exponentially_with_the_length():  # E-56: E[ρ²] = 1.162 a step, Var 3.49 in ten
    shift = (0.162 / 4) ** 0.5
    target = torch.tensor([0.5 + shift, 0.5 - shift], dtype=F64).log()
    actions = torch.cartesian_prod(*[torch.arange(2)] * 10).T  # all 1024 sequences as columns
    logp, logp_old = target[actions], torch.full(actions.shape, 0.5, dtype=F64).log()
    ratio = importance.trajectory_ratio(logp, logp_old, torch.zeros_like(actions, dtype=torch.bool))[0]
    assert abs(ratio.mean() - 1) < 1e-12
    assert abs(ratio.square().mean() - 1 - 3.49) < 5e-3
    assert importance.effective_sample_size(ratio) / 1024 == pytest.approx(1.162**-10)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_no_weight_reaches_another_episode(dtype):
    """A row that only resets has an action nobody chose: however far π and μ are apart there, the episodes
    before it are what they would be alone."""
    T = 6
    done = torch.zeros(T, 1, dtype=torch.bool)
    done[2] = done[3] = True  # row 3 only resets
    logp, logp_old = torch.zeros(T, 1, dtype=dtype), torch.zeros(T, 1, dtype=dtype)
    reward, value = torch.ones(T, 1, dtype=dtype), torch.ones(T + 1, 1, dtype=dtype)
    far = logp.clone()
    far[3] = 5000.0
    ratio = importance.step_ratio(far, logp_old)
    assert ratio.isfinite().all()
    credits = {
        "per-decision": lambda x: importance.per_decision_return(reward, x, logp_old, done, 0.9),
        "prefix": lambda x: importance.prefix_ratio(x, logp_old, done),
        "trajectory": lambda x: importance.trajectory_ratio(x, logp_old, done),
        "vtrace": lambda x: (
            credit.vtrace(
                reward, value, done, done, importance.step_ratio(x, logp_old), 0.9, 1.0, np.inf, np.inf
            ).advantage
        ),
    }
    for name, found in credits.items():
        assert torch.equal(found(far)[:3], found(logp)[:3]), name
        assert found(far).isfinite().all(), name


def compiled_cases():
    generator = torch.Generator().manual_seed(0)
    logp, logp_old, reward = (torch.rand(9, 2, generator=generator) for _ in range(3))
    done = torch.rand(9, 2, generator=generator) < 0.3
    return {
        "step_ratio": (logp, logp_old),
        "prefix_ratio": (logp, logp_old, done),
        "trajectory_ratio": (logp, logp_old, done),
        "truncate": (logp, 0.5),
        "effective_sample_size": (logp, logp_old),
        "per_decision_return": (reward, logp, logp_old, done, 0.9),
    }


@pytest.mark.parametrize("name", compiled_cases())
def test_compiles_whole(name):
    function, arguments = getattr(importance, name), compiled_cases()[name]
    with oracles.unchecked():
        compiled = torch.compile(function, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(*arguments), function(*arguments))
