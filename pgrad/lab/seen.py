"""What a credit sees: a trajectory, a critic and two policies, with `pgrad.math` applied to them."""

from dataclasses import dataclass

from torch import Tensor

from pgrad.data import Trajectory
from pgrad.lab.agent import TabularAgent
from pgrad.math import credit, importance


def discounted_gae(agent: TabularAgent, traj: Trajectory, gamma: float, gae_lambda: float) -> Tensor:
    """γᵗ·Âₜ of GAE(λ), the credit whose score function has ∇J as its mean if the critic is exact."""
    seen = Seen.by(agent, traj, gamma)
    return seen.discount * seen.gae(gae_lambda)


@dataclass(frozen=True, eq=False)
class Seen:
    """Everything [T, B], value [T+1, B]; each property and method is one function of `pgrad.math`."""

    traj: Trajectory
    value: Tensor
    logp: Tensor  # log π of the policy asked about, a constant
    gamma: float

    @staticmethod
    def by(agent: TabularAgent, traj: Trajectory, gamma: float) -> "Seen":
        """With the critic and the policy of an agent."""
        logp = agent.policy(traj.decisions).log_prob(traj.action)
        return Seen(traj, agent.value(traj.obs), logp.detach(), gamma)

    @property
    def discount(self) -> Tensor:
        """γᵗ."""
        return credit.discount_weight(self.traj.done, self.gamma, self.traj.reward.dtype)

    @property
    def to_go(self) -> Tensor:
        """Gₜ."""
        return credit.reward_to_go(self.traj.reward, self.traj.done, self.gamma)

    @property
    def whole(self) -> Tensor:
        """R(τ)."""
        return credit.full_return(self.traj.reward, self.traj.done, self.gamma)

    @property
    def per_decision(self) -> Tensor:
        """Gₜ with the ratio of all decisions that led to each reward."""
        x = self.traj
        return importance.per_decision_return(x.reward, self.logp, x.logp, x.done, self.gamma)

    @property
    def ratio(self) -> Tensor:
        """ρₜ."""
        return importance.step_ratio(self.logp, self.traj.logp)

    @property
    def prefix(self) -> Tensor:
        """ρ_{0:t}."""
        return importance.prefix_ratio(self.logp, self.traj.logp, self.traj.done)

    @property
    def trajectory_ratio(self) -> Tensor:
        """ρ(τ)."""
        return importance.trajectory_ratio(self.logp, self.traj.logp, self.traj.done)

    def gae(self, gae_lambda: float) -> Tensor:
        """Âₜ."""
        x = self.traj
        return credit.gae(x.reward, self.value, x.terminated, x.done, self.gamma, gae_lambda)

    def n_step(self, n: int) -> Tensor:
        """Gₜ⁽ⁿ⁾."""
        x = self.traj
        return credit.n_step_return(x.reward, self.value, x.terminated, x.done, self.gamma, n)

    def lambda_return(self, gae_lambda: float) -> Tensor:
        """Gₜ^λ."""
        x = self.traj
        return credit.lambda_return(x.reward, self.value, x.terminated, x.done, self.gamma, gae_lambda)

    def vtrace(self, gae_lambda: float = 1.0, limit: float = 1.0) -> credit.VTrace:
        """vₜ and its advantage, with ρ̄ = c̄ = limit."""
        x, how = self.traj, (self.gamma, gae_lambda, limit, limit)
        return credit.vtrace(x.reward, self.value, x.terminated, x.done, self.ratio, *how)
