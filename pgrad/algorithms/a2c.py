"""Advantage actor-critic, synchronous (Mnih et al. 2016, arXiv 1602.01783, without its asynchrony)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from pgrad.algorithms.critic import critic_metrics, gae_credit
from pgrad.algorithms.metrics import decision_metrics, entropy_of, normalized
from pgrad.algorithms.protocol import Agent, Critic, Learner, Metrics, Optimizer, Schedule
from pgrad.algorithms.reference import with_penalty
from pgrad.algorithms.sampler import weighted
from pgrad.algorithms.usual import POLICY, Lengths, usual
from pgrad.algorithms.validate import validate
from pgrad.data import Batch, Steps, Trajectory
from pgrad.math.objectives import score_function, squared_error
from pgrad.math.reduce import mean


@dataclass(frozen=True)
class A2C:
    """Ascend E[ Â·log π − c₁·(V − V̂)² + c₂·H ], one step per window of N parallel worlds (algorithm S3).

    With λ = 1, Â = rₜ + … + γ^k·V(s_{t+k}) − V(sₜ) up to the end of the window or of the episode.
    """

    learning_rate: float = usual(7e-4, text=POLICY)  # step size of the actor
    critic_learning_rate: float | None = None  # step size of the critic; none: the same, on text 10 times it
    n_steps: int = usual(5, text=Lengths(8))  # steps of each environment per update
    gamma: float = usual(0.99, text=1.0)  # discount γ
    gae_lambda: float = 1.0  # λ of the advantage: 1 is the n-step return − V
    normalize_advantage: bool = False  # standardise advantages within the window
    ent_coef: float = usual(0.01, text=0.0)  # c₂, weight of the entropy bonus
    beta: float = 0.0  # β, weight of the KL to the reference policy, which rewards are less by (k1)
    vf_coef: float = 0.5  # c₁, weight of the critic's squared error
    max_grad_norm: float = 0.5  # clip the gradient to this norm
    learning_rate_schedule: Schedule = "constant"  # keep the step size, or let it fall to zero
    optimizer: Optimizer = usual("rmsprop", text="adam")  # how gradients become steps; on text adam
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
        """λ = 1 makes it the n-step advantage."""
        traj, logp_ref = with_penalty(agent, traj, self.beta)
        return replace(gae_credit(agent, traj, self.gamma, self.gae_lambda), logp_ref=logp_ref)

    def loss(self, agent: Agent, batch: Batch) -> tuple[Tensor, Metrics]:
        """The score function, the critic's error and the entropy bonus, to be descended."""
        assert batch.target is not None
        policy, value = agent.policy_and_value(batch.obs)
        logp = policy.log_prob(batch.action)
        advantage = normalized(batch) if self.normalize_advantage else batch.advantage
        objective = weighted(score_function(logp, advantage), batch)
        value_error = squared_error(value, batch.target)
        entropy = entropy_of(policy, self.ent_coef)
        total = self.vf_coef * value_error - objective - self.ent_coef * entropy
        loss = mean(total, batch.mask, batch.decisions)
        metrics = {
            "train/policy_gradient_loss": -objective,
            "train/value_loss": value_error,
            "train/entropy_loss": -entropy,
        }
        return loss, decision_metrics(batch, logp, metrics) | {"train/loss": loss.detach()}

    def update(self, learner: Learner, traj: Trajectory) -> Metrics:
        """One step on the whole window."""
        batch = learner.compute(self.credit, traj)
        learner.descend(self.loss, batch)
        return critic_metrics(learner, batch)
