"""An observation together with the actions that are allowed on it."""

from dataclasses import dataclass

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
