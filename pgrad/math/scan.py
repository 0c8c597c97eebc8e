"""The one recurrence behind every return and trace: yₜ = xₜ + decayₜ·yₜ₊₁."""

import torch
from jaxtyping import Float
from torch import Tensor


def reverse_scan(decay: Float[Tensor, "T *B"], x: Float[Tensor, "T *B"]) -> Float[Tensor, "T *B"]:
    """Solve yₜ = xₜ + decayₜ·yₜ₊₁ with y_T = 0, backwards along the first dimension.

    Composes the maps y ↦ x + decay·y in ⌈log₂ T⌉ rounds of doubling: after the round of width k, row t holds
    xₜ + … over the next k rows and a its product of decays. There is no division, so a decay of zero cuts exactly.
    Finite where every product of decays is; differentiable in both arguments. Keeps dtype and shape.

    Hillis & Steele 1986, Data parallel algorithms (the doubling); Blelloch 1990, Prefix sums and their applications,
    section on recurrences (the composition of affine maps).
    """
    T, k, a, y = x.shape[0], 1, decay, x
    while k < T:
        a = a[: T - k]
        y = torch.cat([torch.addcmul(y[: T - k], a, y[k:]), y[T - k :]])
        a = a[:-k] * a[k:]  # rows that reach past the end are never read again
        k *= 2
    return y


def forward_scan(decay: Float[Tensor, "T *B"], x: Float[Tensor, "T *B"]) -> Float[Tensor, "T *B"]:
    """Solve yₜ = xₜ + decayₜ·yₜ₋₁ with y₋₁ = 0: `reverse_scan` of the flipped rows."""
    return reverse_scan(decay.flip(0), x.flip(0)).flip(0)
