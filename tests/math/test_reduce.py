"""Averages against loops written out, whatever the masked rows hold and however a batch is split."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pgrad.math import reduce

F64 = torch.float64
numbers = st.floats(-100, 100)
weights = st.sampled_from([0.0, 0.0, 0.25, 1.0, 1.0, 3.5])


@st.composite
def tables(draw: st.DrawFn, weight: st.SearchStrategy[float] = weights) -> tuple[Tensor, Tensor]:
    t, b = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    x = draw(st.lists(numbers, min_size=t * b, max_size=t * b))
    m = draw(st.lists(weight, min_size=t * b, max_size=t * b))
    return torch.tensor(x, dtype=F64).view(t, b), torch.tensor(m, dtype=F64).view(t, b)


def brute_mean(x: Tensor, mask: Tensor) -> float:
    pairs = list(zip(x.flatten().tolist(), mask.flatten().tolist(), strict=True))
    total = sum(m for _, m in pairs)
    return sum(m * v for v, m in pairs) / total if total else 0.0


def brute_std(x: Tensor, mask: Tensor) -> float:
    centre = brute_mean(x, mask)
    return math.sqrt(brute_mean((x - centre) ** 2, mask))


# ---------------------------------------------------------------- definitions


@given(tables())
def test_mean_is_its_definition(table):
    x, mask = table
    assert reduce.mean(x, mask).item() == pytest.approx(brute_mean(x, mask), abs=1e-9)
    assert reduce.mean(x, mask, 7).item() == pytest.approx((x * mask).sum().item() / 7, abs=1e-9)
    assert reduce.constant(x, mask, 7.0).item() == pytest.approx((x * mask).sum().item() / 7, abs=1e-9)


@given(tables(st.sampled_from([0.0, 1.0])))
def test_per_sequence_is_the_mean_of_means(table):
    x, mask = table
    means = [brute_mean(x[:, b], mask[:, b]) for b in range(x.shape[1]) if mask[:, b].sum() > 0]
    expected = sum(means) / len(means) if means else 0.0
    assert reduce.per_sequence(x, mask).item() == pytest.approx(expected, abs=1e-9)
    assert reduce.per_sequence(x, mask, 5).item() == pytest.approx(sum(means) / 5, abs=1e-9)


@given(tables(), st.integers(0, 10))
def test_per_sequence_is_mean_at_equal_lengths(table, seed):
    x, _ = table
    steps = torch.arange(x.shape[0])[:, None]
    mask = (steps < 1 + seed % x.shape[0]).to(F64).expand_as(x)
    torch.testing.assert_close(reduce.per_sequence(x, mask), reduce.mean(x, mask), atol=1e-10, rtol=0)


def test_per_sequence_weighs_short_sequences_more():
    """One decision in a sequence of 1 counts as much as 4 decisions in a sequence of 4."""
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    mask = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    assert reduce.per_sequence(x, mask).item() == 0.5
    assert reduce.mean(x, mask).item() == pytest.approx(0.2)
    assert reduce.constant(x, mask, 2 * 4).item() == 0.125


def test_probabilities_as_weights_give_expectations():
    """Three trajectories of lengths 3, 1 and 2 with p(τ) as their rows' weight."""
    probability, length = [0.5, 0.3, 0.2], [3, 1, 2]
    x = torch.arange(9, dtype=F64).view(3, 3)
    mask = torch.zeros(3, 3, dtype=F64)
    for b in range(3):
        mask[: length[b], b] = probability[b]
    column_mean = [sum(x[t, b].item() for t in range(length[b])) / length[b] for b in range(3)]
    expected = sum(p * m for p, m in zip(probability, column_mean, strict=True))
    assert reduce.per_sequence(x, mask).item() == pytest.approx(expected, abs=1e-14)
    total = sum(p * m * n for p, m, n in zip(probability, column_mean, length, strict=True))
    assert reduce.constant(x, mask, 1).item() == pytest.approx(total, abs=1e-14)
    assert reduce.mean(x, mask).item() == pytest.approx(
        total / sum(p * n for p, n in zip(probability, length, strict=True))
    )


