"""Group relative policy optimisation and its relatives (DeepSeekMath, Shao et al. 2024, arXiv 2402.03300)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pgrad.algorithms.metrics import decision_metrics, entropy_of
from pgrad.algorithms.protocol import Critic, Learner, Metrics, Optimizer, ReferenceAgent, Schedule
from pgrad.algorithms.sampler import rescored, weighted
from pgrad.algorithms.usual import GROUPS, POLICY, usual
from pgrad.algorithms.validate import validate
from pgrad.data import Batch, Episodes, Trajectory, unequal
from pgrad.errors import UsageError
from pgrad.math import kl
from pgrad.math.credit import discount_weight, group_relative, leave_one_out, reward_to_go
from pgrad.math.importance import mean_log_ratio
from pgrad.math.objectives import clipped, truncated_score
from pgrad.math.reduce import constant, deviation, mean, per_sequence

Scale = Literal["group", "batch", "none"]
Average = Literal["sequence", "token", "constant"]
Divergence = Literal["k2", "k3", "k3-corrected", "k1-in-reward"]


@dataclass(frozen=True)
class GRPO:
    """Ascend E[ min(r·Â, clip(r, 1−ε_low, 1+ε_high)·Â) − β·KL(π‖π_ref) ] over groups of G episodes.

    The G episodes of a group begin alike (answer one prompt) and judge one another, in place of a critic: all
    decisions of episode i have Âᵢ = (Rᵢ − mean) / (std + 10⁻⁴), with the population's deviation (eq. 3).
    A group whose returns are all equal teaches nothing. Its relatives are settings: Dr. GRPO
    (scale_rewards="none", average="constant"), DAPO (average="token", clip_range_high=0.28,
    dynamic_sampling), RLOO (baseline="leave-one-out", scale_rewards="none", average="constant"), GSPO
    (ratio="sequence"), CISPO (objective="truncated").
    """

    learning_rate: float = usual(1e-3, text=POLICY)  # step size
    n_prompts: int = usual(8, text=GROUPS)  # groups per update: prompts, or first states
    num_generations: int = 8  # G, episodes in a group
    batch_size: int | None = None  # episodes per gradient step; none: all of an update
    n_epochs: int = 1  # passes over each batch, π_old staying what it was
    clip_range: float = 0.2  # ε_low, and ε_high where that is not given
    clip_range_high: float | None = None  # ε_high, for ratios above 1
    ratio: Literal["token", "sequence"] = "token"  # of each decision, or their geometric mean in the episode
    objective: Literal["clipped", "truncated"] = "clipped"  # PPO's, or a score weighted by the clipped ratio
    baseline: Literal["mean", "leave-one-out"] = "mean"  # of the group, the episode itself included or not
    scale_rewards: Scale = "group"  # divide by the deviation of the returns in the group, the batch, or not
    average: Average = usual("sequence", text="token")  # of episodes' means, or as said; text: token
    max_length: int | None = None  # decisions an episode can have, for average="constant"; none: the world's
    beta: float = 0.0  # β, weight of the KL to the reference policy
    kl: Divergence = "k3-corrected"  # estimator: k1-in-reward of whole episodes, the others of each decision
    dynamic_sampling: bool = False  # replace groups whose returns are all equal by others
    mask_truncated: bool = False  # learn nothing from episodes that a limit cut off
    rho_max: float | None = None  # score π_old anew, weigh by π_old/μ up to this; none: on text, at need
    ent_coef: float = 0.0  # weight of the entropy bonus
    gamma: float = 1.0  # discount γ within the return
    max_grad_norm: float = 1.0  # clip the gradient to this norm
    learning_rate_schedule: Schedule = "constant"  # keep the step size, or let it fall to zero
    optimizer: Optimizer = "adam"  # how gradients become steps
    optimizer_eps: float = usual(1e-5, text=1e-8)  # ε of √v + ε, which the optimiser divides by
    critic: ClassVar[Critic] = "none"
    critic_learning_rate: ClassVar[None] = None

    def __post_init__(self) -> None:
        validate(self)
        if self.baseline == "leave-one-out" and self.scale_rewards == "group":
            raise UsageError(
                "GRPO: baseline 'leave-one-out' does not go with scale_rewards 'group', whose deviation "
                "contains the episode that is judged: take scale_rewards 'none' or 'batch'"
            )

    @property
    def reference(self) -> bool:
        """Whether a frozen policy π_ref is needed."""
        return self.beta > 0.0

    def collects(self, n_envs: int) -> Episodes:
        """Groups of whole episodes, one per column."""
        if self.average == "constant" and self.max_length is None:
            raise UsageError("GRPO: average 'constant' needs max_length, the decisions an episode can have")
        n = self.n_prompts * self.num_generations
        return Episodes(n, self.num_generations, unequal=self.dynamic_sampling)

    @torch.no_grad()
    def credit(self, agent: ReferenceAgent, traj: Trajectory) -> Batch:
        """Each episode's return relative to its group's, for all its decisions."""
        if self.rho_max is not None and traj.weight is None:
            traj = rescored(agent, traj, self.rho_max)
        logp_ref = None
        discounted = traj.reward * discount_weight(traj.done, self.gamma, traj.reward.dtype)
        ret, counted = torch.where(traj.mask > 0, discounted, 0.0).sum(0), traj.mask.amax(0)
        advantage = self.relative(ret, counted).expand_as(traj.reward)
        if self.reference:
            logp_ref = agent.reference(traj.decisions).log_prob(traj.action)
            if self.kl == "k1-in-reward":
                penalty = kl.in_reward(traj.logp, logp_ref, traj.mask, self.beta)
                advantage = advantage + reward_to_go(penalty, traj.done, self.gamma)
        mask = traj.mask
        if self.mask_truncated:
            cut = traj.done & ~traj.terminated & (mask > 0)
            mask = mask * (~cut.any(0)).to(mask.dtype)
        own = (traj.decisions, traj.action, traj.logp, mask)
        return Batch(*own, advantage, weight=traj.weight, logp_ref=logp_ref)

    def relative(self, ret: Tensor, counted: Tensor) -> Tensor:
        """Âᵢ of episodes with these returns [B]; where `counted` is 0 it is 0."""
        size = self.num_generations
        if self.baseline == "mean":
            advantage = group_relative(ret, size, self.scale_rewards == "group", weight=counted)
        else:
            advantage = leave_one_out(ret, size, counted)
        return advantage / (deviation(ret, counted) + 1e-4) if self.scale_rewards == "batch" else advantage

    def loss(self, agent: ReferenceAgent, batch: Batch) -> tuple[Tensor, Metrics]:
        """The surrogate, the divergence and the entropy bonus, to be descended."""
        policy = agent.policy(batch.obs)
        logp, mask = policy.log_prob(batch.action), batch.mask
        low, high = self.clip_range, self.clip_range_high or self.clip_range
        log_ratio = logp - batch.logp if self.ratio == "token" else mean_log_ratio(logp, batch.logp, mask)
        surrogate = clipped if self.objective == "clipped" else truncated_score
        objective = surrogate(log_ratio, torch.zeros_like(log_ratio), batch.advantage, low, high)
        penalty = self.divergence(logp, batch)
        objective, penalty = weighted(objective, batch), weighted(penalty, batch)
        entropy = entropy_of(policy, self.ent_coef)
        loss = self.mean(self.beta * penalty - objective - self.ent_coef * entropy, batch)

        ratio = log_ratio.detach().exp()
        down, up = (batch.advantage < 0) & (ratio < 1.0 - low), (batch.advantage > 0) & (ratio > 1.0 + high)
        metrics = {
            "train/policy_gradient_loss": -objective,
            "train/entropy_loss": -entropy,
            "clip_ratio/low_mean": down.to(logp.dtype),
            "clip_ratio/high_mean": up.to(logp.dtype),
        }
        return loss, decision_metrics(batch, logp, metrics) | {"train/loss": loss.detach()}

    def divergence(self, logp: Tensor, batch: Batch) -> Tensor:
        """The estimate of KL(π‖π_ref) that is in the loss, per decision."""
        if batch.logp_ref is None or self.kl == "k1-in-reward":
            return torch.zeros_like(logp)
        match self.kl:
            case "k2":
                return kl.k2(logp, batch.logp_ref)
            case "k3":
                return kl.k3(logp, batch.logp_ref)
            case "k3-corrected":
                return kl.k3_corrected(logp, batch.logp_ref, batch.logp)

    def mean(self, x: Tensor, batch: Batch) -> Tensor:
        """The one average: of episodes' means, of decisions, or by a length that the data leave alone."""
        match self.average:
            case "sequence":
                return per_sequence(x, batch.mask, batch.sequences)
            case "token":
                return mean(x, batch.mask, batch.decisions)
            case "constant":
                assert self.max_length is not None
                return constant(x, batch.mask, batch.sequences * self.max_length)

    def update(self, learner: Learner, traj: Trajectory) -> Metrics:
        """Epochs over one batch of groups, π_old frozen."""
        batch = learner.compute(self.credit, traj)
        equal = ~unequal(traj, self.num_generations)  # by returns: a penalty in the reward has its own pull
        for _ in range(self.n_epochs):
            for minibatch in learner.columns(batch, self.batch_size or batch.mask.shape[1]):
                if not (self.beta or self.ent_coef):
                    minibatch = minibatch.with_advantage()
                if minibatch.mask.shape[1]:
                    learner.descend(self.loss, minibatch)
        return {"train/frac_equal_groups": equal.to(traj.reward.dtype).mean()}
