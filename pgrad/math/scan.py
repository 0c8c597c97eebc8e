"""The one recurrence behind every return and trace: yₜ = xₜ + decayₜ·yₜ₊₁."""

import torch
from jaxtyping import Float
from torch import Tensor


def reverse_scan(decay: Float[Tensor, " T *B"], x: Float[Tensor, " T *B"]) -> Float[Tensor, " T *B"]:
    """Solve yₜ = xₜ + decayₜ·yₜ₊₁ with y_T = 0, backwards along the first dimension.

    Composes the maps y ↦ x + decay·y in ⌈log₂ T⌉ rounds of doubling. There is no division, so a decay of zero
    cuts exactly; the result is finite if every product of consecutive decays is. Differentiable in both
    arguments; keeps dtype and shape.

    Hillis & Steele 1986, "Data parallel algorithms" (the doubling); Blelloch 1990, "Prefix sums and their
    applications" (recurrences as compositions of affine maps).
    """
    T, k, a, y = x.shape[0], 1, decay, x
    while k < T:  # row t of y: the recurrence over its next k rows; row t of a: the product of their decays
        a = a[: T - k]
        y = torch.cat([torch.addcmul(y[: T - k], a, y[k:]), y[T - k :]])
        a = a[:-k] * a[k:]  # rows that reach past the end are never read again
        k *= 2
    return y


def forward_scan(decay: Float[Tensor, " T *B"], x: Float[Tensor, " T *B"]) -> Float[Tensor, " T *B"]:
    """Solve yₜ = xₜ + decayₜ·yₜ₋₁ with y₋₁ = 0: `reverse_scan` of the flipped rows."""
    return reverse_scan(decay.flip(0), x.flip(0)).flip(0)
