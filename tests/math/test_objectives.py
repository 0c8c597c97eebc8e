"""Objectives: formulas, gradients, and what they leave alone."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pgrad.math import objectives
from pgrad.math.distributions import Categorical, Gaussian

F64 = torch.float64
floats = st.floats(-3, 3)
rows = st.lists(st.tuples(st.floats(-3, 0), st.floats(-3, 0), floats), min_size=1, max_size=8)


def columns(data: list[tuple[float, float, float]]) -> tuple[Tensor, Tensor, Tensor]:
    logp, logp_old, advantage = torch.tensor(data, dtype=F64).unbind(-1)
    return logp, logp_old, advantage


# ---------------------------------------------------------------- formulas


@given(rows, st.floats(0, 0.9), st.floats(0, 0.9))
def test_policy_objectives_are_their_definitions(data, low, high):
    logp, logp_old, advantage = columns(data)
    weighted = objectives.importance_weighted(logp, logp_old, advantage).tolist()
    clipped = objectives.clipped(logp, logp_old, advantage, low, high).tolist()
    score = objectives.score_function(logp, advantage).tolist()
    for i, (x, y, a) in enumerate(data):
        ratio = math.exp(x) / math.exp(y)
        assert score[i] == pytest.approx(x * a, abs=1e-12)
        assert weighted[i] == pytest.approx(ratio * a, rel=1e-12, abs=1e-12)
        limited = min(max(ratio, 1 - low), 1 + high)
        assert clipped[i] == pytest.approx(min(ratio * a, limited * a), rel=1e-12, abs=1e-12)


@given(rows, st.floats(0.01, 2))
def test_value_errors_are_their_definitions(data, clip_range):
    value, value_old, target = columns(data)
    plain = objectives.squared_error(value, target).tolist()
    clipped = objectives.clipped_squared_error(value, value_old, target, clip_range).tolist()
    for i, (v, old, y) in enumerate(data):
        near = old + min(max(v - old, -clip_range), clip_range)
        assert plain[i] == pytest.approx((v - y) ** 2, abs=1e-12)
        assert clipped[i] == pytest.approx(max((v - y) ** 2, (near - y) ** 2), abs=1e-12)


def test_clip_ranges_may_be_tensors():
    logp, logp_old, advantage = columns([(-0.1, -1.0, 2.0), (-1.0, -0.1, -2.0), (-1.0, -1.1, 1.0)])
    floats_ = objectives.clipped(logp, logp_old, advantage, 0.1, 0.3)
    tensors = objectives.clipped(logp, logp_old, advantage, torch.tensor(0.1), torch.tensor(0.3))
    torch.testing.assert_close(floats_, tensors, rtol=1e-7, atol=0)
    value = objectives.clipped_squared_error(logp, logp_old, advantage, torch.tensor(0.3))
    torch.testing.assert_close(
        value, objectives.clipped_squared_error(logp, logp_old, advantage, 0.3), rtol=1e-7, atol=0
    )


# ---------------------------------------------------------------- gradients


def gradients(logits: Tensor, logits_old: Tensor, action: Tensor, advantage: Tensor) -> list[Tensor]:
    x = logits.clone().requires_grad_()
    logp, logp_old = Categorical(x).log_prob(action), Categorical(logits_old).log_prob(action)
    values = [
        objectives.score_function(logp, advantage),
        objectives.importance_weighted(logp, logp_old, advantage),
        objectives.clipped(logp, logp_old, advantage, 0.2, 0.2),
    ]
    return [torch.autograd.grad(v.sum(), x, retain_graph=True)[0] for v in values]


def test_three_objectives_have_one_gradient_on_fresh_data():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 5, generator=generator, dtype=F64)
    action, advantage = Categorical(logits).sample(generator), torch.randn(64, generator=generator, dtype=F64)
    score, weighted, clipped = gradients(logits, logits, action, advantage)
    assert torch.equal(score, weighted)
    assert torch.equal(score, clipped)


def test_importance_weighted_gradient_is_ratio_times_score():
    """And so differs from the policy gradient as soon as the policy has moved."""
    generator = torch.Generator().manual_seed(1)
    old, new = torch.randn(2, 64, 5, generator=generator, dtype=F64)
    action, advantage = Categorical(old).sample(generator), torch.randn(64, generator=generator, dtype=F64)
    score, weighted, _ = gradients(new, old, action, advantage)
    ratio = torch.softmax(new, -1) / torch.softmax(old, -1)
    by_hand = torch.nn.functional.one_hot(action, 5) - torch.softmax(new, -1)
    by_hand = by_hand * (ratio.gather(-1, action[:, None])[:, 0] * advantage)[:, None]
    torch.testing.assert_close(weighted, by_hand, atol=1e-13, rtol=0)
    assert (weighted - score).abs().max() > 0.1


def test_only_the_policy_learns_from_policy_objectives():
    """An advantage that still hangs on the critic sends it nothing; nor does anything old."""
    logp, logp_old, value = (torch.tensor([-1.0, -0.5], requires_grad=True) for _ in range(3))
    advantage = torch.tensor([2.0, 1.0]) - value
    total = (
        objectives.score_function(logp, advantage)
        + objectives.importance_weighted(logp, logp_old, advantage)
        + objectives.clipped(logp, logp_old, advantage, 0.2, 0.2)
    )
    total.sum().backward()
    assert logp.grad is not None
    assert logp_old.grad is None
    assert value.grad is None


def test_only_the_value_learns_from_value_errors():
    value, old, target = (torch.tensor([1.0, 2.0]).add(i).requires_grad_() for i in range(3))
    total = objectives.squared_error(value, target) + objectives.clipped_squared_error(
        value, old, target, 5.0
    )
    total.sum().backward()
    torch.testing.assert_close(value.grad, 4 * (value - target).detach())
    assert old.grad is None
    assert target.grad is None


def test_detached_target_decides_where_a_bootstrapped_critic_ends():
    """A leads to B or C evenly, B pays 1, C nothing. The Bellman residual's minimiser is wrong at B and C."""
    start, first, second = (
        torch.tensor([0, 0, 1, 2]),
        torch.tensor([1, 2, 3, 3]),
        torch.tensor([0.0, 0, 1, 0]),
    )
    ends = {}
    for semi in (True, False):
        v = torch.zeros(3, dtype=F64, requires_grad=True)
        for _ in range(4000):
            after = torch.cat([v, v.new_zeros(1)])[first]
            if semi:
                error = objectives.squared_error(v[start], second.double() + after)
            else:
                error = (v[start] - second.double() - after).square()
            (gradient,) = torch.autograd.grad(error.sum(), v)
            v = (v - 0.05 * gradient).detach().requires_grad_()
        ends[semi] = v.detach()
    torch.testing.assert_close(ends[True], torch.tensor([0.5, 1, 0], dtype=F64), atol=1e-6, rtol=0)
    torch.testing.assert_close(ends[False], torch.tensor([0.5, 0.75, 0.25], dtype=F64), atol=1e-6, rtol=0)


