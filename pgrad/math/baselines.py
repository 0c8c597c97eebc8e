"""Baselines: what to subtract from a return. One that does not look at its own decision's action is no bias.

Trajectories are the last dimension: returns [N], or [T, N] for one baseline per time step. `weight` ≥ 0
says how much each counts: 0 for padding (which may hold anything, NaN included), or p(τ) where the
trajectories are an enumeration, so that sums are exact expectations. Where nothing counts the baseline is 0.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def batch_mean(
    ret: Float[Tensor, "*#B N"], weight: Float[Tensor, "*#B N"] | None = None
) -> Float[Tensor, "*#B 1"]:
    """b = Σᵢ wᵢ Rᵢ / Σᵢ wᵢ over the last dimension, which is kept with length 1.

    The mean contains every return it is subtracted from, so E[ĝ] = (1 − 1/N)·∇J: the direction is right, the
    length is not. `leave_one_out_mean` has no such factor. The usual baseline of REINFORCE, Williams 1992.
    """
    weight = torch.ones_like(ret) if weight is None else weight
    return _mean(ret, weight)


def leave_one_out_mean(
    ret: Float[Tensor, "*#B N"], weight: Float[Tensor, "*#B N"] | None = None
) -> Float[Tensor, "*#B N"]:
    """bᵢ = Σ_{j≠i} wⱼ Rⱼ / Σ_{j≠i} wⱼ, the mean of the others: unbiased.

    R − b is `credit.leave_one_out` with one group.
    Kool, van Hoof & Welling 2019, "Buy 4 REINFORCE samples, get a baseline for free!".
    """
    weight = torch.ones_like(ret) if weight is None else weight
    mean, others = _mean(ret, weight), weight.sum(-1, keepdim=True) - weight
    own = torch.where(weight > 0, weight * (mean - ret), 0.0)
    return torch.where(others > 0, mean + own / others, 0.0)


def optimal(
    score_sq: Float[Tensor, "*#B N"],
    ret: Float[Tensor, "*#B N"],
    weight: Float[Tensor, "*#B N"] | None = None,
) -> Float[Tensor, "*#B 1"]:
    """b* = E[‖s‖² R] / E[‖s‖²] over the last dimension, which is kept with length 1; 0 where every score is.

    The constant that minimises the trace of the covariance of s·(R − b); s decides what it is optimal for:
      trajectory    s = Σₜ ∇ log π(aₜ|sₜ) and R the full return, both [N]: the REINFORCE estimator
      single step   s = ∇ log π(aₜ|sₜ) and R the reward-to-go, both [T, N]: each step on its own, which is
                    near the optimum of their sum but not it, for the terms of the sum are correlated
      component     score_sq [P, N], each parameter's squared score, and R [N]: one baseline per parameter
    V(s) is not this baseline. Estimated from the batch it is used on, b* brings a bias of order 1/N, like
    `batch_mean`.

    Weaver & Tao 2001; Greensmith, Bartlett & Baxter 2004; per component Peters & Schaal 2008.
    """
    return _mean(ret, score_sq if weight is None else torch.where(weight > 0, score_sq * weight, 0.0))


def _mean(x: Tensor, weight: Tensor) -> Tensor:
    total = weight.sum(-1, keepdim=True)
    counted = torch.where(weight > 0, weight * x, 0.0)
    return torch.where(total > 0, counted.sum(-1, keepdim=True) / total, 0.0)
