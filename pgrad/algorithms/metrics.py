"""What every policy loss reports, under Stable-Baselines3's names."""

import torch
from torch import Tensor

from pgrad.algorithms.protocol import Metrics
from pgrad.data import Batch
from pgrad.math.kl import approx_kl
from pgrad.math.reduce import explained_variance, mean


@torch.no_grad()
def policy_metrics(batch: Batch, logp: Tensor, entropy: Tensor, objective: Tensor) -> Metrics:
    """KL to the policy that acted, entropy, objective, and the largest |log ratio| (0 on fresh data).

    approx_kl is mean((r − 1) − log r) with r = π/π_old (k3, Schulman 2020).
    """
    log_ratio = torch.where(batch.mask > 0, logp - batch.logp, 0.0)
    return {
        "train/approx_kl": mean(approx_kl(logp, batch.logp), batch.mask),
        "train/entropy_loss": -entropy.detach(),
        "train/policy_gradient_loss": -objective.detach(),
        "train/max_log_ratio": log_ratio.abs().max(),
    }


@torch.no_grad()
def critic_metrics(batch: Batch) -> Metrics:
    """How much of the variance of its targets the critic foresaw, before it learned from them."""
    assert batch.value is not None
    assert batch.target is not None
    return {"train/explained_variance": explained_variance(batch.value, batch.target, batch.mask)}
