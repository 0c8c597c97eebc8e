"""Importance sampling: expectations under π from decisions that μ took. Products of ratios are sums of logarithms.

`logp` is log π(aₜ|sₜ) of the policy asked about, `logp_old` log μ(aₜ|sₜ) of the one that acted; all are [T, *B].
The dynamics cancel, so a product of action ratios is the ratio of trajectory probabilities. Gradients flow through
`logp`. Support: where π > 0 but μ = 0 nothing is ever sampled, no estimate can see it, and E_μ[ratio] < 1 shows it
(the mean trajectory ratio is the share of π's probability that μ can reach; it should be near 1).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pgrad.math.credit import episode_start, reward_to_go
from pgrad.math.scan import forward_scan, reverse_scan

LOG_ZERO = -1e4  # stands for log 0: finite, so that it can be cut from the next episode, and exp of it is 0


def step_ratio(logp: Float[Tensor, "*B"], logp_old: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """ρₜ = π(aₜ|sₜ) / μ(aₜ|sₜ): corrects the action at t, not how sₜ was reached (first order in π − μ)."""
    return (logp - logp_old).exp()


def prefix_ratio(
    logp: Float[Tensor, "T *B"], logp_old: Float[Tensor, "T *B"], done: Bool[Tensor, "T *B"]
) -> Float[Tensor, "T *B"]:
    """ρ_{0:t} = Π_{k=start}^{t} π(aₖ|sₖ)/μ(aₖ|sₖ), from the first row of t's episode (within the window) to t.

    It makes E_μ[ρ_{0:t} f(s₀, a₀, …, aₜ)] = E_π[f]. Precup, Sutton & Singh 2000.
    """
    return _log_prefix(logp, logp_old, done).exp()


def trajectory_ratio(
    logp: Float[Tensor, "T *B"], logp_old: Float[Tensor, "T *B"], done: Bool[Tensor, "T *B"]
) -> Float[Tensor, "T *B"]:
    """ρ(τ) = p_π(τ)/p_μ(τ), the product over the whole episode (within the window), given to each of its rows.

    Unbiased for any function of the trajectory; its variance grows exponentially with the length.
    """
    last = torch.cat([done[:-1], torch.ones_like(done[:1])])
    total = _log_prefix(logp, logp_old, done).masked_fill(~last, 0.0)
    return reverse_scan((~last).to(total.dtype), total).exp()


def truncate(ratio: Float[Tensor, "*B"], rho_max: float) -> Float[Tensor, "*B"]:
    """min(ρ, ρ̄): bounded variance for a bias towards μ. Ionides 2008, Truncated importance sampling."""
    return ratio.clamp(max=rho_max)


def effective_sample_size(
    weight: Float[Tensor, "*B"], mask: Float[Tensor, "*B"] | None = None
) -> Float[Tensor, ""]:
    """(Σᵢ mᵢ wᵢ)² / Σᵢ mᵢ wᵢ²: how many samples of π itself the weighted ones are worth, in [1, N]; 0 if all are 0.

    m is 1 by default and 0 for rows to leave out. Divide by Σ m for the fraction in (0, 1]; with m = p(τ), which sums
    to 1, the result is that fraction already, (E w)²/E[w²] = 1/(1 + Var w) if E w = 1. Kong 1992; Owen 2013, §9.3.
    """
    if mask is None:
        mask = torch.ones_like(weight)
    weight = weight.masked_fill(mask == 0, 0.0)
    weight = weight / weight.max().clamp(
        min=torch.finfo(weight.dtype).tiny
    )  # squares of large weights overflow
    square = (mask * weight.square()).sum()
    return torch.where(square > 0, (mask * weight).sum().square() / square, 0.0)


def per_decision_return(
    reward: Float[Tensor, "T *B"],
    logp: Float[Tensor, "T *B"],
    logp_old: Float[Tensor, "T *B"],
    done: Bool[Tensor, "T *B"],
    gamma: float,
) -> Float[Tensor, "T *B"]:
    """Σ_{l=t}^{end} γ^{l−t} ρ_{0:l} r_l: reward-to-go in which each reward has the ratio of all that led to it.

    Exact per-decision form of the off-policy gradient, with logp detached here and `discount_weight` for γᵗ:

        ∇J(π) = E_μ[ Σₜ γᵗ ∇ log π(aₜ|sₜ) Σ_{l≥t} γ^{l−t} ρ_{0:l} r_l ]

    and its first row estimates J(π) itself, so differentiating E_μ[row 0] through logp gives the same gradient.
    Other weights for Σₜ γᵗ ∇ log π(aₜ|sₜ) · (…), from high variance to low:
      trajectory_ratio · full_return (without γᵗ), trajectory_ratio · reward_to_go   exact
      this                                                                           exact
      prefix_ratio · reward_to_go     biased: future rewards keep μ's distribution, so it is π's visits with Q of μ
                                      (exact if the return is replaced by Q of π)
      step_ratio · Â                  biased to first order in π − μ: states keep μ's distribution (A2C, PPO)
    Precup, Sutton & Singh 2000 (per-decision importance sampling); as a policy gradient Jie & Abbeel 2010.
    """
    return reward_to_go(prefix_ratio(logp, logp_old, done) * reward, done, gamma)


def _log_prefix(logp: Tensor, logp_old: Tensor, done: Tensor) -> Tensor:
    log_ratio = (logp - logp_old).clamp(min=LOG_ZERO)
    return forward_scan((~episode_start(done)).to(log_ratio.dtype), log_ratio)
