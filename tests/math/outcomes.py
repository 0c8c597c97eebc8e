"""All actions of a policy with their probabilities, so that expectations are sums."""

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pgrad.math.distributions import Bernoulli, Categorical, Gaussian, MultiCategorical


def outcomes(policy: Any) -> list[tuple[Any, Tensor]]:
    """Actions [N, …] with weights [N] that sum to 1 in every row: E[f(a)] exactly for f of degree ≤ 9."""
    n = len(policy.entropy())
    if isinstance(policy, Categorical):
        actions = [torch.full((n,), a) for a in range(policy.logits.shape[-1])]
        return [(a, policy.log_prob(a).exp()) for a in actions]
    if isinstance(policy, MultiCategorical):
        pairs = [torch.tensor([p] * n) for p in itertools.product(*map(range, policy.nvec))]
        return [(a, policy.log_prob(a).exp()) for a in pairs]
    if isinstance(policy, Bernoulli):
        bits = [torch.tensor([p] * n) for p in itertools.product((0, 1), repeat=policy.logits.shape[-1])]
        return [(a, policy.log_prob(a).exp()) for a in bits]
    if isinstance(policy, Gaussian):
        nodes, weights = np.polynomial.hermite_e.hermegauss(5)
        rules = itertools.product(list(zip(nodes, weights, strict=True)), repeat=policy.mean.shape[-1])
        found = []
        for rule in rules:
            z = torch.tensor([node for node, _ in rule], dtype=torch.float64)
            weight = torch.full((n,), math.prod(w for _, w in rule), dtype=torch.float64)
            weight = weight / (2 * math.pi) ** (len(rule) / 2)
            found.append((policy.mean + policy.log_std.exp() * z, weight))
        return found
    combined = itertools.product(*(outcomes(part) for part in policy.parts.values()))
    return [
        (dict(zip(policy.parts, [a for a, _ in one], strict=True)), math.prod(w for _, w in one))  # type: ignore[misc]
        for one in combined
    ]
