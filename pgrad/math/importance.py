"""Importance sampling: expectations under π from decisions that μ took. Products are sums of logarithms.

`logp` is log π(aₜ|sₜ) of the policy asked about, `logp_old` log μ(aₜ|sₜ) of the one that acted; all are
[T, *B]. The dynamics cancel, so a product of action ratios is the ratio of trajectory probabilities.
Gradients flow through `logp`. What π does and μ never does is never sampled, and no weight can repair it; the
mean of `trajectory_ratio`, which should be near 1, then estimates the share of π's trajectories that μ can
reach. Ratios end at the root of the largest number of their type (10¹⁹ in float32).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pgrad.math.credit import episode_start, reward_to_go
from pgrad.math.kl import largest_exponent
from pgrad.math.scan import forward_scan, reverse_scan

_LOG_ZERO = -1e4  # stands for log 0: its exp is 0, and being finite it can be cut from the next episode


def step_ratio(logp: Float[Tensor, "*B"], logp_old: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """ρₜ = π(aₜ|sₜ) / μ(aₜ|sₜ): corrects the action at t, but not how sₜ was reached."""
    return _ratio(logp - logp_old)


def prefix_ratio(
    logp: Float[Tensor, " T *B"], logp_old: Float[Tensor, " T *B"], done: Bool[Tensor, " T *B"]
) -> Float[Tensor, " T *B"]:
    """ρ_{0:t} = Π_{k=start}^{t} π(aₖ|sₖ)/μ(aₖ|sₖ), from the first row of t's episode in the window to t.

    E_μ[ρ_{0:t} f(s₀, a₀, …, sₜ, aₜ)] = E_π[f]. Precup, Sutton & Singh 2000.
    """
    return _ratio(_log_prefix(logp, logp_old, done))


def trajectory_ratio(
    logp: Float[Tensor, " T *B"], logp_old: Float[Tensor, " T *B"], done: Bool[Tensor, " T *B"]
) -> Float[Tensor, " T *B"]:
    """ρ(τ) = p_π(τ)/p_μ(τ), the product over all rows of the episode in the window, given to each of them.

    Unbiased for any function of the trajectory; its variance grows exponentially with the length.
    """
    last = torch.cat([done[:-1], torch.ones_like(done[:1])])
    total = _log_prefix(logp, logp_old, done).masked_fill(~last, 0.0)
    return _ratio(reverse_scan((~last).to(total.dtype), total))


def mean_log_ratio(
    logp: Float[Tensor, "T B"], logp_old: Float[Tensor, "T B"], mask: Float[Tensor, "T B"]
) -> Float[Tensor, "T B"]:
    """(1/n) Σₜ log rₜ of every column, at each of its n decisions: the log of the ratios' geometric mean.

    In place of each decision's own log ratio it makes a surrogate one of whole sequences: all decisions of a
    sequence are clipped together, or none (Zheng et al., "Group Sequence Policy Optimization", 2025, eq. 7).
    """
    total = torch.where(mask > 0, mask * (logp - logp_old.detach()), 0.0).sum(0)
    return (total / mask.sum(0).clamp_min(torch.finfo(total.dtype).tiny)).expand_as(logp)


def truncate(ratio: Float[Tensor, "*B"], rho_max: float) -> Float[Tensor, "*B"]:
    """min(ρ, ρ̄): bounded variance, at the price of a bias. Ionides 2008, "Truncated importance sampling"."""
    return ratio.clamp(max=rho_max)


def effective_sample_size(
    weight: Float[Tensor, "*B"], mask: Float[Tensor, "*B"] | None = None
) -> Float[Tensor, ""]:
    """(Σᵢ mᵢ wᵢ)² / Σᵢ mᵢ wᵢ², in [1, N]: how many samples of π the weighted ones are worth; 0 if all are 0.

    m = `mask` is 1 by default and 0 for rows to leave out. Divided by Σ m the result is a fraction in (0, 1];
    with m = p(τ), which sums to 1, it is that fraction: (E w)²/E[w²], or 1/(1 + Var w) where E w = 1.
    Kong 1992; Owen 2013, "Monte Carlo theory, methods and examples", ch. 9.
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
    reward: Float[Tensor, " T *B"],
    logp: Float[Tensor, " T *B"],
    logp_old: Float[Tensor, " T *B"],
    done: Bool[Tensor, " T *B"],
    gamma: float,
) -> Float[Tensor, " T *B"]:
    """Gₜ = Σ_{l=t}^{end} γ^{l−t} ρ_{0:l} r_l: every reward has the ratio of all decisions that led to it.

    With logp detached here and γᵗ from `credit.discount_weight` it gives the exact off-policy gradient

        ∇J(π) = E_μ[ Σₜ γᵗ ∇ log π(aₜ|sₜ) Gₜ ]

    and an episode's first row is an unbiased estimate of J(π), whose derivative through logp is that
    gradient.
    What else may stand for Gₜ, by falling variance:
      trajectory_ratio · full_return    exact, without γᵗ
      trajectory_ratio · reward_to_go   exact
      Gₜ                                exact
      prefix_ratio · reward_to_go       biased: rewards after t keep the distribution of μ, which amounts to
                                        the states of π with the action values of μ; exact with Q of π
      step_ratio · Â                    biased: the states keep the distribution of μ; what PPO uses

    With δ of `credit.td_error` for r, and any V, Gₜ has the mean of Gₜ − ρ_{0:t} V(sₜ) and, the better V is,
    the less variance: after t the V of δ_l and δ_{l+1} cancel in the mean (Jiang & Li 2016, doubly robust,
    with V(s) for Q(s, a)). It also makes up for the end of a window.

    Precup, Sutton & Singh 2000 (per-decision importance sampling); in policy gradients Jie & Abbeel 2010.
    """
    return reward_to_go(prefix_ratio(logp, logp_old, done) * reward, done, gamma)


def _ratio(log: Tensor) -> Tensor:
    """eˣ, but never infinite: 0 times that is NaN, and would reach the episode before."""
    return log.clamp(max=2 * largest_exponent(log.dtype)).exp()


def _log_prefix(logp: Tensor, logp_old: Tensor, done: Tensor) -> Tensor:
    log_ratio = (logp - logp_old).clamp(min=_LOG_ZERO)
    return forward_scan((~episode_start(done)).to(log_ratio.dtype), log_ratio)
