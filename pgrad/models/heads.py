"""Heads: from features to a distribution over the actions of a space."""

import math
from typing import Any

import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from pgrad.errors import UsageError
from pgrad.math.distributions import Bernoulli, Categorical, Gaussian, MultiCategorical, Product
from pgrad.models.bodies import linear

POLICY_GAIN = 0.01  # a nearly uniform first policy (Andrychowicz et al. 2021, choice C57)


class CategoricalHead(nn.Module):
    """Logits of one choice among n (Discrete)."""

    def __init__(self, n_in: int, n: int, generator: Generator) -> None:
        super().__init__()
        self.logits = linear(n_in, n, POLICY_GAIN, generator)

    def forward(self, features: Tensor) -> Categorical:
        """Distribution over [...] from features [..., n_in]."""
        return Categorical(self.logits(features))


class MultiCategoricalHead(nn.Module):
    """Logits of several independent choices (MultiDiscrete)."""

    def __init__(self, n_in: int, nvec: tuple[int, ...], generator: Generator) -> None:
        super().__init__()
        self.nvec = nvec
        self.logits = linear(n_in, sum(nvec), POLICY_GAIN, generator)

    def forward(self, features: Tensor) -> MultiCategorical:
        """Distribution over [..., len(nvec)] from features [..., n_in]."""
        return MultiCategorical(self.logits(features), self.nvec)


class BernoulliHead(nn.Module):
    """Logits of independent bits (MultiBinary)."""

    def __init__(self, n_in: int, n: int, generator: Generator) -> None:
        super().__init__()
        self.logits = linear(n_in, n, POLICY_GAIN, generator)

    def forward(self, features: Tensor) -> Bernoulli:
        """Distribution over [..., n] from features [..., n_in]."""
        return Bernoulli(self.logits(features))


class GaussianHead(nn.Module):
    """Mean from the features, log σ a parameter that does not depend on the state (Box)."""

    def __init__(self, n_in: int, n: int, log_std_init: float, learn_std: bool, generator: Generator) -> None:
        super().__init__()
        self.mean = linear(n_in, n, POLICY_GAIN, generator)
        self.log_std = nn.Parameter(torch.full((n,), float(log_std_init)), requires_grad=learn_std)

    def forward(self, features: Tensor) -> Gaussian:
        """Distribution over [..., n] from features [..., n_in]."""
        mean = self.mean(features)
        return Gaussian(mean, self.log_std.expand_as(mean))


class ProductHead(nn.Module):
    """One head per part of a Dict or Tuple action: `keys` are those of a dict, None for a tuple."""

    def __init__(self, heads: list[nn.Module], keys: tuple[str, ...] | None) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.keys = keys

    def forward(self, features: Tensor) -> Product:
        """Independent distributions in the structure of the action."""
        parts = tuple(head(features) for head in self.heads)
        return Product(parts if self.keys is None else dict(zip(self.keys, parts, strict=True)))


def make_head(
    space: spaces.Space[Any], n_in: int, log_std_init: float, learn_std: bool, generator: Generator
) -> nn.Module:
    """The head for an action space. Raises UsageError for spaces that have none."""
    if isinstance(space, spaces.Discrete):
        return CategoricalHead(n_in, int(space.n), generator)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiCategoricalHead(n_in, tuple(space.nvec.reshape(-1).tolist()), generator)
    if isinstance(space, spaces.MultiBinary):
        return BernoulliHead(n_in, math.prod(space.shape), generator)
    if isinstance(space, spaces.Box):
        return GaussianHead(n_in, math.prod(space.shape), log_std_init, learn_std, generator)
    if isinstance(space, spaces.Dict | spaces.Tuple):
        keys = tuple(space.spaces) if isinstance(space, spaces.Dict) else None
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        heads = [make_head(part, n_in, log_std_init, learn_std, generator) for part in parts]
        return ProductHead(heads, keys)
    raise UsageError(
        f"action space {type(space).__name__} is not supported; supported: "
        "Discrete, Box, MultiDiscrete, MultiBinary, Dict, Tuple"
    )
