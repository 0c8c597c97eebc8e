"""Soft actor-critic for discrete actions (Christodoulou 2019, arXiv 1910.07207)."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from pgrad.algorithms.protocol import Critic, Descent, Learner, Metrics, Optimizer, Schedule, SoftAgent
from pgrad.algorithms.soft import alpha, check_replay, due, temper
from pgrad.algorithms.validate import validate
from pgrad.data import Batch, Masked, Steps, Trajectory, Transition, Tree
from pgrad.math.objectives import squared_error
from pgrad.math.reduce import mean

LOWEST = -1e6
"""Under any log-probability of an action that is allowed."""
ENTROPY_SHARE = 0.5
"""H̄ as a share of log A, the most that A actions can have: Christodoulou's .98 leaves them nearly random."""


@dataclass(frozen=True)
class DiscreteSAC:
    """Maximise E Σ γᵗ (rₜ + α·H(π(·|sₜ))) from replayed transitions; for discrete actions.

    Where SAC samples an action, this takes the expectation over all of them.
    Critics: ½(Q_k(s, a) − y)², y = r + γ·Σ_a' π(a'|s')·(min_k Q̄_k(s', a') − α log π(a'|s')), Q̄ slow copies.
    Actor: E_s Σ_a π(a|s)·(min_k Q_k(s, a) − α log π(a|s)): the actions that are replayed play no part.
    Temperature: log α falls where the entropy is above its target, and rises below it.
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
    target_entropy: float | Literal["auto"] = "auto"  # entropy that α aims at; auto: ½·log(actions allowed)
    learning_rate_schedule: Schedule = "constant"  # keep the step sizes, or let them fall to zero
    optimizer: Optimizer = "adam"  # how gradients become steps
    optimizer_eps: float = 1e-8  # ε of √v + ε, which the optimiser divides by
    critic: ClassVar[Critic] = "q"
    actions: ClassVar[str] = "Discrete"
    max_grad_norm: ClassVar[float] = math.inf
    agent_defaults: ClassVar[dict[str, Any]] = {"net_arch": (256, 256), "activation": "relu"}

    def __post_init__(self) -> None:
        validate(self)

    def collects(self, n_envs: int) -> Steps:
        """A step of every environment, or a few."""
        check_replay(self.buffer_size, self.learning_starts, self.n_steps, n_envs)
        return Steps(self.n_steps)

    @torch.no_grad()
    def credit(self, agent: SoftAgent, replayed: Transition) -> Batch:
        """The soft Bellman targets y, in expectation over the next action; eq. (10) and (12)."""
        logp = log_probabilities(agent, replayed.next_obs)
        soft_q = agent.target_q(replayed.next_obs).amin(0) - alpha(agent, self.ent_coef) * logp
        soft_value = (logp.exp() * soft_q).sum(-1)
        target = replayed.reward + self.gamma * soft_value.masked_fill(replayed.terminated, 0.0)
        return Batch(replayed.obs, replayed.action, replayed.logp, replayed.mask, soft_value, target=target)

    def loss(self, agent: SoftAgent, batch: Batch) -> tuple[Tensor, Metrics]:
        """The critics': Σ_k ½(Q_k(s, a) − y)² of the actions that were taken."""
        assert batch.target is not None
        taken = batch.action.unsqueeze(-1)
        q1, q2 = (q.gather(-1, taken).squeeze(-1) for q in agent.q(batch.obs))
        error = squared_error(q1, batch.target) + squared_error(q2, batch.target)
        loss = mean(0.5 * error, batch.mask)
        return loss, {"train/critic_loss": loss.detach(), "train/q": mean(q1.detach(), batch.mask)}

    def actor_loss(self, agent: SoftAgent, batch: Batch) -> tuple[Tensor, Metrics]:
        """E_s Σ_a π(a|s)·(α log π(a|s) − min_k Q_k(s, a)), eq. (11) with its expectation over a."""
        logp = log_probabilities(agent, batch.obs)
        with torch.no_grad():
            q = agent.q(batch.obs).amin(0)
        loss = mean((logp.exp() * (alpha(agent, self.ent_coef) * logp - q)).sum(-1), batch.mask)
        logp = logp.detach()
        entropy = -mean((logp.exp() * logp).sum(-1), batch.mask)
        surplus = entropy - self.entropy_target(batch, logp.shape[-1])
        metrics = {"train/entropy": entropy, "train/entropy_surplus": surplus}
        return loss, {"train/actor_loss": loss.detach()} | metrics

    def entropy_target(self, batch: Batch, n_actions: int) -> Tensor | float:
        """H̄. Automatic: half of log A; half of E[log A(s)] where only A(s) actions are allowed in s."""
        if self.target_entropy != "auto":
            return self.target_entropy
        if isinstance(batch.obs, Masked):
            return ENTROPY_SHARE * mean(batch.obs.allowed.sum(-1).log(), batch.mask)
        return ENTROPY_SHARE * math.log(n_actions)

    def update(self, learner: Learner, traj: Trajectory) -> Metrics:
        """Store the window; then, once there is enough, gradient steps on replayed transitions."""
        for replayed in due(learner, traj, self.learning_starts, self.gradient_steps, self.batch_size):
            learner.perform(self.gradient_step, replayed)
        return {}

    def gradient_step(self, learner: Descent, replayed: Transition) -> None:
        """The critics, then the actor by the new critics, then the temperature, then the slow copies."""
        batch = learner.compute(self.credit, replayed)
        learner.descend(self.loss, batch, "critic")
        actor = learner.descend(self.actor_loss, batch, "actor")
        if self.ent_coef == "auto":
            temper(learner, batch, actor)
        learner.follow(self.tau)


def log_probabilities(agent: SoftAgent, obs: Tree) -> Tensor:
    """log π(a|s) of every action, [N, A]; finite where an action is forbidden, so that 0·α·log π is 0."""
    return agent.policy(obs).logits.log_softmax(-1).clamp(min=LOWEST)
