"""Action masks: a policy among the allowed actions only."""

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from pgrad.math.distributions import Bernoulli, Categorical, MultiCategorical, Product


def restrict(policy: Any, allowed: Bool[Tensor, "*batch choices"]) -> Any:
    """π(a|s)·1[a allowed] / Σ_b π(b|s)·1[b allowed] for every choice that the policy makes.

    `allowed` lists the values of all choices side by side: those of a Categorical, of each part of a
    MultiCategorical, 0 and 1 of each bit of a Bernoulli, of each part of a Product in turn. Continuous
    distributions have none and stay as they are. Each choice needs an allowed value: the caller must refuse
    others. (Huang & Ontañón, "A Closer Look at Invalid Action Masking", 2022.)
    """
    match policy:
        case Categorical():
            return Categorical.masked(policy.logits, allowed)
        case MultiCategorical():
            return MultiCategorical.masked(policy.logits, allowed, policy.nvec)
        case Bernoulli():
            return Bernoulli.masked(policy.logits, allowed)
        case Product():
            parts = _parts(policy)
            masks = torch.split(allowed, [_width(part) for part in parts], -1)
            restricted = [restrict(part, mask) for part, mask in zip(parts, masks, strict=True)]
            names = policy.parts if isinstance(policy.parts, dict) else None
            return Product(dict(zip(names, restricted, strict=True)) if names else tuple(restricted))
        case _:
            return policy


def _width(policy: Any) -> int:
    match policy:
        case Categorical() | MultiCategorical():
            return int(policy.logits.shape[-1])
        case Bernoulli():
            return 2 * int(policy.logits.shape[-1])
        case Product():
            return sum(_width(part) for part in _parts(policy))
        case _:
            return 0


def _parts(policy: Product) -> list[Any]:
    return list(policy.parts.values() if isinstance(policy.parts, dict) else policy.parts)