@given(tables(), st.floats(0.01, 100))
def test_only_relative_weights_matter(table, scale):
    x, mask = table
    for function in (reduce.mean, reduce.per_sequence):
        torch.testing.assert_close(function(x, scale * mask), function(x, mask), atol=1e-9, rtol=1e-9)
    several = mask.count_nonzero() > 1
    if several and brute_std(x, mask) > 1e-3:
        torch.testing.assert_close(
            reduce.standardize(x, scale * mask), reduce.standardize(x, mask), atol=1e-6, rtol=1e-6
        )


# ---------------------------------------------------------------- what is masked does not exist


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@given(tables())
def test_masked_rows_may_hold_anything(poison, table):
    x, mask = table
    bad = torch.where(mask == 0, poison, x).requires_grad_()
    results = [
        reduce.mean(bad, mask),
        reduce.per_sequence(bad, mask),
        reduce.constant(bad, mask, 3),
        reduce.mean(bad, mask, 3),
    ]
    for got, function in zip(
        results,
        (
            reduce.mean,
            reduce.per_sequence,
            lambda x, m: reduce.constant(x, m, 3),
            lambda x, m: reduce.mean(x, m, 3),
        ),
        strict=True,
    ):
        torch.testing.assert_close(got.detach(), function(x, mask))
    (gradient,) = torch.autograd.grad(sum(results), bad)
    assert gradient.isfinite().all()
    assert (gradient[mask == 0] == 0).all()
    scaled = reduce.standardize(bad.detach(), mask)
    torch.testing.assert_close(scaled, reduce.standardize(x, mask))
    assert (scaled[mask == 0] == 0).all()
    torch.testing.assert_close(
        reduce.explained_variance(bad.detach(), bad.detach() / 2, mask),
        reduce.explained_variance(x, x / 2, mask),
    )


def test_nan_in_a_row_that_counts_is_not_hidden():
    x, mask = torch.tensor([1.0, math.nan]), torch.ones(2)
    for result in (reduce.mean(x, mask), reduce.constant(x, mask, 2), reduce.standardize(x, mask).sum()):
        assert result.isnan()


def test_nothing_to_average_is_zero_with_zero_gradient():
    x, mask = torch.tensor([[math.nan, 2.0]], requires_grad=True), torch.zeros(1, 2)
    for function in (reduce.mean, reduce.per_sequence):
        result = function(x, mask)
        (gradient,) = torch.autograd.grad(result, x)
        assert result.item() == 0
        assert gradient.abs().sum() == 0
    assert reduce.standardize(x.detach(), mask).abs().sum() == 0
    assert reduce.explained_variance(x.detach(), x.detach(), mask).item() == 0


# ---------------------------------------------------------------- any split gives the same gradient


@given(tables(), st.data())
def test_parts_add_up_to_the_whole(table, data):
    """Microbatches of any composition, with the whole batch's Σ m; sequences split by columns."""
    x, mask = table
    rows = x.numel()
    part_of = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows)))
    weight = torch.ones((), dtype=F64, requires_grad=True)
    whole = reduce.mean((weight * x).sin(), mask)
    (expected,) = torch.autograd.grad(whole, weight)
    if mask.sum() > 0:
        for k in range(3):
            mine = part_of == k
            part = reduce.mean((weight * x.flatten()[mine]).sin(), mask.flatten()[mine], mask.sum())
            part.backward()
        torch.testing.assert_close(weight.grad, expected, atol=1e-10, rtol=1e-10)

    ones = (mask > 0).to(F64)
    sequences = ones.amax(0).sum()
    if sequences > 0:
        cut = data.draw(st.integers(0, x.shape[1]))
        halves = [half for half in (slice(cut), slice(cut, None)) if x[:, half].numel()]
        parts = [reduce.per_sequence(x[:, half], ones[:, half], sequences) for half in halves]
        torch.testing.assert_close(sum(parts), reduce.per_sequence(x, ones), atol=1e-10, rtol=1e-10)


def test_means_of_unequal_parts_do_not_add_up():
    """The counter-example: averaged by its own count, a part decides how much its decisions weigh."""
    x, mask = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.ones(4)
    wrong = (reduce.mean(x[:1], mask[:1]) + reduce.mean(x[1:], mask[1:])) / 2
    assert wrong.item() == 0.5
    assert reduce.mean(x, mask).item() == 0.25


# ---------------------------------------------------------------- standardize, explained variance


