"""Actor-critic: fit the critic first, then judge the decisions by it (Konda & Tsitsiklis 2000)."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pgrad.algorithms.critic import critic_metrics, value_loss
from pgrad.algorithms.metrics import decision_metrics, entropy_of
from pgrad.algorithms.protocol import Agent, Critic, Learner, Metrics, Optimizer, Schedule
from pgrad.algorithms.reference import with_penalty
from pgrad.algorithms.sampler import weighted
from pgrad.algorithms.usual import POLICY, Lengths, usual
from pgrad.algorithms.validate import validate
from pgrad.data import Batch, Steps, Trajectory
from pgrad.math.credit import n_step_return
from pgrad.math.objectives import score_function
from pgrad.math.reduce import mean


@dataclass(frozen=True)
class ActorCritic:
    """Ascend E[ Â·log π + c₂·H ] with Â = n-step target − V, after V has been fitted to such targets.

    Online with `n_steps=1`: an update at every step of the worlds. Batch with more: `bootstrap_steps` 1 gives
    TD targets, n gives n-step targets, none gives Monte-Carlo returns as far as the window shows them.
    """

    learning_rate: float = usual(1e-3, text=POLICY)  # step size of the actor
    critic_learning_rate: float | None = None  # step size of the critic; none: the same, on text 10 times it
    n_steps: int = usual(128, text=Lengths(8))  # steps of each environment per update; 1 is online
    bootstrap_steps: int | None = usual(1, text=None)  # rewards in a target before V takes over; none: all
    n_critic_updates: int = usual(10, text=4)  # steps of the critic per update, each on fresh targets
    gamma: float = usual(0.99, text=1.0)  # discount γ
    ent_coef: float = usual(0.01, text=0.0)  # c₂, weight of the entropy bonus
    beta: float = 0.0  # β, weight of the KL to the reference policy, which rewards are less by (k1)
    max_grad_norm: float = 0.5  # clip each gradient to this norm
    learning_rate_schedule: Schedule = "constant"  # keep the step sizes, or let them fall to zero
    optimizer: Optimizer = "adam"  # how gradients become steps
    optimizer_eps: float = usual(1e-5, text=1e-8)  # ε of √v + ε, which the optimiser divides by
    critic: ClassVar[Critic] = "value"

    def __post_init__(self) -> None:
        validate(self)

    @property
    def reference(self) -> bool:
        """Whether a frozen policy π_ref is needed."""
        return self.beta > 0.0

    def collects(self, n_envs: int) -> Steps:
        """A window of every environment."""
        return Steps(self.n_steps)

    def credit(self, agent: Agent, traj: Trajectory) -> Batch:
        """n-step targets under the critic as it is now, and what they exceed it by."""
        traj, logp_ref = with_penalty(agent, traj, self.beta)
        return replace(self.judged(agent, traj), logp_ref=logp_ref)

    @torch.no_grad()
    def judged(self, agent: Agent, traj: Trajectory) -> Batch:
        """The same of rewards that the reference has had its part in."""
        value = agent.value(traj.obs)
        n = self.n_steps if self.bootstrap_steps is None else min(self.bootstrap_steps, self.n_steps)
        target = n_step_return(traj.reward, value, traj.final, traj.done, self.gamma, n)
        value = value[:-1]
        own = (traj.decisions, traj.action, traj.logp, traj.mask)
        return Batch(*own, target - value, value, target, weight=traj.weight)

    def loss(self, agent: Agent, batch: Batch) -> tuple[Tensor, Metrics]:
        """The actor's: the score function and the entropy bonus, to be descended."""
        policy = agent.policy(batch.obs)
        logp = policy.log_prob(batch.action)
        objective = weighted(score_function(logp, batch.advantage), batch)
        entropy = entropy_of(policy, self.ent_coef)
        loss = mean(-objective - self.ent_coef * entropy, batch.mask, batch.decisions)
        metrics = {"train/policy_gradient_loss": -objective, "train/entropy_loss": -entropy}
        return loss, decision_metrics(batch, logp, metrics) | {"train/loss": loss.detach()}

    def update(self, learner: Learner, traj: Trajectory) -> Metrics:
        """The critic's steps, then one of the actor on advantages of the fitted critic."""
        traj, logp_ref = with_penalty(learner.agent, traj, self.beta)
        before = batch = self.judged(learner.agent, traj)
        for _ in range(self.n_critic_updates):
            learner.descend(value_loss, batch, "critic")
            batch = self.judged(learner.agent, traj)
        learner.descend(self.loss, replace(batch, logp_ref=logp_ref), "actor")
        return critic_metrics(learner, before)
