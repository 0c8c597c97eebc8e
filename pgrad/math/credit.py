"""Credit: how good was each decision? Returns, temporal differences, traces and group comparisons.

Shapes are [T, *B], time first; `value` is [T+1, *B], its last row V of the last observation. Two flags,
never one: `terminated` says that the future is worth nothing (it removes the bootstrap), `done` that the
episode ended for whatever reason (it cuts sums and traces); a terminated row is also done. A row that is done
but not terminated was truncated and bootstraps from `value[t+1]`, which is V of the true last observation
because worlds reset one step later. A reset or padding row has done = True: an episode of its own, across
which nothing reaches. The end of the window is a truncation to whatever has a value, and an end to whatever
has none. Results have the dtype of `reward`. Gradients flow to arguments that ask for them.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pgrad.errors import UsageError
from pgrad.math.scan import forward_scan, reverse_scan


class VTrace(NamedTuple):
    """What `vtrace` returns, both [T, *B]."""

    target: Tensor  # vₜ, what the critic should say
    advantage: Tensor  # the weight of ∇ log π(aₜ|sₜ), ratio included


def episode_start(done: Bool[Tensor, " T *B"]) -> Bool[Tensor, " T *B"]:
    """True on the first row of every episode; the first row of the window counts as one."""
    return torch.cat([torch.ones_like(done[:1]), done[:-1]])


def reward_to_go(
    reward: Float[Tensor, " T *B"], done: Bool[Tensor, " T *B"], gamma: float
) -> Float[Tensor, " T *B"]:
    """Gₜ = Σ_{l=t}^{end} γ^{l−t} r_l, the discounted reward from t to the end of its episode (or the window).

    An episode cut by the window or by a time limit lacks its tail, which `n_step_return` and `lambda_return`
    estimate.
    Sutton & Barto 2018, §3.3; in the gradient estimator Williams 1992, Baxter & Bartlett 2001.
    """
    return reverse_scan(_decay(done, reward, gamma), reward)


def full_return(
    reward: Float[Tensor, " T *B"], done: Bool[Tensor, " T *B"], gamma: float
) -> Float[Tensor, " T *B"]:
    """R(τ) = Σ_{l=start}^{end} γ^{l−start} r_l, given to every decision of the episode alike.

    The sum starts at the episode's first row within the window. Σₜ ∇ log π(aₜ|sₜ)·R(τ) is REINFORCE in its
    first form: unbiased for the discounted objective (without γᵗ), with the noise of the past. Williams 1992.
    """
    start = episode_start(done)
    first = reward_to_go(reward, done, gamma).masked_fill(~start, 0.0)
    return forward_scan(_decay(start, reward, 1.0), first)


def discount_weight(
    done: Bool[Tensor, " T *B"], gamma: float, dtype: torch.dtype = torch.float32
) -> Float[Tensor, " T *B"]:
    """γᵗ, with t the steps since the decision's episode began (within the window).

    E Σₜ γᵗ ∇ log π(aₜ|sₜ) Gₜ is the gradient of the discounted objective. Without γᵗ, as in most
    implementations, it is not the gradient of any function if γ < 1. Thomas 2014; Nota & Thomas 2020.
    """
    start = episode_start(done)
    one = start.to(dtype)
    return forward_scan(_decay(start, one, gamma), one)


def td_error(
    reward: Float[Tensor, " T *B"],
    value: Float[Tensor, " T+1 *B"],
    terminated: Bool[Tensor, " T *B"],
    gamma: float,
) -> Float[Tensor, " T *B"]:
    """δₜ = rₜ + γ (1 − terminatedₜ) V(sₜ₊₁) − V(sₜ). Sutton & Barto 2018, §6.1."""
    return reward + gamma * value[1:].masked_fill(terminated, 0.0) - value[:-1]


def n_step_return(
    reward: Float[Tensor, " T *B"],
    value: Float[Tensor, " T+1 *B"],
    terminated: Bool[Tensor, " T *B"],
    done: Bool[Tensor, " T *B"],
    gamma: float,
    n: int,
) -> Float[Tensor, " T *B"]:
    """Gₜ⁽ⁿ⁾ = Σ_{l=0}^{m−1} γˡ rₜ₊ₗ + γᵐ V(sₜ₊ₘ), with m = n, or fewer if the episode or window ends first.

    V(sₜ₊ₘ) counts as 0 if row t+m−1 terminated. n = 1 is the TD target; n ≥ T sums to the end of the episode
    or window, as A2C does. A row is the affine map y ↦ b + a·y; n of them are composed by doubling, one round
    per bit of n.

    Sutton & Barto 2018, §7.1; Mnih et al. 2016 (A3C). Raises UsageError if n < 1.
    """
    if n < 1:
        raise UsageError(f"n of an n-step return must be at least 1, got {n}")
    cut = torch.cat([done[:-1], torch.ones_like(done[:1])])
    b = reward + gamma * value[1:].masked_fill(terminated | ~cut, 0.0)
    a = _decay(cut, reward, gamma)
    y, n, k = value[:-1], min(n, reward.shape[0]), 1
    while k <= n:
        if n & k:
            y = b + a * _ahead(y, k)
        b, a = b + a * _ahead(b, k), a * _ahead(a, k)
        k *= 2
    return y


def gae(
    reward: Float[Tensor, " T *B"],
    value: Float[Tensor, " T+1 *B"],
    terminated: Bool[Tensor, " T *B"],
    done: Bool[Tensor, " T *B"],
    gamma: float,
    gae_lambda: float,
) -> Float[Tensor, " T *B"]:
    """Âₜ = Σ_{l≥0} (γλ)ˡ δₜ₊ₗ, summed to the end of the episode: Âₜ = δₜ + γλ (1 − doneₜ) Âₜ₊₁.

    λ = 0 is `td_error`; λ = 1 the return to the end, bootstrapped where it was not terminated, minus V(sₜ).
    Schulman et al. 2016, "High-dimensional continuous control using generalized advantage estimation",
    eq. (16); its two limits are eqs. (17) and (18).
    """
    return reverse_scan(_decay(done, reward, gamma * gae_lambda), td_error(reward, value, terminated, gamma))


def lambda_return(
    reward: Float[Tensor, " T *B"],
    value: Float[Tensor, " T+1 *B"],
    terminated: Bool[Tensor, " T *B"],
    done: Bool[Tensor, " T *B"],
    gamma: float,
    gae_lambda: float,
) -> Float[Tensor, " T *B"]:
    """Gₜ^λ = Âₜ + V(sₜ) with Â of `gae`: the value target of PPO, also called TD(λ).

    It is the mixture (1−λ) Σ_{n=1}^{M−1} λⁿ⁻¹ Gₜ⁽ⁿ⁾ + λ^{M−1} Gₜ⁽ᴹ⁾ of `n_step_return`, where M rows are left
    in the episode: the last term has the weight of the whole tail. Sutton & Barto 2018, §12.1.
    """
    return gae(reward, value, terminated, done, gamma, gae_lambda) + value[:-1]


def vtrace(
    reward: Float[Tensor, " T *B"],
    value: Float[Tensor, " T+1 *B"],
    terminated: Bool[Tensor, " T *B"],
    done: Bool[Tensor, " T *B"],
    ratio: Float[Tensor, " T *B"],
    gamma: float,
    gae_lambda: float = 1.0,
    rho_max: float = 1.0,
    c_max: float = 1.0,
) -> VTrace:
    """V-trace target and policy-gradient advantage from data of another policy; ratio = π(aₜ|sₜ)/μ(aₜ|sₜ).

        ρₜ = min(ρ̄, ratioₜ)    cₜ = λ min(c̄, ratioₜ)
        vₜ = V(sₜ) + Σ_{l≥t} γ^{l−t} (Π_{i=t}^{l−1} cᵢ) ρₗ δₗ
        Âₜ = ρₜ (rₜ + γ [λ vₜ₊₁ + (1−λ) V(sₜ₊₁)] − V(sₜ))

    The sum stops at `done`; if row t is done or the window's last, V(sₜ₊₁) (0 if terminated) stands for
    vₜ₊₁. At λ = 1 the advantage is the paper's ρₜ (rₜ + γ vₜ₊₁ − V(sₜ)); the mixture extends it to λ < 1 such
    that with ratio = 1 and ρ̄, c̄ ≥ 1 both `advantage` and `target` − V(sₜ) equal `gae`, for every λ.

    Espeholt et al. 2018 (IMPALA): target eq. (1), λ §4.1, advantage §4.2.
    """
    rho, c = ratio.clamp(max=rho_max), ratio.clamp(max=c_max)
    delta = td_error(reward, value, terminated, gamma)
    decay = _decay(done, reward, gamma * gae_lambda)
    correction = reverse_scan(decay * c, rho * delta)  # vₜ − V(sₜ)
    return VTrace(correction + value[:-1], rho * (delta + decay * _ahead(correction, 1)))


def group_relative(
    reward: Float[Tensor, "*B N"],
    num_generations: int,
    scale: bool = True,
    eps: float = 1e-4,
    weight: Float[Tensor, "*B N"] | None = None,
) -> Float[Tensor, "*B N"]:
    """Âᵢ = (rᵢ − mean) / (std + eps) within groups of `num_generations` consecutive entries of the last dim.

    The standard deviation is the population's: it divides by the group size G. A group of equal rewards gives
    exactly 0. Without `scale`, Âᵢ = rᵢ − mean and the expected gradient is (1 − 1/G)·∇J; with it, prompts are
    also weighted by their difficulty. Entries of `weight` 0 (which may be NaN) belong to no group: their Â
    is 0.

    Shao et al. 2024, "DeepSeekMath", §4.1; without the division Liu et al. 2025 (Dr. GRPO).
    Raises UsageError if N is not a multiple of the group size.
    """
    centred, share = _centred_groups(reward, num_generations, weight)
    if scale:
        spread = (share * centred.square()).sum(-1, keepdim=True).sqrt() + eps
        centred = centred / spread.clamp_min(torch.finfo(centred.dtype).tiny)  # 0/0, for eps = 0, is 0
    return centred.flatten(-2)


def leave_one_out(
    reward: Float[Tensor, "*B N"], num_generations: int, weight: Float[Tensor, "*B N"] | None = None
) -> Float[Tensor, "*B N"]:
    """Âᵢ = rᵢ − (1/(G−1)) Σ_{j≠i} rⱼ within groups of G = `num_generations` consecutive entries; unbiased.

    Entries of `weight` 0 (which may be NaN) belong to no group, and one that is alone has nothing to be
    compared with: their Â is 0.

    Kool, van Hoof & Welling 2019, "Buy 4 REINFORCE samples, get a baseline for free!"; Ahmadian et al. 2024
    (RLOO).
    Raises UsageError if G < 2 or N is not a multiple of G.
    """
    if num_generations < 2:
        raise UsageError(f"leave_one_out needs num_generations of at least 2, got {num_generations}")
    centred, share = _centred_groups(reward, num_generations, weight)
    others = 1.0 - share
    return torch.where(others > 0, centred / others, 0.0).flatten(-2)


def _centred_groups(reward: Tensor, size: int, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rewards as [..., groups, size] minus their group's mean, exactly 0 where a group is all equal.

    With them each entry's share of its group's weight.
    """
    if size < 1 or reward.shape[-1] % size:
        raise UsageError(
            f"{reward.shape[-1]} rewards cannot be split into groups of num_generations = {size}"
        )
    groups = torch.unflatten(reward, -1, (-1, size))
    mass = torch.ones_like(groups)
    if weight is not None:
        mass = torch.unflatten(weight.expand_as(reward), -1, (-1, size))
    counted = mass > 0
    first = groups.gather(-1, counted.to(torch.uint8).argmax(-1, keepdim=True))
    groups = torch.where(counted, groups - first, 0.0)  # equal rewards give 0 whatever the mean's rounding
    share = mass / mass.sum(-1, keepdim=True).clamp_min(torch.finfo(mass.dtype).tiny)
    return torch.where(counted, groups - (share * groups).sum(-1, keepdim=True), 0.0), share


def _decay(cut: Tensor, like: Tensor, factor: float) -> Tensor:
    """`factor`, and exactly 0 where `cut`, in the dtype of `like`."""
    return (~cut).to(like.dtype) * factor


def _ahead(x: Tensor, k: int) -> Tensor:
    """Row t+k of x at row t, zero past the end."""
    return torch.cat([x[k:], torch.zeros_like(x[:k])])
