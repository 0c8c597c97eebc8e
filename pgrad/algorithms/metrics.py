"""What every policy loss reports, under Stable-Baselines3's names."""

import torch
from torch import Tensor

from pgrad.algorithms.protocol import Metrics
from pgrad.data import Batch
from pgrad.math.kl import approx_kl
from pgrad.math.reduce import means


@torch.no_grad()
def decision_metrics(batch: Batch, logp: Tensor, decisions: Metrics) -> Metrics:
    """The mean of each number per decision, the KL to the policy that acted, and the largest |log ratio|.

    approx_kl is mean((r − 1) − log r) with r = π/π_old (k3, Schulman 2020). The log ratio is 0 on fresh data.
    """
    decisions = {"train/approx_kl": approx_kl(logp, batch.logp)} | decisions
    each = means(torch.stack(list(decisions.values())), batch.mask).unbind()
    log_ratio = (logp - batch.logp).masked_fill(batch.mask == 0, 0.0)
    return dict(zip(decisions, each, strict=True)) | {"train/max_log_ratio": log_ratio.abs().max()}
