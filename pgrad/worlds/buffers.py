"""Tensors for what worlds show."""

from typing import Any

import torch
from gymnasium import Space

from pgrad.data.tree import Tree, map_tree
from pgrad.environments.spaces import buffers
from pgrad.worlds.protocol import Step


def zeros(space: Space[Any], *batch: int) -> Tree:
    """Zeros [*batch, ...] in the structure and the types of `environments.spaces.buffers`."""
    return map_tree(torch.from_numpy, buffers(space, *batch))


def on_device(step: Step, device: torch.device) -> Step:
    """A copy of `step` on `device`."""
    return Step(*(map_tree(lambda x: x.to(device), part) for part in step))
