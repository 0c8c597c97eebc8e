"""Trust region policy optimisation (Schulman et al. 2015, arXiv 1502.05477)."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor

from pgrad.algorithms.critic import critic_metrics, gae_credit, value_loss
from pgrad.algorithms.metrics import decision_metrics
from pgrad.algorithms.protocol import Agent, Bend, Critic, Learner, Metrics, Optimizer, Schedule
from pgrad.algorithms.validate import check_batch_size, validate
from pgrad.data import Batch, Steps, Trajectory, leaves, map_tree
from pgrad.data.handover import hand_over
from pgrad.data.sequence import by_row
from pgrad.errors import UsageError
from pgrad.math.distributions import Distribution
from pgrad.math.natural import conjugate_gradient, trust_region_scale
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
    sub_sampling_factor: int = 1  # only the Fisher matrix: it sees one decision in so many, by lot
    gamma: float = 0.99  # discount γ
    gae_lambda: float = 0.95  # λ of the advantage: 0 is the TD error, 1 is return − V
    normalize_advantage: bool = True  # standardise advantages over the rollout
    learning_rate: float = 1e-3  # step size of the critic (the policy's comes from δ)
    n_critic_updates: int = 10  # passes of the critic over each rollout
    batch_size: int = 128  # decisions per minibatch of the critic
    max_grad_norm: float = 0.5  # clip the critic's gradient to this norm
    learning_rate_schedule: Schedule = "constant"  # keep the critic's step size, or let it fall to zero
    optimizer: Optimizer = "adam"  # how the critic's gradients become steps
    optimizer_eps: float = 1e-5  # ε of √v + ε, which the optimiser divides by
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
        return replace(batch, policy=map_tree(Tensor.clone, by_row(agent.policy, batch.obs)))

    def loss(self, agent: Agent, batch: Batch) -> tuple[Tensor, Metrics]:
        """−E[ r·Â ]: the surrogate, to be descended within the trust region."""
        policy = agent.policy(batch.obs)
        logp, objective = self.objective(policy, batch)
        loss = -mean(objective, batch.mask)
        metrics = {"train/policy_gradient_loss": -objective, "train/entropy_loss": -policy.entropy()}
        return loss, decision_metrics(batch, logp, metrics) | {"train/loss": loss.detach()}

    def objective(self, policy: Distribution, batch: Batch) -> tuple[Tensor, Tensor]:
        """log π(a|s) and r·Â of every decision."""
        logp = policy.log_prob(batch.action)
        advantage = standardize(batch.advantage, batch.mask) if self.normalize_advantage else batch.advantage
        return logp, importance_weighted(logp, batch.logp, advantage)

    @torch.no_grad()
    def standing(self, agent: Agent, batch: Batch) -> tuple[Tensor, Tensor]:
        """E[ r·Â ] and E[KL(π_old‖π)] of the policy as it is now."""
        policy = agent.policy(batch.obs)
        return mean(self.objective(policy, batch)[1], batch.mask), divergence(policy, batch)

    def sub_sample(self, batch: Batch, generator: Generator) -> Batch:
        """The decisions, or whole sequences, that the Fisher matrix sees: at least one, wherever they are."""
        n = batch.mask.shape[batch.axis]
        order = torch.randperm(n, generator=generator, device=generator.device)
        order = hand_over(order, batch.mask.device)
        weight = batch.mask.sum(0) if batch.axis else batch.mask
        order = order[(weight[order] == 0).to(torch.int8).argsort(stable=True)]  # rows that only reset: last
        return batch.select(order[: max(1, n // self.sub_sampling_factor)])

    def update(self, learner: Learner, traj: Trajectory) -> Metrics:
        """One constrained step of the policy, then epochs of the critic."""
        batch = learner.compute(self.credit, traj).flatten()
        metrics = self.climb(learner, batch)
        fit = replace(batch, policy=None, value=None)  # what the critic does not read is not shuffled
        for _ in range(self.n_critic_updates):
            for minibatch in learner.minibatches(fit, self.batch_size):
                learner.descend(value_loss, minibatch, "critic")
        return metrics | critic_metrics(learner, batch)

    def climb(self, learner: Learner, batch: Batch) -> Metrics:
        """One step along F⁻¹g, as long as the trust region allows."""
        actor = learner.derivatives("actor")
        slope, metrics = actor.gradient(self.loss, batch)
        seen = batch if self.sub_sampling_factor == 1 else self.sub_sample(batch, learner.generator)
        fisher = actor.curvature(policy_and_divergence, seen)

        def product(v: Tensor) -> Tensor:
            return fisher(v) + self.cg_damping * v

        direction = conjugate_gradient(product, -slope, self.cg_max_steps)
        curvature = product(direction)
        step = trust_region_scale(direction, curvature, self.target_kl) * direction
        return metrics | {
            **self.search(learner, batch, step),
            "train/policy_grad_norm": slope.norm(),
            "train/cg_residual": (curvature + slope).norm() / slope.norm().clamp_min(1e-38),
        }

    def search(self, learner: Learner, batch: Batch, step: Tensor) -> Metrics:
        """Take the first fraction of a step [P] that is accepted, and tell what it gained and cost."""
        before, kl = learner.compute(self.standing, batch)
        found = [(before - before, kl)]

        def accept() -> Tensor:
            after, kl = learner.compute(self.standing, batch)
            found.append((after - before, kl))
            if not self.line_search_max_iter:
                return step.isfinite().all()
            return (after > before) & (kl <= self.target_kl)

        fractions = [self.line_search_shrinking_factor**k for k in range(max(self.line_search_max_iter, 1))]
        taken = next((c for c in fractions if learner.attempt(c * step, "actor", accept)), 0.0)
        gain, kl = found[-1 if taken else 0]
        return {
            "train/kl": kl,
            "train/approx_kl": kl,  # what others estimate
            "train/surrogate_gain": gain,
            "train/step_fraction": torch.tensor(taken),
            "train/line_search_failed": torch.tensor(float(taken == 0.0)),
        }


def policy_and_divergence(agent: Agent, batch: Batch) -> Bend:
    """The tensors that π(·|s) is made of, and E[KL(π_old‖π)] as a function of copies of them."""
    policy = agent.policy(batch.obs)
    cut = map_tree(lambda x: x.detach().requires_grad_(x.requires_grad), policy)
    made, copies = ([x for x in leaves(tree) if x.requires_grad] for tree in (policy, cut))
    return made, copies, divergence(cut, batch)


def divergence(policy: Distribution, batch: Batch) -> Tensor:
    """E[KL(π_old‖π)] over the decisions, exact from the whole distributions."""
    assert batch.policy is not None
    return mean(batch.policy.kl(policy), batch.mask)
