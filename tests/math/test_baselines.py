"""Baselines against their definitions, and the bias and variance they give, exactly, by enumeration."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgrad.math import baselines, credit
from tests.math import oracles
from tests.math.oracles import THETA_OLD, Lab, expected_surrogate_gradient, relative_error

F64 = torch.float64
FAST = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
NUMBERS = st.floats(-100, 100, width=32)
WEIGHTS = st.one_of(st.just(0.0), st.floats(0.125, 4, width=32))


@st.composite
def samples(draw: st.DrawFn) -> tuple[list[float], list[float], list[float]]:
    """Returns, squared scores and weights of 1 to 7 trajectories, with zeros among the last two."""
    n = draw(st.integers(1, 7))
    lists = [draw(st.lists(kind, min_size=n, max_size=n)) for kind in (NUMBERS, WEIGHTS, WEIGHTS)]
    return lists[0], lists[1], lists[2]


def weighted_mean(values: list[float], weights: list[float]) -> float:
    total = sum(weights)
    return sum(w * v for w, v in zip(weights, values, strict=True)) / total if total else 0.0


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-10), (torch.float32, 1e-3)])
@given(sample=samples())
@FAST
def test_definitions(sample, dtype, tolerance):
    returns, score_sq, weights = sample
    ret, score, weight = (torch.tensor(x, dtype=dtype) for x in sample)
    n = len(returns)

    def check(actual: torch.Tensor, expected: list[float]) -> None:
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)

    others = [[j for j in range(n) if j != i] for i in range(n)]
    for w, used in ((None, [1.0] * n), (weight, weights)):
        check(baselines.batch_mean(ret, w), [weighted_mean(returns, used)])
        check(
            baselines.leave_one_out_mean(ret, w),
            [weighted_mean([returns[j] for j in o], [used[j] for j in o]) for o in others],
        )
        both = [s * u for s, u in zip(score_sq, used, strict=True)]
        check(baselines.optimal(score, ret, w), [weighted_mean(returns, both)])


def test_last_dimension_is_the_trajectories():
    ret = torch.tensor([[1.0, 3.0, 8.0], [0.0, 6.0, 0.0]])
    weight = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])  # the third episode is over at t = 1
    assert baselines.batch_mean(ret, weight).tolist() == [[4.0], [3.0]]
    assert baselines.leave_one_out_mean(ret, weight).tolist() == [[5.5, 4.5, 2.0], [6.0, 0.0, 3.0]]
    score_sq = torch.tensor([[1.0, 0.0, 1.0], [1.0, 2.0, 9.0]])
    assert baselines.optimal(score_sq, ret, weight).tolist() == [[4.5], [4.0]]


def test_nothing_to_average_gives_zero_not_nan():
    ret, none = torch.tensor([5.0, 7.0]), torch.zeros(2)
    assert baselines.batch_mean(ret, none).tolist() == [0.0]
    assert baselines.optimal(none, ret).tolist() == [0.0]
    assert baselines.leave_one_out_mean(ret, none).tolist() == [0.0, 0.0]
    assert baselines.leave_one_out_mean(ret[:1]).tolist() == [0.0]  # there are no others


def test_what_does_not_count_may_be_nan():
    ret, weight = torch.tensor([5.0, torch.nan, 7.0]), torch.tensor([1.0, 0.0, 1.0])
    assert baselines.batch_mean(ret, weight).tolist() == [6.0]
    assert baselines.leave_one_out_mean(ret, weight).tolist() == [7.0, 6.0, 5.0]
    assert baselines.optimal(torch.tensor([3.0, torch.nan, 1.0]), ret, weight).tolist() == [5.5]


@given(st.lists(NUMBERS, min_size=2, max_size=8))
@FAST
def test_leave_one_out_mean_is_rloo(returns):
    ret = torch.tensor(returns, dtype=F64)
    advantage = ret - baselines.leave_one_out_mean(ret)
    torch.testing.assert_close(advantage, credit.leave_one_out(ret, len(returns)))


@given(samples(), st.floats(-50, 50))
@FAST
def test_no_other_constant_has_less_variance(sample, shift):
    """E‖s(R−b)‖² over all b; the mean E[s(R−b)] does not depend on b where E[s] = 0."""
    ret, score_sq, weight = (torch.tensor(x, dtype=F64) for x in sample)

    def second_moment(b: torch.Tensor) -> torch.Tensor:
        return (weight * score_sq * (ret - b) ** 2).sum()

    best = baselines.optimal(score_sq, ret, weight)
    assert second_moment(best) <= second_moment(best + shift) * (1 + 1e-12) + 1e-12


# ---------------------------------------------------------------- by enumeration


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


@pytest.fixture(scope="module")
def p(lab) -> torch.Tensor:
    return lab.p(THETA_OLD)


@pytest.fixture(scope="module")
def score(lab) -> torch.Tensor:
    return lab.score(THETA_OLD)


@pytest.fixture(scope="module")
def ret(lab) -> torch.Tensor:
    return credit.full_return(lab.reward, lab.done, 0.9)


@pytest.fixture(scope="module")
def to_go(lab) -> torch.Tensor:
    return credit.reward_to_go(lab.reward, lab.done, 0.9)


@pytest.fixture(scope="module")
def discount(lab) -> torch.Tensor:
    return credit.discount_weight(lab.done, 0.9, F64)


@pytest.fixture(scope="module")
def truth(lab) -> torch.Tensor:
    return lab.gradient(THETA_OLD, 0.9)


def test_trajectory_baselines(lab, p, score, ret, truth):  # M-16, L-16
    best = baselines.optimal(score.sum(0).square().sum(-1), ret[0], p)
    mean = baselines.batch_mean(ret[0], p)
    assert abs(best.item() - 0.8405) < 5e-5
    assert abs(mean.item() - 0.2447) < 5e-5
    for b, variance in ((torch.zeros(1, dtype=F64), 5.7639), (mean, 5.1931), (best, 4.6167)):
        gradient, trace = lab.moments(THETA_OLD, ret - b)
        assert abs(trace - variance) < 5e-5
        assert relative_error(gradient, truth) < 1e-12  # a constant is no bias
        assert relative_error(expected_surrogate_gradient(lab, THETA_OLD, ret - b), truth) < 1e-12
    for b in torch.linspace(-3, 4, 29, dtype=F64):
        assert lab.moments(THETA_OLD, ret - best)[1] <= lab.moments(THETA_OLD, ret - b)[1]


def test_one_baseline_per_parameter(p, score, ret, truth):  # L-16
    total = score.sum(0)
    best = baselines.optimal(total.square().T, ret[0], p)
    assert best.shape == (6, 1)
    estimate = total * (ret[0][:, None] - best.T)
    mean = p @ estimate
    assert relative_error(mean, truth) < 1e-12
    assert abs(p @ estimate.square().sum(1) - mean @ mean - 4.3819) < 1e-4


def test_step_baselines(lab, p, score, to_go, discount, truth):  # L-13, L-15, E-04
    v = lab.value_rows(lab.values(THETA_OLD, 0.9)[0])[:-1]
    here = torch.nn.functional.one_hot(lab.state, 3).permute(2, 0, 1).double()  # [state, t, trajectory]
    per_state = baselines.optimal(score.square().sum(-1)[None], to_go[None], p * here)[..., 0]  # [3, 4]
    best = per_state.T.gather(1, lab.state)
    mean = baselines.batch_mean(to_go, p.expand(4, -1))
    for b, variance in ((0.0 * v, 2.8095), (mean, 2.6142), (v, 2.9201), (best, 1.8475)):
        gradient, trace = lab.moments(THETA_OLD, discount * (to_go - b))
        assert abs(trace - variance) < 5e-5
        assert relative_error(gradient, truth) < 1e-12

    # the best b(t, s) of all, by least squares: steps are correlated, so it is a little better still
    features = torch.einsum("stn,tn,tnk->nkst", here, discount, score).flatten(2)
    target = ((discount * to_go)[..., None] * score).sum(0)
    root = p.sqrt()[:, None]
    normal = (root[..., None] * features).flatten(0, 1)
    solution = torch.linalg.lstsq(normal, (root * target).flatten()[:, None], driver="gelsd").solution
    b = solution.view(3, 4).T.gather(1, lab.state)
    assert abs(lab.moments(THETA_OLD, discount * (to_go - b))[1] - 1.7540) < 5e-5


def single_step(probability: list[float], q: list[float]) -> tuple[torch.Tensor, ...]:
    pi, value = torch.tensor(probability, dtype=F64), torch.tensor(q, dtype=F64)
    score = torch.eye(len(q), dtype=F64) - pi  # softmax

    def variance(b: torch.Tensor) -> float:
        estimate = score * (value - b)[:, None]
        return float(pi @ estimate.square().sum(1) - (pi @ estimate).square().sum())

    best = baselines.optimal(score.square().sum(1), value, pi)
    return best, variance(torch.zeros(1)), variance((pi @ value)[None]), variance(best)


def test_the_value_is_not_the_best_baseline_of_one_step(lab):  # L-14, E-04
    q, pi = lab.values(THETA_OLD, 0.9)[1][0], THETA_OLD.softmax(1)
    for s, (none, value) in enumerate(((0.0760, 0.0717), (0.0110, 0.1003), (0.6059, 0.8585))):
        best, without, with_value, with_best = single_step(pi[s].tolist(), q[s].tolist())
        assert (
            abs(best.item() - (pi[s, 1] * q[s, 0] + pi[s, 0] * q[s, 1]).item()) < 1e-14
        )  # V, weights swapped
        assert abs(without - none) < 5e-5
        assert abs(with_value - value) < 5e-5
        assert abs(with_best) < 1e-15
    _, without, with_value, with_best = single_step([0.9, 0.1], [1.0, 0.0])
    assert [round(x, 4) for x in (without, with_value, with_best)] == [0.0018, 0.1152, 0.0]


def test_own_return_in_the_mean_halves_the_gradient_of_two(p, score, ret, truth):  # M-15, E-17, L-17
    """Exact over all 1296² batches of two trajectories."""
    size = len(p)
    batches = torch.stack([ret[0][:, None].expand(size, size), ret[0][None, :].expand(size, size)], -1)
    pair, total = p[:, None] * p[None, :], score.sum(0)
    for baseline, factor in ((baselines.batch_mean, 0.5), (baselines.leave_one_out_mean, 1.0)):
        weighted = pair[..., None] * (batches - baseline(batches)) / 2
        estimate = weighted[..., 0].sum(1) @ total + weighted[..., 1].sum(0) @ total
        torch.testing.assert_close(estimate, factor * truth)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_own_return_in_the_mean_costs_one_part_in_n(n):  # E-17, on a bandit, over all action sequences
    pi, q = torch.tensor([0.7, 0.3], dtype=F64), torch.tensor([1.0, -2.0], dtype=F64)
    actions = torch.cartesian_prod(*[torch.arange(2)] * n)  # [2ⁿ, n]
    p, score = pi[actions].prod(1), torch.eye(2, dtype=F64)[actions] - pi
    truth = pi * (q - pi @ q)
    for baseline, factor in ((baselines.batch_mean, 1 - 1 / n), (baselines.leave_one_out_mean, 1.0)):
        advantage = q[actions] - baseline(q[actions])
        torch.testing.assert_close(p @ (advantage[..., None] * score).mean(1), factor * truth)


@pytest.mark.parametrize("name", ["batch_mean", "leave_one_out_mean", "optimal"])
def test_compiles_whole(name):
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.rand(3, 5, generator=generator) for _ in range(3)]
    arguments = tensors if name == "optimal" else tensors[1:]
    function = getattr(baselines, name)
    with oracles.unchecked():
        compiled = torch.compile(function, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(*arguments), function(*arguments))
