"""Sampling and training compute the same policy with different rounding: the gap, and weights for it."""

from dataclasses import replace

import torch
from torch import Tensor

from pgrad.algorithms.protocol import Agent, Metrics, ReferenceAgent
from pgrad.data import Batch, Trajectory
from pgrad.math.importance import step_ratio, truncate
from pgrad.math.kl import approx_kl, largest_exponent
from pgrad.math.reduce import means

RHO_MAX = 2.0
"""The largest weight of a decision that sampling and training see differently, where nobody says."""
SAMPLING = "sampling/"
"""Names of what is measured on fresh data, before any step, begin so; they are TRL's where it has one."""
RATIO = "sampling/importance_sampling_ratio"
"""Weights π_train/μ_sampler: mean, min and max of truncated ones, as TRL has them; raw ones beside them."""
SQUARE = f"{RATIO}/square"


@torch.no_grad()
def rescored(agent: Agent | ReferenceAgent, traj: Trajectory, rho_max: float) -> Trajectory:
    """log π of the policy as training computes it, and min(π/μ, ρ̄) as the weight of each decision.

    The update then begins at ratio 1, and the weight is the truncated importance weight of what the sampler
    did (Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training").
    """
    logp = agent.policy(traj.decisions).log_prob(traj.action)
    return replace(traj, logp=logp, weight=truncate(step_ratio(logp, traj.logp), rho_max))


def weighted(objective: Tensor, batch: Batch) -> Tensor:
    """The objective of each decision times its weight, where it has one."""
    return objective if batch.weight is None else batch.weight * objective


@torch.no_grad()
def sampling_metrics(logp: Tensor, logp_sampler: Tensor, mask: Tensor, rho_max: float = RHO_MAX) -> Metrics:
    """How far log π of training is from log μ of sampling, decision by decision.

    `kl` is k1 of KL(μ‖π), the mean of log μ − log π, and `kl/k3` its k3; prompts and padding have weight 1
    in the extremes. The mean square is for `with_ess`: it can be averaged over the parts of a batch.
    """
    gap = (logp - logp_sampler).masked_fill(mask == 0, 0.0)
    raw = gap.clamp(max=largest_exponent(gap.dtype)).exp()
    used = truncate(raw, rho_max)
    columns = {
        "sampling/sampling_logp_difference/mean": gap.abs(),
        "sampling/kl": -gap,
        "sampling/kl/k3": approx_kl(gap, torch.zeros_like(gap)),
        f"{RATIO}/raw_mean": raw,
        f"{RATIO}/mean": used,
        SQUARE: used.square(),
    }
    each = means(torch.stack(list(columns.values())), mask).unbind()
    return dict(zip(columns, each, strict=True)) | {
        "sampling/sampling_logp_difference/max": gap.abs().max(),
        f"{RATIO}/raw_max": raw.max(),
        f"{RATIO}/max": used.max(),
        f"{RATIO}/min": used.min(),
    }


def with_ess(metrics: dict[str, float]) -> dict[str, float]:
    """The numbers with `sampling/ess` = (E w)²/E w² in place of the mean square of the weights as used.

    That is the effective sample size as a share of the decisions; 1 where there were none.
    """
    if SQUARE not in metrics:
        return metrics
    mean, square = metrics[f"{RATIO}/mean"], metrics[SQUARE]
    kept = {name: x for name, x in metrics.items() if name != SQUARE}
    return kept | {"sampling/ess": mean * mean / square if square else 1.0}
