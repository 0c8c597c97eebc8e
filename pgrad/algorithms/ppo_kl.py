"""Proximal policy optimisation with a KL penalty (Schulman et al. 2017, arXiv 1707.06347, section 4)."""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from pgrad.algorithms.critic import critic_metrics, gae_credit, passes
from pgrad.algorithms.metrics import decision_metrics, normalized
from pgrad.algorithms.protocol import Agent, Critic, Learner, Metrics, Optimizer, Schedule
from pgrad.algorithms.validate import check_batch_size, validate
from pgrad.data import Batch, Steps, Trajectory, map_tree
from pgrad.data.handover import hand_over
from pgrad.data.sequence import by_row
from pgrad.math.objectives import importance_weighted, squared_error
from pgrad.math.reduce import mean


@dataclass(frozen=True)
class PPOKL:
    """Ascend E[ r·Â − β·KL(π_old ‖ π) − c₁·(V − V̂)² + c₂·H ] for several epochs (eq. 8).

    The KL is exact, from the whole distributions. With a `target_kl`, β doubles after an update whose KL came
    out above 1.5 times the target and halves below the target over 1.5; without one it stays.
    """

    learning_rate: float = 3e-4  # step size
    n_steps: int = 256  # steps of each environment per update
    batch_size: int = 64  # decisions per minibatch
    n_epochs: int = 10  # passes over each rollout
    gamma: float = 0.99  # discount γ
    gae_lambda: float = 0.95  # λ of the advantage: 0 is the TD error, 1 is return − V
    beta: float = 1.0  # β, weight of the KL penalty (its first value, where it adapts)
    target_kl: float | None = 0.01  # KL that one update may cost; β adapts to it
    normalize_advantage: bool = True  # standardise advantages within each minibatch
    recompute_advantage: bool = False  # estimate advantages anew, by the newer critic, before each pass
    ent_coef: float = 0.01  # c₂, weight of the entropy bonus
    vf_coef: float = 0.5  # c₁, weight of the critic's squared error
    max_grad_norm: float = 0.5  # clip the gradient to this norm
    critic_learning_rate: float | None = None  # step size of the critic, if another
    learning_rate_schedule: Schedule = "constant"  # keep the step size, or let it fall to zero
    optimizer: Optimizer = "adam"  # how gradients become steps
    optimizer_eps: float = 1e-5  # ε of √v + ε, which the optimiser divides by
    critic: ClassVar[Critic] = "value"

    def __post_init__(self) -> None:
        validate(self)

    def collects(self, n_envs: int) -> Steps:
        """A window of every environment, divided by the minibatches."""
        check_batch_size(self.n_steps, n_envs, self.batch_size)
        return Steps(self.n_steps)

    @torch.no_grad()
    def credit(self, agent: Agent, traj: Trajectory, moved: bool = False) -> Batch:
        """PPO's credit, and the whole policy that acted: of an agent that has `moved` since, PPO's only."""
        batch = gae_credit(agent, traj, self.gamma, self.gae_lambda, moved)
        if moved:
            return batch
        # Cloned: a σ that does not depend on the state is a view of the parameter that is about to move.
        return replace(batch, policy=map_tree(Tensor.clone, by_row(agent.policy, batch.obs)))

    def loss(self, agent: Agent, batch: Batch, beta: Tensor | None = None) -> tuple[Tensor, Metrics]:
        """The importance-weighted surrogate, the penalty by the present β, the critic's error, the bonus."""
        assert batch.policy is not None
        assert batch.target is not None
        policy, value = agent.policy_and_value(batch.obs)
        logp = policy.log_prob(batch.action)
        advantage = normalized(batch) if self.normalize_advantage else batch.advantage
        objective = importance_weighted(logp, batch.logp, advantage)
        kl = batch.policy.kl(policy)
        value_error = squared_error(value, batch.target)
        entropy = policy.entropy()
        gain = (
            objective
            - (self.beta if beta is None else beta) * kl
            - self.vf_coef * value_error
            + self.ent_coef * entropy
        )
        loss = -mean(gain, batch.mask, batch.decisions)
        metrics = {
            "train/policy_gradient_loss": -objective,
            "train/kl": kl,
            "train/value_loss": value_error,
            "train/entropy_loss": -entropy,
        }
        return loss, decision_metrics(batch, logp, metrics) | {"train/loss": loss.detach()}

    def update(self, learner: Learner, traj: Trajectory) -> Metrics:
        """Epochs of shuffled minibatches over one rollout, then β for the next."""
        batch = learner.compute(self.credit, traj).flatten()
        beta = learner.variables.setdefault("beta", torch.tensor(self.beta))
        now = partial(self.loss, beta=hand_over(beta, batch.mask.device))
        recompute = partial(learner.compute, partial(self.credit, moved=True), traj)
        anew = recompute if self.recompute_advantage else None
        for minibatch in passes(learner, batch, self.batch_size, self.n_epochs, anew):
            learner.descend(now, minibatch)
        assert batch.policy is not None
        with torch.no_grad():
            kl = mean(batch.policy.kl(learner.agent.policy(batch.obs)), batch.mask)
        if self.target_kl is not None:
            grow = torch.where(
                kl > 1.5 * self.target_kl, 2.0, torch.where(kl < self.target_kl / 1.5, 0.5, 1.0)
            )
            learner.variables["beta"] = (beta * grow.cpu()).clamp(1e-6, 1e6)
        return critic_metrics(learner, batch) | {"train/beta": beta, "train/kl_after": kl}
