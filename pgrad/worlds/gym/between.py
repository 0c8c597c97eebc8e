"""Between the tensors of a world and the arrays of its environments."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Dict, Tuple
from torch import Tensor

from pgrad.data.shown import Numpy
from pgrad.data.tree import Tree
from pgrad.environments.spaces import Array, MismatchError, space_leaves
from pgrad.errors import WorldError


class Given:
    """Actions as sampled, a tree of tensors, as one array for each part of their space, in its order."""

    def __init__(self, space: Space[Any], world: str) -> None:
        """world: its name, for messages."""
        self._space, self._world = space, world
        self._is_whole = not isinstance(space, Dict | Tuple)
        self._numpy = [Numpy() for _ in space_leaves(space, "action")]

    def __call__(self, action: Tree) -> list[Array]:
        """Views where that is possible. Raises WorldError for another structure."""
        # Right after a simulator whatever is called runs from cold caches: a call less is microseconds less.
        if self._is_whole and isinstance(action, Tensor):
            return [self._numpy[0](_known(action))]
        try:
            tensors = list(_tensors(self._space, action, "action"))
        except MismatchError as error:
            raise WorldError(f"{self._world}: {error}") from None
        return [numpy(_known(x)) for numpy, x in zip(self._numpy, tensors, strict=True)]


def _tensors(space: Space[Any], action: Tree, path: str) -> Iterator[Tensor]:
    if isinstance(space, Dict):
        if not isinstance(action, dict) or action.keys() != space.spaces.keys():
            raise MismatchError(f"the {path} must be a dict with the keys {list(space.spaces)}")
        for key, part in space.spaces.items():
            yield from _tensors(part, action[key], f"{path}[{key!r}]")
    elif isinstance(space, Tuple):
        if not isinstance(action, tuple) or len(action) != len(space.spaces):
            raise MismatchError(f"the {path} must be a tuple of {len(space.spaces)}")
        for k, part in enumerate(space.spaces):
            yield from _tensors(part, action[k], f"{path}[{k}]")
    elif isinstance(action, Tensor):
        yield action
    else:
        raise MismatchError(f"the {path} must be a tensor for {space}, got a {type(action).__name__}")


def _known(x: Tensor) -> Tensor:
    """Of a type that numpy has too."""
    return x.float() if x.dtype is torch.bfloat16 else x


def to_numpy(value: Any) -> Any:
    """A nested value with arrays for tensors."""
    if isinstance(value, dict):
        return {key: to_numpy(part) for key, part in value.items()}
    return value.numpy() if isinstance(value, Tensor) else value


def to_tensors(value: Any) -> Any:
    """The inverse of `to_numpy`."""
    if isinstance(value, dict):
        return {key: to_tensors(part) for key, part in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
