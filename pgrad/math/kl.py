"""KL divergences: exact from two distributions, or estimated from the log-probabilities of sampled actions.

Estimating the value of a divergence and estimating its gradient are two things: each docstring says which
gradient one gets by differentiating. Unreduced; only `logp` carries a gradient, and "in expectation" means
over its samples.

J. Schulman, "Approximating KL Divergence", 2020 (joschu.net/blog/kl-approx.html) names k1, k2 and k3.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pgrad.math.distributions import Distribution


def exact(p: Distribution, q: Distribution) -> Tensor:
    """KL(p‖q) = Σₐ p(a) (log p(a) − log q(a)) ≥ 0, [...], by the closed form of the two distributions."""
    return p.kl(q)


def k1(logp: Float[Tensor, "*batch"], logp_ref: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """−log r = log π(a) − log π_ref(a), with r = π_ref(a)/π(a) and a ~ π.

    Value: unbiased for KL(π‖π_ref), of either sign, high variance. Gradient: zero in expectation, because
    E[∇log π] = 0: as a loss it only adds noise. It belongs in the reward.
    """
    return logp - logp_ref.detach()


def k2(logp: Float[Tensor, "*batch"], logp_ref: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(log r)²/2, with r = π_ref(a)/π(a) and a ~ π.

    Value: biased, low variance, right to second order in log r. Gradient: that of the reverse KL(π‖π_ref) in
    expectation, E[(log π − log π_ref) ∇log π].
    """
    return 0.5 * (logp - logp_ref.detach()).square()


def k3(logp: Float[Tensor, "*batch"], logp_ref: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(r − 1) − log r ≥ 0, with r = π_ref(a)/π(a) and a ~ π.

    Value: unbiased for KL(π‖π_ref) where π > 0 wherever π_ref > 0. Its variance is usually below k1's, but
    explodes where π is small and π_ref is not. Gradient: that of the *forward* KL(π_ref‖π) in expectation.

    r is exact up to e²² in float32 and a line in log r from there on: finite, and it still pulls back.

    Shao et al., "DeepSeekMath", 2024, eq. 4, use it as GRPO's penalty.
    """
    log_ratio = logp_ref.detach() - logp
    return _bounded(torch.expm1, log_ratio) - log_ratio


def k3_corrected(
    logp: Float[Tensor, "*batch"], logp_ref: Float[Tensor, "*batch"], logp_old: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """(π/π_old) · ((r − 1) − log r), with r = π_ref(a)/π(a) and a ~ π_old.

    Value: unbiased for KL(π‖π_ref) although the samples are π_old's. Gradient: that of the reverse
    KL(π‖π_ref) in expectation, because the ratio is in the graph; this holds at π = π_old too, where the
    ratio is 1.

    DeepSeek-AI, "DeepSeek-V3.2", 2025, eq. 7.
    """
    return _bounded(torch.exp, logp - logp_old.detach()) * k3(logp, logp_ref)


def approx_kl(logp: Float[Tensor, "*batch"], logp_old: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(r − 1) − log r ≥ 0, with r = π(a)/π_old(a), a ~ π_old: the metric `train/approx_kl` before its mean.

    Value: unbiased for KL(π_old‖π). It is k3 with the roles swapped: the policy that acted comes first in the
    divergence. Gradient: that of KL(π_old‖π) in expectation.
    """
    log_ratio = logp - logp_old.detach()
    return _bounded(torch.expm1, log_ratio) - log_ratio


def in_reward(
    logp: Float[Tensor, "*batch"],
    logp_ref: Float[Tensor, "*batch"],
    mask: Float[Tensor, "*batch"],
    beta: float,
) -> Float[Tensor, "*batch"]:
    """−β·(log π(aₜ) − log π_ref(aₜ)), 0 where `mask` is: what every decision pays for leaving π_ref.

    A constant, to be added to the rewards: the policy gradient of E[Σₜ rₜ] with it is that of E[Σₜ rₜ] −
    β·KL(π‖π_ref) of whole trajectories, because a decision also answers for the states that it leads to.
    """
    return torch.where(mask > 0, -beta * k1(logp, logp_ref), 0.0).detach()


def largest_exponent(dtype: torch.dtype) -> float:
    """A quarter of the x at which eˣ overflows: 22 in float32, 177 in float64."""
    return math.log(torch.finfo(dtype).max) / 4


def _bounded(exponential: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """eˣ (or eˣ − 1), and from `largest_exponent` on its tangent: no infinity, nor an infinity times 0."""
    largest = largest_exponent(x.dtype)
    return exponential(x.clamp(max=largest)) + math.exp(largest) * torch.relu(x - largest)
