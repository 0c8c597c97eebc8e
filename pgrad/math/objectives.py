"""Objectives: one number per decision, unreduced and with the paper's sign.

Policy objectives are maximised, value errors minimised; `reduce` averages them, once, in an algorithm's loss.
Gradients flow through `logp` and `value` only: advantages, targets and everything "old" are constants here.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def score_function(
    logp: Float[Tensor, "*batch"], advantage: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """log π(aₜ|sₜ) · Âₜ, to be maximised. Its gradient is the policy gradient's Âₜ · ∇log π(aₜ|sₜ).

    Its value means nothing: only the gradient does. For samples from π itself.

    Williams, "Simple statistical gradient-following algorithms", 1992; L^PG in Schulman et al., "Proximal
    Policy Optimization Algorithms", 2017, eq. 2.
    """
    return logp * advantage.detach()


def importance_weighted(
    logp: Float[Tensor, "*batch"], logp_old: Float[Tensor, "*batch"], advantage: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """rₜ · Âₜ with rₜ = π(aₜ|sₜ) / π_old(aₜ|sₜ), to be maximised: L^CPI, for samples from π_old.

    Its gradient is rₜ · Âₜ · ∇log π: the score function's at π = π_old, and no policy gradient away from it,
    because states are still visited, and advantages measured, under π_old.

    Schulman et al., "Proximal Policy Optimization Algorithms", 2017, eq. 6 (after Kakade & Langford, 2002).
    """
    return torch.exp(logp - logp_old.detach()) * advantage.detach()


def clipped(
    logp: Float[Tensor, "*batch"],
    logp_old: Float[Tensor, "*batch"],
    advantage: Float[Tensor, "*batch"],
    clip_low: float | Tensor,
    clip_high: float | Tensor,
) -> Float[Tensor, "*batch"]:
    """min(rₜ·Âₜ, clip(rₜ, 1 − clip_low, 1 + clip_high)·Âₜ), to be maximised: L^CLIP, never above L^CPI.

    A decision stops pulling once its own ratio has left the interval in the direction its advantage asks for.
    That takes an incentive away; it does not bound the ratio, which other decisions may go on moving.

    The ranges are both floats or both 0-dim tensors (a schedule under compilation). PPO has clip_low =
    clip_high; DAPO's "clip-higher" has clip_high > clip_low.

    Schulman et al., "Proximal Policy Optimization Algorithms", 2017, eq. 7; Yu et al., "DAPO", 2025
    (clip-higher).
    """
    advantage = advantage.detach()
    ratio = torch.exp(logp - logp_old.detach())
    clipped_ratio = torch.clamp(ratio.detach(), 1.0 - clip_low, 1.0 + clip_high)  # type: ignore[arg-type]
    surrogate, bound = ratio * advantage, clipped_ratio * advantage
    # Where both are equal the gradient is that of the surrogate.
    return torch.where(surrogate > bound, bound, surrogate)


def truncated_score(
    logp: Float[Tensor, "*batch"],
    logp_old: Float[Tensor, "*batch"],
    advantage: Float[Tensor, "*batch"],
    clip_low: float | Tensor,
    clip_high: float | Tensor,
) -> Float[Tensor, "*batch"]:
    """clip(rₜ, 1 − clip_low, 1 + clip_high) · Âₜ · log π(aₜ|sₜ), to be maximised; the weight is a constant.

    No decision ever loses its gradient, as under `clipped`: it is only bounded how much one counts. Within
    the bounds the gradient is that of `importance_weighted`.

    MiniMax, "MiniMax-M1", 2025, eq. 4 (CISPO).
    """
    ratio = torch.exp(logp - logp_old).detach()
    weight = torch.clamp(ratio, 1.0 - clip_low, 1.0 + clip_high)  # type: ignore[arg-type]
    return weight * advantage.detach() * logp


def squared_error(value: Float[Tensor, "*batch"], target: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """(V(sₜ) − yₜ)², to be minimised, with yₜ a constant: the semi-gradient.

    There is no ½: `vf_coef` = ½ makes it the textbook's ½(V − y)². Left in the graph, a bootstrapped target
    would turn this into the Bellman residual, whose minimiser is not V^π in a stochastic world.

    Schulman et al., "Proximal Policy Optimization Algorithms", 2017, L^VF of eq. 9.
    """
    return (value - target.detach()).square()


def clipped_squared_error(
    value: Float[Tensor, "*batch"],
    value_old: Float[Tensor, "*batch"],
    target: Float[Tensor, "*batch"],
    clip_range: float | Tensor,
) -> Float[Tensor, "*batch"]:
    """max((V − y)², (V_old + clip(V − V_old, −clip_range, clip_range) − y)²), to be minimised.

    Optional, and often harmful: `clip_range` is in units of value, so it depends on the scale of the reward.

    Not in the PPO paper: OpenAI baselines, `ppo2`. Andrychowicz et al., "What Matters for On-Policy Deep
    Actor-Critic Methods?", 2021, find that it hurts.
    """
    value_old, target = value_old.detach(), target.detach()
    near = value_old + torch.clamp(value - value_old, -clip_range, clip_range)  # type: ignore[arg-type]
    return torch.maximum((value - target).square(), (near - target).square())
