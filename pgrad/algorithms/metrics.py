"""What every policy loss reports, under Stable-Baselines3's names, and what importance weights leave."""

import math

import torch
from torch import Tensor

from pgrad.algorithms.protocol import Metrics
from pgrad.algorithms.sampler import sampling_metrics
from pgrad.data import Batch, Tokens
from pgrad.math.distributions import Distribution
from pgrad.math.importance import effective_sample_size, truncate
from pgrad.math.kl import approx_kl, k1, k3
from pgrad.math.reduce import mean, means, standardize

COLLAPSE = 0.1
"""Replayed data that are worth a smaller share of their number than this are used up."""


@torch.no_grad()
def normalized(batch: Batch) -> Tensor:
    """The advantages, standardised over the batch; over the whole, where this is a part of one."""
    if batch.whole is None:
        return standardize(batch.advantage, batch.mask)
    return (batch.advantage - batch.whole.mean) / (batch.whole.deviation + 1e-8)


def entropy_of(policy: Distribution, ent_coef: float) -> Tensor:
    """The entropy of every decision; where nothing is paid for it no gradient, which would only cost time."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and ent_coef != 0.0):
        return policy.entropy()


@torch.no_grad()
def decision_metrics(batch: Batch, logp: Tensor, decisions: Metrics) -> Metrics:
    """The mean of each number per decision, the KL to the policy that acted, and the largest |log ratio|.

    approx_kl is mean((r − 1) − log r) with r = π/π_old (k3, Schulman 2020). The log ratio is 0 on fresh data.
    Where there is a reference the KL to it is told by its k1 and its k3, of the policy that acted: k1 of a
    policy that has moved since, on decisions that it did not take, is KL(π_old‖π_ref) − KL(π_old‖π), which
    may be anything. On tokens, how the sampler differs.
    """
    decisions = {"train/approx_kl": approx_kl(logp, batch.logp)} | decisions
    if batch.logp_ref is not None:
        decisions |= {"kl": k1(batch.logp, batch.logp_ref), "kl/k3": k3(batch.logp, batch.logp_ref)}
    each = means(torch.stack(list(decisions.values())), batch.mask).unbind()
    log_ratio = (logp - batch.logp).masked_fill(batch.mask == 0, 0.0)
    metrics = dict(zip(decisions, each, strict=True)) | {"train/max_log_ratio": log_ratio.abs().max()}
    if isinstance(batch.obs, Tokens) and batch.weight is None:  # with weights logp is not the sampler's
        metrics |= sampling_metrics(logp, batch.logp, batch.mask)
    return metrics


@torch.no_grad()
def weight_metrics(weight: Tensor, mask: Tensor, rho_max: float = math.inf) -> Metrics:
    """The effective sample size as a share of the decisions, and the largest weight; 1 and 1 if all are 1.

    The size is that of the weights as they are used, truncated at ρ̄; the largest is before that.
    """
    share = effective_sample_size(truncate(weight, rho_max), mask) / mask.sum()
    largest = weight.masked_fill(mask == 0, 0.0).max()
    return {"train/ess": torch.where(mask.sum() > 0, share, 1.0), "train/max_ratio": largest}


@torch.no_grad()
def reuse_metrics(batch: Batch, n_fresh: int) -> Metrics:
    """What the weights leave of the columns after the first `n_fresh`, or of all if there are no others.

    The largest |log ratio|, by which a learner checks that π is the policy that acted, is of the fresh ones,
    and so is the KL to a reference, for which π must have acted. Of a whole batch: columns of a part of one
    may stand in any order.
    """
    assert batch.weight is not None
    assert batch.logp_now is not None
    logp, fresh = batch.logp_now, batch.mask[:, :n_fresh]
    first = n_fresh if batch.mask.shape[1] > n_fresh else 0
    kl, weight, mask = (x[:, first:] for x in (approx_kl(logp, batch.logp), batch.weight, batch.mask))
    log_ratio = (logp - batch.logp)[:, :n_fresh].masked_fill(fresh == 0, 0.0)
    own = weight_metrics(weight, mask)
    if batch.logp_ref is not None:
        ratios = batch.logp[:, :n_fresh], batch.logp_ref[:, :n_fresh]
        own |= {"kl": mean(k1(*ratios), fresh), "kl/k3": mean(k3(*ratios), fresh)}
    return own | {
        "train/ess_collapsed": (own["train/ess"] < COLLAPSE).to(weight.dtype),
        "train/kl_behaviour": mean(kl, mask),
        "train/max_log_ratio": log_ratio.abs().max(),
    }
