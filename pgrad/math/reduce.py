"""Averages over decisions: the only averaging in the library.

`mask` is the weight m ≥ 0 of each decision: 0 or 1 in training, p(τ) when a laboratory enumerates
trajectories. Rows of weight 0 may hold anything, NaN included: they reach neither the result nor a gradient
with respect to `x`. Where all weights are 0 a mean is 0.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Denominator = float | int | Tensor
"""A positive number or 0-dim tensor; 0 where nothing has weight, and then the mean is 0."""


def mean(
    x: Float[Tensor, "*batch"], mask: Float[Tensor, "*batch"], denominator: Denominator | None = None
) -> Float[Tensor, ""]:
    """Σ m·x / Σ m over all decisions; every decision counts the same.

    With `denominator` the sum is divided by that instead of Σ m: give every part of a batch (microbatch,
    rank) the whole batch's Σ m, and the parts' results and gradients add up to the whole's, however it was
    split.

    Over the tokens of a batch it is DAPO's "token-level" loss (Yu et al., "DAPO", 2025).
    """
    return _sum(x, mask / _divisor(mask.sum() if denominator is None else denominator, mask))


def means(x: Float[Tensor, " K *batch"], mask: Float[Tensor, "*batch"]) -> Float[Tensor, " K"]:
    """`mean` of each of K stacked numbers per decision, for reports."""
    kept = x.masked_fill(mask.logical_not(), 0.0) * mask
    return kept.flatten(1).sum(1) / _positive(mask.sum())


def per_sequence(
    x: Float[Tensor, "T B"], mask: Float[Tensor, "T B"], denominator: Denominator | None = None
) -> Float[Tensor, ""]:
    """(1/B) Σ_b (Σₜ m·x / Σₜ m): the mean over columns of their means; every sequence counts the same.

    Each column is one sequence. A column without weight is left out, of B too. A column weighs as its
    heaviest decision: 1 for a 0/1 mask, p(τ) in an enumeration. `denominator` replaces B: the number of
    sequences in the whole batch, of which this is a part.

    The 1/|oᵢ| of GRPO (Shao et al., "DeepSeekMath", 2024, eq. 3). A decision in a long sequence counts for
    less, which favours short right answers and long wrong ones (Liu et al., "Understanding R1-Zero-Like
    Training", 2025).
    """
    column = mask.amax(0)
    column = column / _divisor(column.sum() if denominator is None else denominator, mask)
    return _sum(x, mask * (column / _positive(mask.sum(0))))


def constant(
    x: Float[Tensor, "*batch"], mask: Float[Tensor, "*batch"], denominator: Denominator
) -> Float[Tensor, ""]:
    """Σ m·x / denominator, a number that the data do not change.

    The number of episodes gives REINFORCE's mean over episodes of the sum over decisions; the number of
    sequences times the longest allowed length gives Dr. GRPO (Liu et al., "Understanding R1-Zero-Like
    Training", 2025).
    """
    return _sum(x, mask / _divisor(denominator, mask))


def standardize(
    x: Float[Tensor, "*batch"], mask: Float[Tensor, "*batch"], eps: float = 1e-8
) -> Float[Tensor, "*batch"]:
    """(x − mean) / (std + eps) over the decisions with weight; rows of weight 0 become 0.

    `std` is the population's, √(Σ m·(x − mean)² / Σ m), which weights other than 0 and 1 need: smaller than
    torch's default by √((N−1)/N). A single decision has no spread and is returned as it is, as
    Stable-Baselines3 does.
    """
    weight = mask / _positive(mask.sum())
    centred = _centred(x, weight)
    scaled = centred / (_spread(centred, weight) + eps)
    return torch.where(mask.count_nonzero() > 1, scaled, x).masked_fill(mask.logical_not(), 0.0)


def deviation(x: Float[Tensor, "*batch"], mask: Float[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """√(Σ m·(x − mean)² / Σ m), the population's standard deviation of what has weight."""
    weight = mask / _positive(mask.sum())
    return _spread(_centred(x, weight), weight)


def explained_variance(
    prediction: Float[Tensor, "*batch"], target: Float[Tensor, "*batch"], mask: Float[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """1 − Var[y − v] / Var[y]: 1 is perfect, 0 is no better than a constant, negative is worse than one.

    0 where the targets do not vary (to the precision of their type): there is nothing to explain.
    """
    weight = mask / _positive(mask.sum())
    variance = _sum(_centred(target, weight).square(), weight)
    residual = _sum(_centred(target - prediction, weight).square(), weight)
    rounding = _sum(target.square(), weight) * torch.finfo(target.dtype).eps ** 2
    return torch.where(variance > rounding, 1.0 - residual / _positive(variance), 0.0)


def _spread(centred: Tensor, weight: Tensor) -> Tensor:
    """√(Σ weight·centred²)."""
    return (centred.square() * weight).sum().sqrt()


def _sum(x: Tensor, weight: Tensor) -> Tensor:
    """Σ weight·x, in which 0·NaN is 0."""
    return (x.masked_fill(weight.logical_not(), 0.0) * weight).sum()


def _divisor(denominator: Denominator, mask: Tensor) -> Denominator:
    """A denominator made safe, for a batch in which nothing has weight."""
    if isinstance(denominator, Tensor):
        return _positive(denominator)
    return max(denominator, torch.finfo(mask.dtype).tiny)


def _positive(x: Tensor) -> Tensor:
    """A divisor ≥ 0 made safe: 0/0 becomes 0."""
    return x.clamp_min(torch.finfo(x.dtype).tiny)


def _centred(x: Tensor, weight: Tensor) -> Tensor:
    """x − mean. Centred twice, so that equal numbers give 0 and not the rounding error of their mean."""
    x = x.masked_fill(weight.logical_not(), 0.0)
    once = x - (x * weight).sum()
    return once - (once * weight).sum()
