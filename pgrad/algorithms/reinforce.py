"""REINFORCE with baselines, none to learned (Williams 1992; Greensmith, Bartlett & Baxter 2004).

Old episodes by importance sampling: Precup, Sutton & Singh 2000; Jie & Abbeel 2010.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pgrad.algorithms.critic import critic_metrics, value_loss
from pgrad.algorithms.metrics import decision_metrics, entropy_of, normalized, reuse_metrics
from pgrad.algorithms.protocol import Agent, Critic, Learner, Metrics, Optimizer, Schedule
from pgrad.algorithms.reference import with_penalty
from pgrad.algorithms.sampler import weighted
from pgrad.algorithms.usual import POLICY, usual
from pgrad.algorithms.validate import validate
from pgrad.data import Batch, Episodes, Trajectory
from pgrad.errors import UsageError
from pgrad.math import baselines
from pgrad.math.credit import discount_weight, full_return, n_step_return, reward_to_go, td_error
from pgrad.math.importance import per_decision_return, prefix_ratio, trajectory_ratio
from pgrad.math.objectives import score_function
from pgrad.math.reduce import constant, mean

Baseline = Literal["none", "mean", "leave-one-out", "optimal", "value"]
Reuse = Literal["trajectory", "per-decision"]


@dataclass(frozen=True)
class Reinforce:
    """Ascend (1/N)·Σᵢ Σₜ (G − b)·log π(aₜ|sₜ) over N whole episodes, in one step.

    The sum runs over decisions, the mean over episodes, as in the policy gradient theorem. Baselines: the
    `mean` over the batch (its gradient is (1 − 1/N) of the true one), the mean of the other episodes
    (`leave-one-out`, unbiased), the variance-`optimal` one, or a learned `value`, fitted to the returns after
    the step. Only a learned value can go on where a time limit cuts an episode; else the limit is an end.

    With `reuse` the episodes of that many earlier updates are averaged with the fresh ones, weighted by
    ratios to the policies μ that acted in them: ρ(τ)·(G − b), or per decision Σ_l γ^{l−t}·ρ_{0:l}·r_l −
    ρ_{0:t}·b (with a learned baseline Σ_l γ^{l−t}·ρ_{0:l}·δ_l, which has the same mean). Both are exact for
    any π that was chosen without looking at those episodes; this one was trained on them. A learned
    baseline is fitted to the fresh ones only.
    """

    learning_rate: float = usual(3e-3, text=POLICY)  # step size of the policy
    n_episodes: int = usual(8, text=64)  # N, whole episodes per update
    gamma: float = usual(0.99, text=1.0)  # discount γ
    reward_to_go: bool = True  # weigh a decision by what came after it, not by the whole return
    discount_decisions: bool = False  # weigh decision t by γᵗ: the exact gradient of the discounted objective
    baseline: Baseline = usual("value", text="leave-one-out")  # subtracted from returns; text: leave-one-out
    n_critic_updates: int = usual(20, text=4)  # steps of the learned baseline per update
    reuse: int = 0  # earlier updates whose episodes are used again, with importance weights
    weighting: Reuse = "per-decision"  # the ratio of those: of the whole episode, or up to each reward
    normalize_advantage: bool = False  # standardise advantages over the batch
    ent_coef: float = 0.0  # weight of the entropy bonus
    beta: float = 0.0  # β, weight of the KL to the reference policy, which rewards are less by (k1)
    max_grad_norm: float = 0.5  # clip each gradient to this norm
    critic_learning_rate: float | None = None  # of the learned baseline; none: the same, on text 10 times it
    learning_rate_schedule: Schedule = "constant"  # keep the step sizes, or let them fall to zero
    optimizer: Optimizer = "adam"  # how gradients become steps
    optimizer_eps: float = usual(1e-5, text=1e-8)  # ε of √v + ε, which the optimiser divides by

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
        if self.reuse and self.weighting == "per-decision" and not self.reward_to_go:
            raise UsageError(
                "Reinforce: reuse with the weighting 'per-decision' needs reward_to_go; whole returns have "
                "the weighting 'trajectory'"
            )
        if self.reuse and self.normalize_advantage:
            raise UsageError(
                "Reinforce: reuse does not go with normalize_advantage: a mean that is subtracted from "
                "weighted advantages is a bias"
            )
        if self.reuse and self.baseline == "optimal":
            raise UsageError(
                "Reinforce: the baseline 'optimal' is that of episodes without weights; with reuse take "
                "'none', 'mean', 'leave-one-out' or 'value'"
            )

    @property
    def critic(self) -> Critic:
        """Only the learned baseline is a critic."""
        return "value" if self.baseline == "value" else "none"

    @property
    def reference(self) -> bool:
        """Whether a frozen policy π_ref is needed."""
        return self.beta > 0.0

    def collects(self, n_envs: int) -> Episodes:
        """N whole episodes, one per column."""
        return Episodes(self.n_episodes)

    @torch.no_grad()
    def credit(self, agent: Agent, traj: Trajectory) -> Batch:
        """Returns over a baseline; a learned one stands for what a time limit cut off."""
        now = agent.policy(traj.decisions).log_prob(traj.action) if self.reuse else traj.logp
        log = (now, traj.logp)
        paid, logp_ref = with_penalty(agent, replace(traj, logp=now), self.beta)
        traj = replace(traj, reward=paid.reward)
        gain, weight = traj.reward, traj.weight
        value, target = torch.zeros_like(gain), reward_to_go(gain, traj.done, self.gamma)
        if self.baseline == "value":
            whole = agent.value(traj.obs)
            steps = len(traj.reward)
            target = n_step_return(traj.reward, whole, traj.final, traj.done, self.gamma, steps)
            gain, value = td_error(traj.reward, whole, traj.final, self.gamma), whole[:-1]
        ret = target if self.reward_to_go else full_return(traj.reward, traj.done, self.gamma)
        baseline = self.baseline_of(agent, traj, ret, value)
        advantage = ret - baseline
        if self.reuse:
            match self.weighting:
                case "trajectory":
                    weight = trajectory_ratio(*log, traj.done)
                    advantage = weight * advantage
                case "per-decision":
                    weight = prefix_ratio(*log, traj.done)
                    advantage = per_decision_return(gain, *log, traj.done, self.gamma)
                    advantage = advantage - weight * (baseline - value)
        if self.discount_decisions:
            advantage = advantage * discount_weight(traj.done, self.gamma, ret.dtype)
        own = (traj.decisions, traj.action, traj.logp, traj.mask)
        logp_now = now if self.reuse else None
        return Batch(*own, advantage, value, target, weight=weight, logp_ref=logp_ref, logp_now=logp_now)

    def baseline_of(self, agent: Agent, traj: Trajectory, ret: Tensor, value: Tensor) -> Tensor:
        """b for every decision, [T, N] or broadcastable to it: per step, or per episode for whole returns.

        Every episode counts at every step, one that has ended with return 0, so that what the mean does to
        the gradient is the same factor everywhere.
        With reward-to-go the variance-optimal baseline still weighs returns by the scores of whole episodes:
        near the optimum, not at it, for N backward passes instead of T·N.
        """
        if not self.reward_to_go:  # the same in all rows of an episode, its first decision's among them
            ret = ret.gather(0, (traj.mask > 0).to(torch.uint8).argmax(0, keepdim=True)).squeeze(0)
        weight = traj.mask.amax(0).expand_as(ret)
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
        advantage = normalized(batch) if self.normalize_advantage else batch.advantage
        objective, entropy = score_function(logp, advantage), entropy_of(policy, self.ent_coef)
        if not self.reuse:  # whose weights are in the advantage
            objective = weighted(objective, batch)
        bonus = self.ent_coef * mean(entropy, batch.mask, batch.decisions)
        loss = -constant(objective, batch.mask, batch.sequences) - bonus
        metrics = {"train/policy_gradient_loss": -objective, "train/entropy_loss": -entropy}
        return loss, decision_metrics(batch, logp, metrics) | {"train/loss": loss.detach()}

    def update(self, learner: Learner, traj: Trajectory) -> Metrics:
        """One step of the policy; the learned baseline follows, so that it never saw what it judges."""
        told: Metrics = {}
        fresh = batch = learner.compute(self.credit, traj)
        if self.reuse:
            batch = learner.compute(self.credit, learner.recent.beside(traj))
            learner.recent.add(traj)
            told = reuse_metrics(batch, traj.mask.shape[1])
        learner.descend(self.loss, batch, "actor")
        if self.baseline != "value":
            return told
        for _ in range(self.n_critic_updates):
            learner.descend(value_loss, fresh, "critic")
        return told | critic_metrics(learner, fresh)


def squared_scores(agent: Agent, traj: Trajectory) -> Tensor:
    """|Σₜ ∇log π(aₜ|sₜ)|² of every episode, [N], a constant: one backward pass per column, batched."""
    with torch.enable_grad():
        logp = agent.policy(traj.decisions).log_prob(traj.action)
        total = torch.where(traj.mask > 0, logp, 0.0).sum(0)
    parameters = [p for p in agent.parameters() if p.requires_grad]

    def gradient(weight: Tensor) -> tuple[Tensor, ...]:
        grads = torch.autograd.grad(total, parameters, weight, allow_unused=True)
        return tuple(g for g in grads if g is not None)

    each = torch.eye(len(total), dtype=total.dtype, device=total.device)
    # this vmap, and not autograd's own (is_grads_batched), can itself be vectorised over batches
    grads = torch.func.vmap(gradient)(each)
    return sum((g.flatten(1).square().sum(1) for g in grads), torch.zeros_like(total))