def test_good_actions_become_likelier_and_bad_ones_rarer():
    for advantage in (1.5, -1.5):
        logits = torch.tensor([[0.2, -0.4]], dtype=F64, requires_grad=True)
        action = torch.tensor([1])
        logp = Categorical(logits).log_prob(action)
        (gradient,) = torch.autograd.grad(
            objectives.score_function(logp, torch.tensor([advantage], dtype=F64)).sum(), logits
        )
        change = Categorical(logits + 0.1 * gradient).log_prob(action) - logp
        assert math.copysign(1, change.item()) == math.copysign(1, advantage)


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_gaussian_mean_moves_towards_good_actions_and_away_from_bad_ones(side, advantage):
    mean = torch.tensor([[0.3]], dtype=F64, requires_grad=True)
    policy = Gaussian(mean, torch.full_like(mean, math.log(0.7)))
    logp = policy.log_prob(mean.detach() + 0.8 * side)
    objective = objectives.score_function(logp, torch.tensor([advantage], dtype=F64))
    (gradient,) = torch.autograd.grad(objective.sum(), mean)
    assert gradient.item() == pytest.approx(1.632653 * side * advantage, abs=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_precision_is_kept_and_whole_graphs_compile(shipped, dtype):
    def all_of(logp: Tensor, old: Tensor, advantage: Tensor) -> tuple[Tensor, ...]:
        o = shipped.objectives
        return (
            o.score_function(logp, advantage),
            o.importance_weighted(logp, old, advantage),
            o.clipped(logp, old, advantage, 0.2, 0.3),
            o.squared_error(logp, advantage),
            o.clipped_squared_error(logp, old, advantage, 0.2),
        )

    inputs = [
        torch.linspace(-2, -0.1, 6).to(dtype),
        torch.linspace(-1, -0.2, 6).to(dtype),
        torch.ones(6).to(dtype),
    ]
    torch.compiler.reset()
    compiled = torch.compile(all_of, fullgraph=True, backend="eager")(*inputs)
    for got, expected in zip(compiled, all_of(*inputs), strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, expected)
