"""The agent of the laboratory: tables instead of networks."""

from collections.abc import Iterator

from torch import Tensor

from pgrad.math.distributions import Categorical


class TabularAgent:
    """π(·|s) = softmax(theta[observation[s]]) and V_t(s) = critic[t, s], for observations t·S + s.

    Both are functions of their tables, so that autograd and its vectorised forms can be asked for either.
    """

    def __init__(self, theta: Tensor, critic: Tensor, observation: Tensor) -> None:
        self.theta = theta  # [O, A]
        self.critic = critic  # [T+1, S]
        self.observation = observation  # [S]

    def policy(self, obs: Tensor) -> Categorical:
        """π(·|s), which sees the observation of s and not the time."""
        return Categorical(self.theta[self.observation[obs % len(self.observation)]])

    def reference(self, obs: Tensor) -> Categorical:
        """π_ref(·|s): the policy itself, frozen."""
        return Categorical(self.theta.detach()[self.observation[obs % len(self.observation)]])

    def value(self, obs: Tensor) -> Tensor:
        """V_t(s), which sees everything."""
        return self.critic.flatten()[obs]

    def policy_and_value(self, obs: Tensor) -> tuple[Categorical, Tensor]:
        """Both."""
        return self.policy(obs), self.value(obs)

    def parameters(self) -> Iterator[Tensor]:
        """Both tables."""
        yield self.theta
        yield self.critic
