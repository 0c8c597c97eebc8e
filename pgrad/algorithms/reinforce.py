"""REINFORCE with baselines, none to learned (Williams 1992; Greensmith, Bartlett & Baxter 2004)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pgrad.algorithms.critic import critic_metrics, value_loss
from pgrad.algorithms.metrics import decision_metrics
from pgrad.algorithms.protocol import Agent, Critic, Learner, Metrics, Optimizer, Schedule
from pgrad.algorithms.validate import validate
from pgrad.data import Batch, Episodes, Trajectory
from pgrad.errors import UsageError
from pgrad.math import baselines
from pgrad.math.credit import discount_weight, full_return, n_step_return, reward_to_go
from pgrad.math.objectives import score_function
from pgrad.math.reduce import constant, mean, standardize

Baseline = Literal["none", "mean", "leave-one-out", "optimal", "value"]


@dataclass(frozen=True)
class Reinforce:
    """Ascend (1/N)·Σᵢ Σₜ (G − b)·log π(aₜ|sₜ) over N whole episodes; one step, then the episodes are dropped.

    The sum runs over decisions, the mean over episodes, as in the policy gradient theorem. Baselines: the
    `mean` over the batch (its gradient is (1 − 1/N) of the true one), the mean of the other episodes
    (`leave-one-out`, unbiased), the variance-`optimal` one, or a learned `value`, fitted to the returns after
    the step. Only a learned value can go on where a time limit cuts an episode; else the limit is an end.
    """

    learning_rate: float = 3e-3  # step size of the policy
    n_episodes: int = 8  # N, whole episodes per update
    gamma: float = 0.99  # discount γ
    reward_to_go: bool = True  # weigh a decision by what came after it, not by the whole return
    discount_decisions: bool = False  # weigh decision t by γᵗ: the exact gradient of the discounted objective
    baseline: Baseline = "value"  # what is subtracted from the returns
    n_critic_updates: int = 20  # steps of the learned baseline per update
    normalize_advantage: bool = False  # standardise advantages over the batch
    ent_coef: float = 0.0  # weight of the entropy bonus
    max_grad_norm: float = 0.5  # clip each gradient to this norm
    critic_learning_rate: float | None = None  # step size of the learned baseline, if another
    learning_rate_schedule: Schedule = "constant"  # keep the step sizes, or let them fall to zero
    optimizer: Optimizer = "adam"  # how gradients become steps

    def __post_init__(self) -> None:
        validate(self)
        if self.discount_decisions and not self.reward_to_go:
            raise UsageError(
                "Reinforce: discount_decisions needs reward_to_go: the full return is discounted from the "
                "start of the episode, so that its gradient is exact as it is"
            )
        if self.n_episodes < 2 and self.baseline in ("mean", "leave-one-out", "optimal"):
            raise UsageError(
                f"Reinforce: the baseline {self.baseline!r} needs n_episodes of 2 or more, got 1"
            )

    @property
    def critic(self) -> Critic:
        """Only the learned baseline is a critic."""
        return "value" if self.baseline == "value" else "none"

    def collects(self, n_envs: int) -> Episodes:
        """N whole episodes, one per column."""
        return Episodes(self.n_episodes)

    @torch.no_grad()
    def credit(self, agent: Agent, traj: Trajectory) -> Batch:
        """Returns over a baseline; a learned one stands for what a time limit cut off."""
        value, target = torch.zeros_like(traj.reward), reward_to_go(traj.reward, traj.done, self.gamma)
        if self.baseline == "value":
            whole = agent.value(traj.obs)
            steps = len(traj.reward)
            target = n_step_return(traj.reward, whole, traj.terminated, traj.done, self.gamma, steps)
            value = whole[:-1]
        ret = target if self.reward_to_go else full_return(traj.reward, traj.done, self.gamma)
        advantage = ret - self.baseline_of(agent, traj, ret, value)
        if self.discount_decisions:
            advantage = advantage * discount_weight(traj.done, self.gamma, ret.dtype)
        return Batch(traj.decisions, traj.action, traj.logp, traj.mask, advantage, value, target)

    def baseline_of(self, agent: Agent, traj: Trajectory, ret: Tensor, value: Tensor) -> Tensor:
        """b for every decision, [T, N] or broadcastable to it: per step, or per episode for whole returns.

        Every episode counts at every step, one that has ended with return 0, so that what the mean does to
        the gradient is the same factor everywhere.
        With reward-to-go the variance-optimal baseline still weighs returns by the scores of whole episodes:
        near the optimum, not at it, for N backward passes instead of T·N.
        """
        ret = ret if self.reward_to_go else ret[0]
        weight = traj.mask[0].expand_as(ret)
        match self.baseline:
            case "mean":
                return baselines.batch_mean(ret, weight)
            case "leave-one-out":
                return baselines.leave_one_out_mean(ret, weight)
            case "optimal":
                return baselines.optimal(squared_scores(agent, traj), ret, weight)
            case "none" | "value":
                return value

    def loss(self, agent: Agent, batch: Batch) -> tuple[Tensor, Metrics]:
        """The score function summed over decisions, averaged over episodes, and the entropy bonus."""
        policy = agent.policy(batch.obs)
        logp = policy.log_prob(batch.action)
        advantage = standardize(batch.advantage, batch.mask) if self.normalize_advantage else batch.advantage
        objective, entropy = score_function(logp, advantage), policy.entropy()
        n_episodes = batch.mask[0].sum()
        loss = -constant(objective, batch.mask, n_episodes) - self.ent_coef * mean(entropy, batch.mask)
        metrics = {"train/policy_gradient_loss": -objective, "train/entropy_loss": -entropy}
        return loss, decision_metrics(batch, logp, metrics) | {"train/loss": loss.detach()}

    def update(self, learner: Learner, traj: Trajectory) -> Metrics:
        """One step of the policy; the learned baseline follows, so that it never saw what it judges."""
        batch = self.credit(learner.agent, traj)
        learner.descend(self.loss, batch, "actor")
        if self.baseline != "value":
            return {}
        for _ in range(self.n_critic_updates):
            learner.descend(value_loss, batch, "critic")
        return critic_metrics(batch)


def squared_scores(agent: Agent, traj: Trajectory) -> Tensor:
    """|Σₜ ∇log π(aₜ|sₜ)|² of every episode, [N]: one backward pass per column, batched."""
    with torch.enable_grad():
        logp = agent.policy(traj.decisions).log_prob(traj.action)
        total = torch.where(traj.mask > 0, logp, 0.0).sum(0)
        parameters = [p for p in agent.parameters() if p.requires_grad]
        each = torch.eye(len(total), dtype=total.dtype, device=total.device)
        grads = torch.autograd.grad(total, parameters, each, is_grads_batched=True, allow_unused=True)
    return sum(
        (g.flatten(1).square().sum(1) for g in grads if g is not None), torch.zeros_like(total)
    ).detach()