@given(tables())
def test_standardize_is_its_definition(table):
    x, mask = table
    got = reduce.standardize(x, mask)
    centre, std = brute_mean(x, mask), brute_std(x, mask)
    if mask.count_nonzero() > 1 and std > 1e-6:
        expected = torch.where(mask > 0, (x - centre) / (std + 1e-8), 0.0)
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
        assert brute_mean(got, mask) == pytest.approx(0, abs=1e-9)
        assert brute_std(got, mask) == pytest.approx(1, rel=0.02)


def test_standardize_uses_the_population_spread():
    x, mask = torch.tensor([1.0, 2.0, 4.0, 9.0]), torch.ones(4)
    expected = (x - x.mean()) / x.std(correction=0)
    torch.testing.assert_close(reduce.standardize(x, mask), expected)
    assert not torch.allclose(reduce.standardize(x, mask), (x - x.mean()) / x.std(), rtol=0.05)


def test_single_decision_is_left_as_it_is():
    x, mask = torch.tensor([[7.0, 5.0, math.nan]]), torch.tensor([[0.0, 1.0, 0.0]])
    assert reduce.standardize(x, mask).tolist() == [[0.0, 5.0, 0.0]]


@given(st.floats(-1000, 1000, width=32), st.integers(2, 300))
def test_equal_advantages_stay_silent(value, count):
    x = torch.full((count,), value)
    assert reduce.standardize(x, torch.ones(count)).abs().max() < 1e-2


def test_equal_advantages_shout_when_centred_once():
    """The counter-example: (x − mean)/(std + eps) turns rounding into advantages of order one."""
    x = torch.full((7,), 7.7)
    assert ((x - x.mean()) / (x.std() + 1e-8)).abs().max() > 0.5
    assert reduce.standardize(x, torch.ones(7)).abs().max() < 1e-6


@given(tables())
def test_explained_variance_is_its_definition(table):
    y, mask = table
    v = (3 * y).cos() * 5 + 0.5 * y
    got = reduce.explained_variance(v, y, mask).item()
    spread = brute_std(y, mask)
    if spread > 1e-3:
        assert got == pytest.approx(1 - (brute_std(y - v, mask) / spread) ** 2, rel=1e-6, abs=1e-6)
        assert reduce.explained_variance(y, y, mask).item() == 1
        assert reduce.explained_variance(y + 10, y, mask).item() == pytest.approx(1, abs=1e-6)
        assert reduce.explained_variance(torch.full_like(y, 4), y, mask).item() == pytest.approx(0, abs=1e-6)
        assert reduce.explained_variance(-y, y, mask).item() == pytest.approx(-3, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, 123.456, -1e4 / 3])
@pytest.mark.parametrize("count", [1, 3, 10, 70])
def test_targets_that_do_not_vary_have_nothing_to_explain(value, count):
    """10 times 123.456 vary by 8e-25 in float32, whichever way they are averaged."""
    y = torch.full((count,), value)
    noise = torch.randn(count, generator=torch.Generator().manual_seed(0))
    assert reduce.explained_variance(noise, y, torch.ones(count)).item() == 0


def test_means_are_the_means_of_each_and_masked_rows_may_hold_anything():
    x = torch.randn(3, 4, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.0, 0.0], [0.5, 1.0]], dtype=F64)
    x[:, 0, 1] = math.nan
    expected = torch.stack([reduce.mean(row, mask) for row in x])
    torch.testing.assert_close(reduce.means(x, mask), expected)
    assert reduce.means(x, torch.zeros_like(mask)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_precision_is_kept_and_whole_graphs_compile(shipped, dtype):
    def all_of(x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        r = shipped.reduce
        return (
            r.mean(x, mask),
            r.mean(x, mask, mask.sum()),
            r.per_sequence(x, mask),
            r.constant(x, mask, 4),
            r.standardize(x, mask),
            r.explained_variance(x.sin(), x, mask),
        )

    x = torch.linspace(-1, 2, 12, dtype=dtype).view(4, 3)
    mask = (torch.arange(12) % 4 != 0).to(dtype).view(4, 3)
    torch.compiler.reset()
    compiled = torch.compile(all_of, fullgraph=True, backend="eager")(x, mask)
    for got, expected in zip(compiled, all_of(x, mask), strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, expected)
