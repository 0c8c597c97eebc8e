"""Whether a distribution that a user's module answered is one over the actions of a world."""

import math
from typing import Any

from gymnasium import spaces
from torch import Tensor

from pgrad.environments.masks import choices
from pgrad.math.distributions import Categorical, MultiCategorical, Product


def misfit(policy: Any, space: spaces.Space[Any], n: int) -> str:
    """What is wrong with it for a batch of n observations, in words; nothing where it fits."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return _misfit_of_parts(policy, space, n)
    action = policy.mode
    if not isinstance(action, Tensor):
        return f"actions are a {type(action).__name__}, {space} needs a tensor"
    shape, own = tuple(action.shape), space.shape or ()
    flat = not isinstance(space, spaces.Discrete) and shape == (n, math.prod(own))
    if shape != (n, *own) and not flat:
        return f"actions have shape {shape} for a batch of {n}, {space} needs {(n, *own)}"
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and action.is_floating_point():
        return f"actions are of {action.dtype}, {space} needs whole numbers"
    if isinstance(space, spaces.Discrete) and isinstance(policy, Categorical):
        return _misfit_of_choices((policy.logits.shape[-1],), space)
    if isinstance(space, spaces.MultiDiscrete) and isinstance(policy, MultiCategorical):
        return _misfit_of_choices(policy.nvec, space)
    return ""


def _misfit_of_parts(policy: Any, space: spaces.Dict | spaces.Tuple, n: int) -> str:
    parts = policy.parts if isinstance(policy, Product) else policy.mode
    kind = dict if isinstance(space, spaces.Dict) else tuple
    own: dict[Any, Any]
    own = dict(space.spaces) if isinstance(space, spaces.Dict) else dict(enumerate(space.spaces))
    have = dict(parts if kind is dict else enumerate(parts)) if isinstance(parts, kind) else {}
    if have.keys() != own.keys():
        return f"{space} needs a Product of a {kind.__name__} with the keys {list(own)}"
    if not isinstance(policy, Product):  # a distribution of one's own
        return ""
    return next((text for key in own if (text := misfit(have[key], own[key], n))), "")


def _misfit_of_choices(have: tuple[int, ...], space: spaces.Space[Any]) -> str:
    if have == (needed := choices(space)):
        return ""
    return f"it chooses among {' × '.join(map(str, have))}, {space} has {' × '.join(map(str, needed))}"
