"""Imitation: the score function with weight 1 on demonstrations (behaviour cloning; Pomerleau 1989)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pgrad.algorithms.protocol import Agent, Critic, Learner, Metrics, Optimizer, Schedule
from pgrad.algorithms.sac import SAC
from pgrad.algorithms.usual import IMITATION, usual
from pgrad.algorithms.validate import validate
from pgrad.data import Batch, Demonstrations, Trajectory, Tree, leaves
from pgrad.errors import UsageError
from pgrad.math.distributions import Distribution
from pgrad.math.objectives import score_function
from pgrad.math.reduce import mean, means


@dataclass(frozen=True)
class Imitate:
    """Ascend E[ 1·log π(a|s) + c₂·H ] over recorded decisions: maximum likelihood of what was demonstrated.

    It is the policy gradient with Â = 1 for whatever the demonstrator did; on tokens it is supervised
    fine-tuning. Nothing is asked of the world, and a step of training is a demonstrated decision consumed.
    """

    demonstrations: str | None = None  # file of `pgrad play RUN --record FILE`, minari:NAME; solutions
    learning_rate: float = usual(1e-3, text=IMITATION)  # step size
    batch_size: int = 64  # decisions per gradient step; on text, solutions
    n_steps: int = 1  # successive decisions in a sequence; more than 1 for agents with memory
    held_out: float = 0.1  # share of the episodes that are kept for measuring
    squashed: bool = False  # imitate with SAC's policy (its actions are squashed into their bounds)
    ent_coef: float = 0.0  # c₂, weight of the entropy bonus, which keeps the policy wide
    max_grad_norm: float = 0.5  # clip the gradient to this norm
    learning_rate_schedule: Schedule = "constant"  # keep the step size, or let it fall to zero
    optimizer: Optimizer = "adam"  # how gradients become steps
    optimizer_eps: float = usual(1e-5, text=1e-8)  # ε of √v + ε, which the optimiser divides by
    gamma: ClassVar[float] = 1.0
    critic_learning_rate: ClassVar[None] = None

    def __post_init__(self) -> None:
        validate(self)
        if self.batch_size % self.n_steps:
            raise UsageError(
                f"Imitate: n_steps {self.n_steps} does not divide batch_size {self.batch_size}: batches hold "
                "whole sequences"
            )

    @property
    def critic(self) -> Critic:
        """None; SAC's policy comes with SAC's critics, which are left alone."""
        return "q" if self.squashed else "none"

    @property
    def agent_defaults(self) -> dict[str, Any]:
        """SAC's where its policy is imitated: SAC can then begin with it."""
        return SAC.agent_defaults if self.squashed else {}

    def collects(self, n_envs: int) -> Demonstrations:
        """A batch of recorded sequences."""
        if self.demonstrations is None:
            raise UsageError(
                "Imitate needs demonstrations: a file recorded with `pgrad play RUN --record FILE`, or "
                "minari:DATASET"
            )
        return Demonstrations(
            self.demonstrations, self.batch_size // self.n_steps, self.n_steps, self.held_out
        )

    def credit(self, agent: Agent, traj: Trajectory) -> Batch:
        """Every demonstrated decision is worth 1."""
        one = torch.ones_like(traj.reward)
        return Batch(traj.decisions, traj.action, traj.logp, traj.mask, one)

    def loss(self, agent: Agent, batch: Batch) -> tuple[Tensor, Metrics]:
        """−E[ 1·log π ] and the entropy bonus, to be descended."""
        policy = agent.policy(batch.obs)
        objective = score_function(policy.log_prob(batch.action), batch.advantage)
        loss = -mean(objective, batch.mask, batch.decisions)
        metrics = {f"train/{name}": x for name, x in likeness(policy, batch.action, batch.mask).items()}
        if self.ent_coef:
            entropy = mean(policy.entropy(), batch.mask, batch.decisions)
            loss, metrics["train/entropy_loss"] = loss - self.ent_coef * entropy, -entropy.detach()
        return loss, metrics | {"train/loss": loss.detach()}

    def update(self, learner: Learner, traj: Trajectory) -> Metrics:
        """One step on the batch."""
        learner.descend(self.loss, learner.compute(self.credit, traj), "actor")
        return {}


@torch.no_grad()
def likeness(policy: Distribution, action: Tree, weight: Tensor) -> Metrics:
    """Mean log-likelihood of actions, and the share of discrete ones that are the policy's first choice."""
    columns = {"log_likelihood": policy.log_prob(action)}
    chosen = zip(leaves(policy.mode), leaves(action), strict=True)
    agree = [_agree(mine, theirs, weight) for mine, theirs in chosen if not mine.is_floating_point()]
    if agree:
        columns["accuracy"] = torch.stack(agree).amin(0)
    each = means(torch.stack(list(columns.values())), weight).unbind()
    return dict(zip(columns, each, strict=True))


def _agree(mine: Tensor, theirs: Tensor, like: Tensor) -> Tensor:
    """1 where all parts of an action are the same, [...]."""
    return (mine == theirs).reshape(*like.shape, -1).all(-1).to(like.dtype)
