"""Off-policy actor-critic: old windows again, with importance weights (Degris, White & Sutton 2012).

V-trace is Espeholt et al. 2018 (IMPALA, arXiv 1802.01561).
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pgrad.algorithms.critic import critic_metrics, value_loss
from pgrad.algorithms.metrics import COLLAPSE, decision_metrics, weight_metrics
from pgrad.algorithms.protocol import Agent, Critic, Learner, Metrics, Optimizer, Schedule
from pgrad.algorithms.validate import validate
from pgrad.data import Batch, Steps, Trajectory
from pgrad.errors import UsageError
from pgrad.math.credit import discount_weight, gae, td_error, vtrace
from pgrad.math.importance import (
    per_decision_return,
    prefix_ratio,
    step_ratio,
    trajectory_ratio,
)
from pgrad.math.objectives import score_function
from pgrad.math.reduce import mean

Weighting = Literal["vtrace", "step", "prefix", "per-decision", "trajectory"]


@dataclass(frozen=True)
class OffPolicyActorCritic:
    """Ascend E_μ[ w·log π + c·H ], a step on a fresh window, then steps on windows of earlier policies μ.

    With ρₜ = π(aₜ|sₜ)/μ(aₜ|sₜ), products of it from the window's first row of the episode on, and Âₜ by GAE,
    for λ = 1 the return − V(sₜ) that goes on with V where the window or a time limit cuts it, w is
      vtrace        min(ρ̄, ρₜ)·(rₜ + γ·vₜ₊₁ − V(sₜ)), what follows being corrected by truncated ratios
      step          ρₜ·Âₜ: L^CPI, in which states and rewards stay those of μ
      prefix        ρ_{0:t}·Âₜ: states and actions are those of π, rewards after t stay those of μ
      per-decision  Σ_l (γλ)^{l−t}·ρ_{0:l}·δ_l: exact for λ = 1, from the window's first state on
      trajectory    ρ(τ)·Âₜ: exact likewise, with the most variance
    A window begins in mid-episode, in a state of μ, which no ratio within it corrects. The critic steps on
    every window too, towards the V-trace targets v whatever w is; with ρ̄ = c̄ = ∞ they are without bias.
    """

    learning_rate: float = 1e-3  # step size
    weighting: Weighting = "vtrace"  # how decisions of an earlier policy count
    rho_max: float = 1.0  # ρ̄, largest ratio of V-trace's own step: decides which policy the critic judges
    c_max: float = 1.0  # c̄, largest ratio of the steps that follow, at most ρ̄: decides how far it looks
    n_steps: int = 32  # steps of each environment per update, and of a replayed window
    replay_ratio: int = 4  # windows replayed for each one collected; every decision is used once more, fresh
    buffer_size: int = 10_000  # decisions that are kept for replay
    gamma: float = 0.99  # discount γ
    gae_lambda: float = 1.0  # λ of the advantage and the targets: smaller trusts the critic more
    discount_decisions: bool = False  # weigh decision t of an episode by γᵗ, counted within the window
    ent_coef: float = 0.01  # c, weight of the entropy bonus
    max_grad_norm: float = 0.5  # clip each gradient to this norm
    critic_learning_rate: float | None = None  # step size of the critic, if another
    learning_rate_schedule: Schedule = "constant"  # keep the step size, or let it fall to zero
    optimizer: Optimizer = "adam"  # how gradients become steps
    optimizer_eps: float = 1e-5  # ε of √v + ε, which the optimiser divides by
    critic: ClassVar[Critic] = "value"

    def __post_init__(self) -> None:
        validate(self)
        if self.c_max > self.rho_max:
            raise UsageError(
                f"OffPolicyActorCritic: c_max must be at most rho_max, {self.rho_max}, got {self.c_max}"
            )

    def collects(self, n_envs: int) -> Steps:
        """A window of every environment, for which the replay has room."""
        if self.buffer_size < self.n_steps * n_envs:
            raise UsageError(
                f"buffer_size {self.buffer_size} is less than one window of every environment, n_steps · "
                f"n_envs = {self.n_steps} · {n_envs} = {self.n_steps * n_envs}"
            )
        return Steps(self.n_steps)

    @torch.no_grad()
    def credit(self, agent: Agent, traj: Trajectory) -> Batch:
        """The weight of every ∇log π, and V-trace targets, under the policy and the critic as they are."""
        value, logp = agent.value(traj.obs), agent.policy(traj.decisions).log_prob(traj.action)
        ratio = step_ratio(logp, traj.logp)
        facts = (traj.reward, value, traj.terminated, traj.done)
        trace = vtrace(*facts, ratio, self.gamma, self.gae_lambda, self.rho_max, self.c_max)
        advantage = gae(*facts, self.gamma, self.gae_lambda)
        match self.weighting:
            case "vtrace":
                weight, advantage = ratio, trace.advantage
            case "step":
                weight, advantage = ratio, ratio * advantage
            case "prefix":
                weight = prefix_ratio(logp, traj.logp, traj.done)
                advantage = weight * advantage
            case "per-decision":
                weight = prefix_ratio(logp, traj.logp, traj.done)
                delta = td_error(traj.reward, value, traj.terminated, self.gamma)
                decay = self.gamma * self.gae_lambda
                advantage = per_decision_return(delta, logp, traj.logp, traj.done, decay)
            case "trajectory":
                weight = trajectory_ratio(logp, traj.logp, traj.done)
                advantage = weight * advantage
        if self.discount_decisions:
            advantage = advantage * discount_weight(traj.done, self.gamma, advantage.dtype)
        own = (traj.decisions, traj.action, traj.logp, traj.mask)
        return Batch(*own, advantage, value[:-1], trace.target, weight=weight)

    def loss(self, agent: Agent, batch: Batch) -> tuple[Tensor, Metrics]:
        """The actor's: the weighted score function and the entropy bonus, to be descended."""
        assert batch.weight is not None
        policy = agent.policy(batch.obs)
        logp = policy.log_prob(batch.action)
        objective = score_function(logp, batch.advantage)
        entropy = policy.entropy()
        loss = -mean(objective + self.ent_coef * entropy, batch.mask)
        metrics = {
            "train/policy_gradient_loss": -objective,
            "train/entropy_loss": -entropy,
            "train/truncated_share": (step_ratio(logp, batch.logp) > self.rho_max).to(logp.dtype),
        }
        limit = self.rho_max if self.weighting == "vtrace" else math.inf
        metrics = decision_metrics(batch, logp, metrics) | weight_metrics(batch.weight, batch.mask, limit)
        return loss, metrics | {"train/loss": loss.detach()}

    def update(self, learner: Learner, traj: Trajectory) -> Metrics:
        """Actor and critic step on the fresh window, then on sets of as many replayed ones."""
        learner.replay.add(traj)
        fresh = batch = learner.compute(self.credit, traj)
        used, steps = torch.zeros_like(fresh.mask.sum()), []
        for i in range(1 + self.replay_ratio):
            if i > 0:
                windows = learner.replay.windows(fresh.mask.shape[1], self.n_steps, learner.generator)
                batch = learner.compute(self.credit, windows)
            steps.append(learner.descend(self.loss, batch, "actor"))
            learner.descend(value_loss, batch, "critic")
            used += batch.mask.sum()
        uses = used / fresh.mask.sum().clamp(min=1.0)
        return critic_metrics(learner, fresh) | replay_metrics(steps) | {"train/uses_per_decision": uses}


def replay_metrics(steps: list[Metrics]) -> Metrics:
    """How far off-policy the replayed steps of an update were: all but the first, if there are more."""
    ess, largest, kl, truncated = (
        torch.stack([metrics[f"train/{name}"] for metrics in steps[1:] or steps])
        for name in ("ess", "max_ratio", "approx_kl", "truncated_share")
    )
    return {
        "train/ess": ess.mean(),
        "train/ess_collapsed": (ess.mean() < COLLAPSE).to(ess.dtype),
        "train/max_ratio": largest.max(),
        "train/kl_behaviour": kl.mean(),
        "train/truncated_share": truncated.mean(),
    }
