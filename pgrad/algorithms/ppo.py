"""Proximal policy optimisation with a clipped objective (Schulman et al. 2017, arXiv 1707.06347)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pgrad.algorithms.critic import critic_metrics, gae_credit
from pgrad.algorithms.metrics import decision_metrics, normalized
from pgrad.algorithms.protocol import Agent, Critic, Learner, Metrics, Optimizer, Schedule
from pgrad.algorithms.validate import check_batch_size, validate
from pgrad.data import Batch, Steps, Trajectory
from pgrad.math.objectives import clipped, clipped_squared_error, squared_error
from pgrad.math.reduce import mean


@dataclass(frozen=True)
class PPO:
    """Ascend E[ min(r·Â, clip(r, 1−ε, 1+ε)·Â) − c₁·(V − V̂)² + c₂·H ] for several epochs (eq. 7 and 9).

    r = π/π_old; Â by generalised advantage estimation; V̂ = Â + V_old.
    """

    learning_rate: float = 3e-4  # step size
    n_steps: int = 256  # steps of each environment per update
    batch_size: int = 64  # decisions per minibatch
    n_epochs: int = 10  # passes over each rollout
    gamma: float = 0.99  # discount γ
    gae_lambda: float = 0.95  # λ of the advantage: 0 is the TD error, 1 is return − V
    clip_range: float = 0.2  # ε: a ratio further than this from 1 earns nothing
    clip_range_vf: float | None = None  # clip the change of the critic likewise (often harmful)
    normalize_advantage: bool = True  # standardise advantages within each minibatch
    recompute_advantage: bool = False  # estimate advantages anew, by the newer critic, before each pass
    ent_coef: float = 0.01  # c₂, weight of the entropy bonus
    vf_coef: float = 0.5  # c₁, weight of the critic's squared error
    max_grad_norm: float = 0.5  # clip the gradient to this norm
    target_kl: float | None = None  # end the passes after the step that finds approx_kl over 1.5 times this
    critic_learning_rate: float | None = None  # step size of the critic, if another
    learning_rate_schedule: Schedule = "constant"  # keep the step size, or let it fall to zero
    clip_range_schedule: Schedule = "constant"  # keep ε, or let it fall to zero
    optimizer: Optimizer = "adam"  # how gradients become steps
    critic: ClassVar[Critic] = "value"

    def __post_init__(self) -> None:
        validate(self)

    def collects(self, n_envs: int) -> Steps:
        """A window of every environment, divided by the minibatches."""
        check_batch_size(self.n_steps, n_envs, self.batch_size)
        return Steps(self.n_steps)

    def credit(self, agent: Agent, traj: Trajectory) -> Batch:
        """Generalised advantage estimation and TD(λ) targets."""
        return gae_credit(agent, traj, self.gamma, self.gae_lambda)

    def loss(self, agent: Agent, batch: Batch) -> tuple[Tensor, Metrics]:
        """The clipped surrogate, the critic's error and the entropy bonus, to be descended."""
        policy = agent.policy(batch.obs)
        logp = policy.log_prob(batch.action)
        advantage = normalized(batch) if self.normalize_advantage else batch.advantage
        objective = clipped(logp, batch.logp, advantage, self.clip_range, self.clip_range)
        value_error = self.value_error(agent.value(batch.obs), batch)
        entropy = policy.entropy()
        total = self.vf_coef * value_error - objective - self.ent_coef * entropy
        loss = mean(total, batch.mask, batch.decisions)

        outside = ((logp - batch.logp).exp() - 1.0).abs() > self.clip_range
        metrics = {
            "train/policy_gradient_loss": -objective,
            "train/value_loss": value_error,
            "train/entropy_loss": -entropy,
            "train/clip_fraction": outside.to(logp.dtype),
        }
        return loss, decision_metrics(batch, logp, metrics) | {"train/loss": loss.detach()}

    def value_error(self, value: Tensor, batch: Batch) -> Tensor:
        """(V − V̂)² per decision, its change clipped where asked for."""
        assert batch.target is not None
        assert batch.value is not None
        if self.clip_range_vf is None:
            return squared_error(value, batch.target)
        return clipped_squared_error(value, batch.value, batch.target, self.clip_range_vf)

    def update(self, learner: Learner, traj: Trajectory) -> Metrics:
        """Epochs of shuffled minibatches over one rollout."""
        batch = self.credit(learner.agent, traj).flatten()
        left = 1.0 - learner.progress if self.clip_range_schedule == "linear" else 1.0
        now = replace(self, clip_range=max(self.clip_range * left, 1e-8))
        for minibatch in self.passes(learner, traj, batch):
            metrics = learner.descend(now.loss, minibatch)
            if self.target_kl is not None and metrics["train/approx_kl"] > 1.5 * self.target_kl:
                break
        return critic_metrics(batch) | {"train/clip_range": torch.tensor(now.clip_range)}

    def passes(self, learner: Learner, traj: Trajectory, batch: Batch) -> Iterator[Batch]:
        """The minibatches of every pass."""
        for epoch in range(self.n_epochs):
            if epoch > 0 and self.recompute_advantage:
                batch = replace(self.credit(learner.agent, traj).flatten(), value=batch.value)
            yield from learner.minibatches(batch, self.batch_size)
