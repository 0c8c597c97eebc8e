"""Soft actor-critic for continuous actions (Haarnoja et al. 2018, arXiv 1812.05905)."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from pgrad.algorithms.protocol import Critic, Descent, Learner, Metrics, Optimizer, Schedule, SoftAgent
from pgrad.algorithms.soft import alpha, check_replay, due, temper
from pgrad.algorithms.validate import validate
from pgrad.data import Batch, Steps, Trajectory, Transition
from pgrad.math.objectives import squared_error
from pgrad.math.reduce import mean


@dataclass(frozen=True)
class SAC:
    """Maximise E Σ γᵗ (rₜ + α·H(π(·|sₜ))) from replayed transitions; for continuous actions.

    Critics: ½(Q_k(s, a) − y)², y = r + γ·(min_k Q̄_k(s', a') − α log π(a'|s')) with a' ~ π, Q̄ slow copies.
    Actor: E[min_k Q_k(s, ã) − α log π(ã|s)] with ã = reparameterised samples of π, never those replayed.
    Temperature: log α falls where the entropy is above its target, and rises below it.

    The first decisions are the untrained policy's, not uniform. Critics of images share what looks at them.
    """

    learning_rate: float = 3e-4  # step size of the actor, the critics and the temperature
    critic_learning_rate: float | None = None  # step size of the critics, if another
    n_steps: int = 1  # steps of each environment between updates
    gradient_steps: int = -1  # gradient steps per update; -1 is one per decision collected, in all n_envs
    buffer_size: int = 1_000_000  # decisions that are kept for replay
    learning_starts: int = 1_000  # decisions by the untrained policy before the first gradient step
    batch_size: int = 256  # decisions per gradient step
    tau: float = 0.005  # share of the critics that their slow copies take on at every step
    gamma: float = 0.99  # discount γ
    ent_coef: float | Literal["auto"] = "auto"  # temperature α; auto: learned
    target_entropy: float | Literal["auto"] = "auto"  # entropy that α aims at; auto: −1 per action of [−1, 1]
    learning_rate_schedule: Schedule = "constant"  # keep the step sizes, or let them fall to zero
    optimizer: Optimizer = "adam"  # how gradients become steps
    optimizer_eps: float = 1e-8  # ε of √v + ε, which the optimiser divides by
    critic: ClassVar[Critic] = "q"
    actions: ClassVar[str] = "Box"
    max_grad_norm: ClassVar[float] = math.inf
    agent_defaults: ClassVar[dict[str, Any]] = {"net_arch": (256, 256), "activation": "relu"}

    def __post_init__(self) -> None:
        validate(self)

    def collects(self, n_envs: int) -> Steps:
        """A step of every environment, or a few."""
        check_replay(self.buffer_size, self.learning_starts, self.n_steps, n_envs)
        return Steps(self.n_steps)

    @torch.no_grad()
    def credit(self, agent: SoftAgent, replayed: Transition, noise: Generator) -> Batch:
        """The soft Bellman targets y, with actions the policy would take now; eq. (3)."""
        action, logp = agent.policy(replayed.next_obs).rsample(noise)
        soft_value = agent.target_q(replayed.next_obs, action).amin(0) - alpha(agent, self.ent_coef) * logp
        target = replayed.reward + self.gamma * soft_value.masked_fill(replayed.terminated, 0.0)
        return Batch(replayed.obs, replayed.action, replayed.logp, replayed.mask, soft_value, target=target)

    def loss(self, agent: SoftAgent, batch: Batch) -> tuple[Tensor, Metrics]:
        """The critics': Σ_k ½(Q_k(s, a) − y)², eq. (5)."""
        assert batch.target is not None
        q = agent.q(batch.obs, batch.action)  # [2, N]
        loss = mean(0.5 * squared_error(q, batch.target.expand_as(q)).sum(0), batch.mask)
        return loss, {"train/critic_loss": loss.detach(), "train/q": mean(q.detach()[0], batch.mask)}

    def actor_loss(self, agent: SoftAgent, batch: Batch, noise: Generator) -> tuple[Tensor, Metrics]:
        """E[α log π(ã|s) − min_k Q_k(s, ã)], eq. (7)."""
        policy = agent.policy(batch.obs)
        action, logp = policy.rsample(noise)
        loss = mean(alpha(agent, self.ent_coef) * logp - agent.q(batch.obs, action).amin(0), batch.mask)
        entropy = -mean(logp.detach(), batch.mask)
        metrics = {"train/entropy": entropy, "train/entropy_surplus": entropy - self.entropy_target(policy)}
        return loss, {"train/actor_loss": loss.detach()} | metrics

    def entropy_target(self, policy: Any) -> Tensor | float:
        """H̄. Automatic: −1 per action of [−1, 1], and log of the scale more where actions are scaled."""
        if self.target_entropy != "auto":
            return self.target_entropy
        scale: Tensor = (policy.high[0] - policy.low[0]) / 2
        return (scale.log() - 1.0).sum()

    def update(self, learner: Learner, traj: Trajectory) -> Metrics:
        """Store the window; then, once there is enough, gradient steps on replayed transitions."""
        for replayed in due(learner, traj, self.learning_starts, self.gradient_steps, self.batch_size):
            learner.perform(self.gradient_step, replayed, learner.noise)
        return {}

    def gradient_step(self, learner: Descent, replayed: Transition, noise: Generator) -> None:
        """The critics, then the actor by the new critics, then the temperature, then the slow copies."""
        batch = learner.compute(self.credit, replayed, noise)
        learner.descend(self.loss, batch, "critic")
        actor = learner.descend(partial(self.actor_loss, noise=noise), batch, "actor")
        if self.ent_coef == "auto":
            temper(learner, batch, actor)
        learner.follow(self.tau)
