"""Agents that are tables, windows with every kind of ending, and a learner of plain gradient descent."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor, nn

from pgrad.algorithms.protocol import Loss, Metrics
from pgrad.data import Batch, Trajectory
from pgrad.math.distributions import Categorical, Gaussian


class Table(nn.Module):
    """π(·|s) = softmax(thetaₛ) and V(s) = criticₛ for observations s = 0, 1, …; the actor sees s mod
    len(theta)."""

    def __init__(self, theta: Tensor, critic: Tensor) -> None:
        super().__init__()
        self.theta, self.critic = nn.Parameter(theta.clone()), nn.Parameter(critic.clone())

    def policy(self, obs: Tensor) -> Categorical:
        return Categorical(self.theta[obs % len(self.theta)])

    def value(self, obs: Tensor) -> Tensor:
        return self.critic[obs]

    def policy_and_value(self, obs: Tensor) -> tuple[Any, Tensor]:
        return self.policy(obs), self.value(obs)


class GaussianTable(nn.Module):
    """π(·|s) = N(meanₛ, exp(log_std)) over two numbers, and V(s) = criticₛ."""

    def __init__(self, mean: Tensor, log_std: Tensor, critic: Tensor) -> None:
        super().__init__()
        self.mean, self.log_std = nn.Parameter(mean.clone()), nn.Parameter(log_std.clone())
        self.critic = nn.Parameter(critic.clone())

    def policy(self, obs: Tensor) -> Gaussian:
        mean = self.mean[obs]
        return Gaussian(mean, self.log_std.expand_as(mean))

    def value(self, obs: Tensor) -> Tensor:
        return self.critic[obs]

    def policy_and_value(self, obs: Tensor) -> tuple[Any, Tensor]:
        return self.policy(obs), self.value(obs)


def table(seed: int = 0, *, dtype: torch.dtype = torch.float64) -> Table:
    """Four states, three actions."""
    draw = Generator().manual_seed(seed)
    return Table(torch.randn(4, 3, generator=draw, dtype=dtype), torch.randn(4, generator=draw, dtype=dtype))


def gaussian_table(seed: int = 0, *, dtype: torch.dtype = torch.float64) -> GaussianTable:
    """Four states, actions of two numbers."""
    draw = Generator().manual_seed(seed)
    mean, log_std, critic = (torch.randn(*n, generator=draw, dtype=dtype) for n in ((4, 2), (2,), (4,)))
    return GaussianTable(mean, 0.3 * log_std, critic)


def window(agent: Any, T: int = 12, B: int = 5, seed: int = 0) -> Trajectory:
    """A window as a collector makes it: terminated and truncated episodes, reset rows, some of them at its
    borders."""
    draw = Generator().manual_seed(seed)
    dtype = agent.critic.dtype
    obs = torch.randint(4, (T + 1, B), generator=draw)
    reward = torch.randn(T, B, generator=draw, dtype=dtype)
    ends, dies = (torch.rand(T, B, generator=draw) < p for p in (0.3, 0.5))
    reset = torch.rand(B, generator=draw) < 0.4  # the row before the window ended an episode
    done, terminated = torch.zeros(T, B, dtype=torch.bool), torch.zeros(T, B, dtype=torch.bool)
    mask = torch.ones(T, B, dtype=dtype)
    for t in range(T):
        mask[t, reset], reward[t, reset] = 0.0, 0.0
        done[t], terminated[t] = ends[t] | reset, ends[t] & dies[t] & ~reset
        reset = ends[t] & ~reset
    with torch.no_grad():
        policy = agent.policy(obs[:-1])
        action = policy.sample(draw)
        logp = policy.log_prob(action)
    return Trajectory(obs, action, logp, reward, terminated, done, mask)


class Descent:
    """A learner whose step is θ ← θ − rate·∇loss, with one batch an epoch in the order of the rows."""

    def __init__(self, agent: nn.Module, rate: float, progress: float = 0.0) -> None:
        self.agent, self.rate, self.progress = agent, rate, progress
        self.variables: dict[str, Tensor] = {}
        self.steps: list[tuple[str | None, Batch]] = []

    def compute(self, function: Callable[..., Any], *inputs: Any) -> Any:
        return function(self.agent, *inputs)

    def descend(self, loss: Loss, batch: Batch, group: str | None = None) -> Metrics:
        self.steps.append((group, batch))
        scalar, metrics = loss(self.agent, batch)
        own = [
            p
            for name, p in self.agent.named_parameters()
            if group in (None, "critic" if name == "critic" else "actor")
        ]
        grads = torch.autograd.grad(scalar, own, allow_unused=True)
        with torch.no_grad():
            for p, g in zip(own, grads, strict=True):
                if g is not None:
                    p -= self.rate * g
        return metrics

    def minibatches(self, batch: Batch, batch_size: int) -> Iterator[Batch]:
        yield from batch.split(batch_size)


def gradients(agent: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """∇loss for every parameter, zeros where it is not used."""
    names, parameters = zip(*agent.named_parameters(), strict=True)
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, grads, strict=True)
    }
