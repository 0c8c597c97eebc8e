"""Staying near a reference policy: the divergence as a part of the reward."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pgrad.data import Trajectory
from pgrad.math import kl


def pays(algorithm: Any) -> bool:
    """Whether rewards are less by the divergence: wherever there is a reference, unless a loss has it."""
    in_reward = getattr(algorithm, "kl", "k1-in-reward") == "k1-in-reward"
    return in_reward and bool(getattr(algorithm, "reference", False))


@torch.no_grad()
def with_penalty(agent: Any, traj: Trajectory, beta: float) -> tuple[Trajectory, Tensor | None]:
    """Rewards with `kl.in_reward` in them, and log π_ref(a|s) [T, B]; all as it is where β is 0.

    The agent has a `reference` where β is not.
    """
    if not beta:
        return traj, None
    logp_ref = agent.reference(traj.decisions).log_prob(traj.action)
    return replace(traj, reward=traj.reward + kl.in_reward(traj.logp, logp_ref, traj.mask, beta)), logp_ref
