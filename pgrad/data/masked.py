"""An observation together with the actions that are allowed on it."""

import math
from dataclasses import dataclass
from typing import Any

from gymnasium import Space
from gymnasium.spaces import Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from torch import Tensor

from pgrad.data.tree import Tree


@dataclass(frozen=True)
class Masked:
    """What a world shows where it forbids actions: a tree like any other observation.

    The mask lists the values of all choices side by side, in the order of the action space: n for a Discrete,
    nvec[0], nvec[1], … for a MultiDiscrete, two (0, 1) for each bit of a MultiBinary, nothing for a Box.
    """

    obs: Tree  # [..., *space]
    allowed: Tensor  # [..., sum(choices(action_space))] bool


def bare(obs: Tree) -> Tree:
    """The observation without its mask, if it has one."""
    return obs.obs if isinstance(obs, Masked) else obs


def choices(space: Space[Any]) -> tuple[int, ...]:
    """How many values each choice of an action space has, as a mask lists them."""
    if isinstance(space, Dict | Tuple):
        parts = space.spaces.values() if isinstance(space, Dict) else space.spaces
        return tuple(n for part in parts for n in choices(part))
    if isinstance(space, Discrete):
        return (int(space.n),)
    if isinstance(space, MultiDiscrete):
        return tuple(space.nvec.reshape(-1).tolist())
    if isinstance(space, MultiBinary):
        return (2,) * math.prod(space.shape)
    return ()


def forbidden(sizes: tuple[int, ...], row: Any) -> int | None:
    """The first choice of a mask [sum(sizes)] of which no value is allowed; None where there is none."""
    start = 0
    for k, n in enumerate(sizes):
        if not row[start : start + n].any():
            return k
        start += n
    return None
