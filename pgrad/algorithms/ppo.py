"""Proximal policy optimisation with a clipped objective (Schulman et al. 2017, arXiv 1707.06347)."""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from pgrad.algorithms.critic import critic_metrics, gae_credit, passes
from pgrad.algorithms.metrics import decision_metrics, entropy_of, normalized
from pgrad.algorithms.protocol import Agent, Critic, Learner, Metrics, Optimizer, Schedule
from pgrad.algorithms.reference import with_penalty
from pgrad.algorithms.sampler import weighted
from pgrad.algorithms.usual import POLICY, Lengths, usual
from pgrad.algorithms.validate import check_batch_size, validate
from pgrad.data import Batch, Steps, Trajectory
from pgrad.math.objectives import clipped, clipped_squared_error, squared_error
from pgrad.math.reduce import mean


@dataclass(frozen=True)
class PPO:
    """Ascend E[ min(r·Â, clip(r, 1−ε, 1+ε)·Â) − c₁·(V − V̂)² + c₂·H ] for several epochs (eq. 7 and 9).

    r = π/π_old; Â by generalised advantage estimation; V̂ = Â + V_old. V goes on where a time limit cuts an
    episode; a completion that is cut was judged as it stands, and nothing comes after it.
    """

    learning_rate: float = usual(3e-4, text=POLICY)  # step size
    n_steps: int = usual(256, text=Lengths(8))  # steps of each environment per update
    batch_size: int | None = usual(64, text=None)  # decisions per minibatch; none: all of an update
    n_epochs: int = usual(10, text=4)  # passes over each rollout
    gamma: float = usual(0.99, text=1.0)  # discount γ
    gae_lambda: float = 0.95  # λ of the advantage: 0 is the TD error, 1 is return − V
    clip_range: float = 0.2  # ε: a ratio further than this from 1 earns nothing
    clip_range_vf: float | None = None  # clip the change of the critic likewise (often harmful)
    normalize_advantage: bool = True  # standardise advantages within each minibatch
    recompute_advantage: bool = False  # estimate advantages anew, by the newer critic, before each pass
    ent_coef: float = usual(0.01, text=0.0)  # c₂, weight of the entropy bonus
    beta: float = 0.0  # β, weight of the KL to the reference policy, which rewards are less by (k1)
    vf_coef: float = 0.5  # c₁, weight of the critic's squared error
    max_grad_norm: float = 0.5  # clip the gradient to this norm
    target_kl: float | None = None  # end the passes after the step that finds approx_kl over 1.5 times this
    critic_learning_rate: float | None = None  # step size of the critic; none: the same, on text 10 times it
    learning_rate_schedule: Schedule = "constant"  # keep the step size, or let it fall to zero
    clip_range_schedule: Schedule = "constant"  # keep ε, or let it fall to zero
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
        """A window of every environment, divided by the minibatches."""
        if self.batch_size is not None:
            check_batch_size(self.n_steps, n_envs, self.batch_size)
        return Steps(self.n_steps)

    def credit(self, agent: Agent, traj: Trajectory, moved: bool = False) -> Batch:
        """Generalised advantage estimation and TD(λ) targets, by an agent that has `moved` since it acted."""
        traj, logp_ref = with_penalty(agent, traj, self.beta)
        return replace(gae_credit(agent, traj, self.gamma, self.gae_lambda, moved), logp_ref=logp_ref)

    def loss(self, agent: Agent, batch: Batch, clip_range: Tensor | None = None) -> tuple[Tensor, Metrics]:
        """The surrogate, clipped to the ε of now, the critic's error and the bonus, to be descended."""
        epsilon = self.clip_range if clip_range is None else clip_range
        policy, value = agent.policy_and_value(batch.obs)
        logp = policy.log_prob(batch.action)
        advantage = normalized(batch) if self.normalize_advantage else batch.advantage
        objective = clipped(logp, batch.logp, advantage, epsilon, epsilon)
        value_error = self.value_error(value, batch)
        entropy = entropy_of(policy, self.ent_coef)
        total = self.vf_coef * value_error - weighted(objective, batch) - self.ent_coef * entropy
        loss = mean(total, batch.mask, batch.decisions)

        outside = ((logp.detach() - batch.logp).exp() - 1.0).abs() > epsilon
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
        batch = learner.compute(self.credit, traj).flatten()
        left = 1.0 - learner.progress if self.clip_range_schedule == "linear" else 1.0
        clip_range = torch.full((), max(self.clip_range * left, 1e-8), device=batch.mask.device)
        now = partial(self.loss, clip_range=clip_range)
        recompute = partial(learner.compute, partial(self.credit, moved=True), traj)
        anew = recompute if self.recompute_advantage else None
        for minibatch in passes(learner, batch, self.batch_size or batch.mask.numel(), self.n_epochs, anew):
            metrics = learner.descend(now, minibatch)
            if self.target_kl is not None and metrics["train/approx_kl"] > 1.5 * self.target_kl:
                break
        return critic_metrics(learner, batch) | {"train/clip_range": clip_range}
