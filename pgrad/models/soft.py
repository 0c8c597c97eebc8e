"""The networks of soft actor-critic: a policy, twin critics, the critics' slow copies, a temperature."""

import copy
import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from pgrad.data.tree import Tree
from pgrad.errors import UsageError
from pgrad.math.gaussians import TanhGaussian
from pgrad.models.bodies import ACTIVATIONS, linear, mlp, rounded
from pgrad.models.encoder import Encoder
from pgrad.models.heads import POLICY_GAIN, CategoricalHead

TWINS = 2
LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class TwinMLP(nn.Module):
    """Two multilayer perceptrons side by side, one matrix product per layer for both.

    Weights lie as [2, n_in, n_out], which makes their gradients contiguous; but the last as [2, n_out, n_in],
    because products with a narrow matrix, and their gradients, are 6 to 12 times faster that way.
    """

    def __init__(
        self,
        n_in: int,
        net_arch: tuple[int, ...],
        n_out: int,
        activation: str,
        generator: Generator,
        half: bool = False,
    ) -> None:
        super().__init__()
        self.in_half = half  # multiplies the matrices of hidden layers in bfloat16
        self.activation = ACTIVATIONS[activation]()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for width in net_arch:
            self.weights.append(_twins(n_in, width, math.sqrt(2), generator).mT.contiguous())
            self.biases.append(torch.zeros(TWINS, 1, width))
            n_in = width
        self.last_weight = nn.Parameter(_twins(n_in, n_out, 1.0, generator))
        self.last_bias = nn.Parameter(torch.zeros(TWINS, 1, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """[2, N, n_out] from [N, n_in]."""
        x = x.expand(TWINS, *x.shape)
        x = rounded(self._hidden, x, self.in_half)
        return torch.baddbmm(self.last_bias, x, self.last_weight.mT)

    def _hidden(self, x: Tensor) -> Tensor:
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = self.activation(torch.baddbmm(bias, x, weight))
        return x


def _twins(n_in: int, n_out: int, gain: float, generator: Generator) -> Tensor:
    """Two orthogonal matrices [2, n_out, n_in]."""
    return torch.stack([linear(n_in, n_out, gain, generator).weight.detach() for _ in range(TWINS)])


class QFunction(nn.Module):
    """Q₁ and Q₂ of observations and continuous actions, or of every discrete action."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box | spaces.Discrete,
        spec: Any,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(observation_space, generator, spec.half)
        n_in, n_out = self.encoder.size, 1
        if isinstance(action_space, spaces.Box):
            n_in += math.prod(action_space.shape)
        else:
            n_out = int(action_space.n)
        self.twins = TwinMLP(n_in, tuple(spec.net_arch), n_out, spec.activation, generator, spec.half)

    def forward(self, obs: Tree, action: Tensor | None) -> Tensor:
        """[2, N] for continuous actions [N, d]; [2, N, A], every action's, without one."""
        features = self.encoder(obs)
        if action is None:
            return self.twins(features)
        return self.twins(torch.cat([features, action], dim=-1)).squeeze(-1)


class SquashedHead(nn.Module):
    """Mean and log σ from the features, both of the state; actions within the bounds of the space."""

    low: Tensor
    high: Tensor

    def __init__(self, n_in: int, space: spaces.Box, log_std_init: float, generator: Generator) -> None:
        super().__init__()
        n = math.prod(space.shape)
        self.mean, self.log_std = (linear(n_in, n, POLICY_GAIN, generator) for _ in range(2))
        nn.init.constant_(self.log_std.bias, log_std_init)
        for name, bound in (("low", space.low), ("high", space.high)):  # copies: the space is the world's
            self.register_buffer(name, torch.tensor(bound, dtype=torch.float32).flatten())

    def forward(self, features: Tensor) -> TanhGaussian:
        """Distribution over [..., d] from features [..., n_in]."""
        # One product for both: narrow ones are slow.
        weight = torch.cat([self.mean.weight, self.log_std.weight])
        both = nn.functional.linear(features, weight, torch.cat([self.mean.bias, self.log_std.bias]))
        mean, log_std = both.chunk(2, dim=-1)
        log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        return TanhGaussian(mean, log_std, self.low.expand_as(mean), self.high.expand_as(mean))


class SoftNetwork(nn.Module):
    """π, Q₁ and Q₂, their targets, and log α, for one pair of spaces.

    An encoder that learns (images) is the critics'; the policy reads its features without training it.
    Raises UsageError for actions that are neither Discrete nor a bounded Box of some width.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        spec: Any,
        generator: Generator,
    ) -> None:
        super().__init__()
        if not isinstance(action_space, spaces.Box | spaces.Discrete):
            raise UsageError(f"SAC needs a Box of actions and DiscreteSAC a Discrete, got {action_space}")
        if isinstance(action_space, spaces.Box):
            _require_width(action_space)
        self.critic = QFunction(observation_space, action_space, spec, generator)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        body, n = mlp(self.critic.encoder.size, spec.net_arch, spec.activation, generator, spec.half)
        head: nn.Module = (
            SquashedHead(n, action_space, spec.log_std_init, generator)
            if isinstance(action_space, spaces.Box)
            else CategoricalHead(n, int(action_space.n), generator)
        )
        self.actor = nn.Sequential(body, head)
        self.temperature = nn.Parameter(torch.zeros(()))

    def policy(self, obs: Tree) -> Any:
        """π(·|s) for observations [..., *space]."""
        return self.actor(self.critic.encoder(obs).detach())

    def q(self, obs: Tree, action: Tensor | None = None) -> Tensor:
        """Q₁ and Q₂: [2, N] of actions [N, d], or [2, N, A] of every discrete action."""
        return self.critic(obs, action)

    def log_temperature(self) -> Tensor:
        """log α."""
        return self.temperature

    def target_q(self, obs: Tree, action: Tensor | None = None) -> Tensor:
        """The same by the slow copies."""
        return self.target_critic(obs, action)


def _require_width(space: spaces.Box) -> None:
    """Raise UsageError unless there are bounds in every dimension, with something between them."""
    if not space.is_bounded():
        raise UsageError(
            f"SAC squashes actions into the bounds of their space: {space} has none; use PPO or TRPO"
        )
    low, high = (np.asarray(bound, np.float32).reshape(-1) for bound in (space.low, space.high))
    empty = np.flatnonzero(low >= high)
    if len(empty):
        k = int(empty[0])
        raise UsageError(
            f"SAC squashes actions into the bounds of their space, and dimension {k} has no width: "
            f"{low[k]:g} to {high[k]:g}; leave it out of the space, or use PPO or TRPO"
        )
