"""KL divergences: exact from two distributions, or estimated from the log-probabilities of sampled actions.

Estimating the value of a divergence and estimating its gradient are two things: each docstring says which
gradient one gets by differentiating. Unreduced; only `logp` carries a gradient, and "in expectation" means
over its samples.

J. Schulman, "Approximating KL Divergence", 2020 (joschu.net/blog/kl-approx.html) names k1, k2 and k3.
"""

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

    Shao et al., "DeepSeekMath", 2024, eq. 4, use it as GRPO's penalty.
    """
    log_ratio = logp_ref.detach() - logp
    return torch.expm1(log_ratio) - log_ratio


def k3_corrected(
    logp: Float[Tensor, "*batch"], logp_ref: Float[Tensor, "*batch"], logp_old: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """(π/π_old) · ((r − 1) − log r), with r = π_ref(a)/π(a) and a ~ π_old.

    Value: unbiased for KL(π‖π_ref) although the samples are π_old's. Gradient: that of the reverse
    KL(π‖π_ref) in expectation, because the ratio is in the graph; this holds at π = π_old too, where the
    ratio is 1.

    DeepSeek-AI, "DeepSeek-V3.2", 2025, eq. 7.
    """
    return torch.exp(logp - logp_old.detach()) * k3(logp, logp_ref)


def approx_kl(logp: Float[Tensor, "*batch"], logp_old: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(r − 1) − log r ≥ 0, with r = π(a)/π_old(a), a ~ π_old: the metric `train/approx_kl` before its mean.

    Value: unbiased for KL(π_old‖π). It is k3 with the roles swapped: the policy that acted comes first in the
    divergence. Gradient: that of KL(π_old‖π) in expectation.
    """
    log_ratio = logp - logp_old.detach()
    return torch.expm1(log_ratio) - log_ratio
