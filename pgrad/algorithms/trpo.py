"""Trust region policy optimisation (Schulman et al. 2015, arXiv 1502.05477)."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor

from pgrad.algorithms.critic import critic_metrics, gae_credit, value_loss
from pgrad.algorithms.metrics import decision_metrics
from pgrad.algorithms.protocol import Agent, Critic, Learner, Metrics, Optimizer, Schedule
from pgrad.algorithms.validate import check_batch_size, validate
from pgrad.data import Batch, Steps, Trajectory, map_tree
from pgrad.errors import UsageError
from pgrad.math.natural import (
    conjugate_gradient,
    fisher_vector_product,
    flat_gradient,
    trust_region_scale,
)
from pgrad.math.objectives import importance_weighted
from pgrad.math.reduce import mean, standardize


@dataclass(frozen=True)
class TRPO:
    """Maximise E[ r·Â ] subject to E[KL(π_old ‖ π)] ≤ δ, once per rollout (eq. 14); then fit the critic.

    x ≈ F⁻¹g by conjugate gradients, the full step √(2δ/xᵀFx)·x, and the first of its fractions 1, β, β², …
    that improves the surrogate and keeps the KL. If none does, no parameter changes. Without a line search
    (line_search_max_iter=0) it is the natural policy gradient (Kakade 2001), which keeps the KL to second
    order only.
    """

    target_kl: float = 0.01  # δ, the KL that one update may cost
    n_steps: int = 256  # steps of each environment per update
    cg_max_steps: int = 15  # steps of conjugate gradients
    cg_damping: float = 0.1  # added to the diagonal of the Fisher matrix
    line_search_max_iter: int = 10  # fractions of the full step that are tried; 0 takes it without trying
    line_search_shrinking_factor: float = 0.8  # β, from one fraction to the next
    sub_sampling_factor: int = 1  # the Fisher matrix sees one decision in so many, drawn at random
    gamma: float = 0.99  # discount γ
    gae_lambda: float = 0.95  # λ of the advantage: 0 is the TD error, 1 is return − V
    normalize_advantage: bool = True  # standardise advantages over the rollout
    learning_rate: float = 1e-3  # step size of the critic (the policy's comes from δ)
    n_critic_updates: int = 10  # passes of the critic over each rollout
    batch_size: int = 128  # decisions per minibatch of the critic
    max_grad_norm: float = 0.5  # clip the critic's gradient to this norm
    learning_rate_schedule: Schedule = "constant"  # keep the critic's step size, or let it fall to zero
    optimizer: Optimizer = "adam"  # how the critic's gradients become steps
    critic: ClassVar[Critic] = "value"
    critic_learning_rate: ClassVar[None] = None

    def __post_init__(self) -> None:
        validate(self)

    def collects(self, n_envs: int) -> Steps:
        """A window of every environment, divided by the critic's minibatches."""
        check_batch_size(self.n_steps, n_envs, self.batch_size)
        if self.sub_sampling_factor > self.n_steps * n_envs:
            raise UsageError(
                f"sub_sampling_factor {self.sub_sampling_factor} leaves no decision of n_steps · n_envs = "
                f"{self.n_steps} · {n_envs} = {self.n_steps * n_envs}, which is the most it may be"
            )
        return Steps(self.n_steps)

    @torch.no_grad()
    def credit(self, agent: Agent, traj: Trajectory) -> Batch:
        """GAE, and the whole policy that acted."""
        batch = gae_credit(agent, traj, self.gamma, self.gae_lambda)
        # Cloned: a σ that does not depend on the state is a view of the parameter that is about to move.
        return replace(batch, policy=map_tree(Tensor.clone, agent.policy(batch.obs)))

    def loss(self, agent: Agent, batch: Batch) -> tuple[Tensor, Metrics]:
        """−E[ r·Â ]: the surrogate, to be descended within the trust region."""
        policy = agent.policy(batch.obs)
        logp = policy.log_prob(batch.action)
        advantage = standardize(batch.advantage, batch.mask) if self.normalize_advantage else batch.advantage
        objective = importance_weighted(logp, batch.logp, advantage)
        loss = -mean(objective, batch.mask)
        metrics = {"train/policy_gradient_loss": -objective, "train/entropy_loss": -policy.entropy()}
        return loss, decision_metrics(batch, logp, metrics) | {"train/loss": loss.detach()}

    def sub_sample(self, batch: Batch, generator: Generator) -> Batch:
        """The decisions, or whole sequences, that the Fisher matrix sees: at least one, wherever they are."""
        n = batch.mask.shape[batch.axis]
        order = torch.randperm(n, generator=generator, device=generator.device).to(batch.mask.device)
        weight = batch.mask.sum(0) if batch.axis else batch.mask
        order = order[(weight[order] == 0).to(torch.int8).argsort(stable=True)]  # rows that only reset: last
        return batch.select(order[: max(1, n // self.sub_sampling_factor)])

    def update(self, learner: Learner, traj: Trajectory) -> Metrics:
        """One constrained step of the policy, then epochs of the critic."""
        batch, agent = learner.compute(self.credit, traj).flatten(), learner.agent
        parameters = learner.parameters("actor")
        loss, metrics = self.loss(agent, batch)
        gradient = -flat_gradient(loss, parameters)
        seen = batch if self.sub_sampling_factor == 1 else self.sub_sample(batch, learner.generator)
        fisher = fisher_vector_product(divergence(agent, seen), parameters, self.cg_damping)
        direction = conjugate_gradient(fisher, gradient, self.cg_max_steps)
        curvature = fisher(direction)
        step = trust_region_scale(direction, curvature, self.target_kl) * direction

        @torch.no_grad()
        def accept() -> Tensor:
            if not self.line_search_max_iter:
                return step.isfinite().all()
            return (self.loss(agent, batch)[0] < loss) & (divergence(agent, batch) <= self.target_kl)

        fractions = [self.line_search_shrinking_factor**k for k in range(max(self.line_search_max_iter, 1))]
        taken = next((c for c in fractions if learner.attempt(c * step, "actor", accept)), 0.0)
        with torch.no_grad():
            kl, gain = divergence(agent, batch), loss - self.loss(agent, batch)[0]
        for _ in range(self.n_critic_updates):
            for minibatch in learner.minibatches(batch, self.batch_size):
                learner.descend(value_loss, minibatch, "critic")
        own = {
            "train/kl": kl,
            "train/surrogate_gain": gain,
            "train/step_fraction": torch.tensor(taken),
            "train/line_search_failed": torch.tensor(float(taken == 0.0)),
            "train/policy_grad_norm": gradient.norm(),
            "train/cg_residual": (curvature - gradient).norm() / gradient.norm().clamp_min(1e-38),
        }
        return metrics | own | critic_metrics(learner, batch)


def divergence(agent: Agent, batch: Batch) -> Tensor:
    """E[KL(π_old ‖ π)] over the decisions, exact from the whole distributions."""
    assert batch.policy is not None
    return mean(batch.policy.kl(agent.policy(batch.obs)), batch.mask)
