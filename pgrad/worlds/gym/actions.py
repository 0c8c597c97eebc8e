"""From actions as sampled (tensors) to actions as an environment takes them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from numpy.typing import NDArray
from torch import Tensor

from pgrad.data.tree import Tree
from pgrad.worlds.spaces import Array, MismatchError, describe, integer_range, space_leaves


def action_buffers(space: Space[Any], n: int) -> list[Array]:
    """Zeros [n, ...] for each part of `space`, as `to_arrays` makes them."""
    return [np.zeros((n, *(leaf.shape or ())), _dtype(leaf)) for _, leaf in space_leaves(space, "action")]


def to_arrays(space: Space[Any], action: Tree, counted: NDArray[np.bool_]) -> list[Array]:
    """The actions [B, ...] as one array for each part of `space`, in its order.

    Discrete and MultiDiscrete are moved to their start, Box is clipped to its bounds (and rounded where it is
    of integers), everything is cast to the space's dtype. Parts of several dimensions may come flat.

    Raises MismatchError for another structure, shape or kind of numbers; and for NaN, infinity or an integer
    outside the space where `counted` [B] is true (elsewhere the action is ignored).
    """
    # Right after a simulator whatever is called runs from cold caches: a call less is microseconds less.
    if type(space) in (Box, Discrete) and isinstance(action, Tensor):
        return [_encode("action", space, action, counted)]
    return [_encode(path, leaf, x, counted) for path, leaf, x in _pairs(space, action, "action")]


def to_rows(space: Space[Any], arrays: Sequence[Array]) -> list[Any]:
    """The B actions in `arrays`, one for each environment."""
    if type(space) is Box:
        return list(arrays[0])
    return _rows(space, iter(arrays))


def to_batch(space: Space[Any], arrays: Sequence[Array]) -> Any:
    """The B actions in `arrays` as one value of a vector environment's batched action space."""
    return _batch(space, iter(arrays))


def _pairs(space: Space[Any], action: Tree, path: str) -> Iterator[tuple[str, Space[Any], Tensor]]:
    if isinstance(space, Dict):
        if not isinstance(action, dict) or action.keys() != space.spaces.keys():
            raise MismatchError(f"the {path} must be a dict with the keys {list(space.spaces)}")
        for key, part in space.spaces.items():
            yield from _pairs(part, action[key], f"{path}[{key!r}]")
    elif isinstance(space, Tuple):
        if not isinstance(action, tuple) or len(action) != len(space.spaces):
            raise MismatchError(f"the {path} must be a tuple of {len(space.spaces)}")
        for k, part in enumerate(space.spaces):
            yield from _pairs(part, action[k], f"{path}[{k}]")
    elif isinstance(action, Tensor):
        yield path, space, action
    else:
        raise MismatchError(f"the {path} must be a tensor for {space}, got a {type(action).__name__}")


def _encode(path: str, leaf: Space[Any], action: Tensor, counted: NDArray[np.bool_]) -> Array:
    array: Array = (action.float() if action.dtype == torch.bfloat16 else action).numpy(force=True)
    shape = (len(counted), *(leaf.shape or ()))
    if array.shape != shape:
        if array.shape != (shape[0], math.prod(shape[1:])):
            raise MismatchError(f"the {path} has shape {array.shape}, {shape[0]} × {leaf} needs {shape}")
        array = array.reshape(shape)
    if array.dtype.kind == "f" and isinstance(leaf, Discrete | MultiDiscrete):
        raise MismatchError(f"the {path} has dtype {array.dtype}, {leaf} needs integers")
    if not _surely_right(leaf, array):
        array = _without_wrong(path, leaf, array, counted)
    if isinstance(leaf, Discrete | MultiDiscrete):
        array = array + integer_range(leaf)[0]
    elif isinstance(leaf, Box):
        if leaf.dtype.kind in "iu":
            array = np.rint(array)
        array = np.minimum(np.maximum(array, leaf.low), leaf.high)
    return array if array.dtype == _dtype(leaf) else array.astype(_dtype(leaf))


def _surely_right(leaf: Space[Any], array: Array) -> bool:
    """A quick look: false may only mean that it takes a slower one."""
    if isinstance(leaf, Discrete):
        rows = array.tolist()
        return bool(min(rows) >= 0 and max(rows) < leaf.n)
    if isinstance(leaf, Box) and array.dtype.kind == "f":
        return math.isfinite(np.vdot(array, array))
    return False


def _without_wrong(path: str, leaf: Space[Any], array: Array, counted: NDArray[np.bool_]) -> Array:
    """Zeros for what is not in `leaf`. Raises MismatchError where it is `counted`."""
    wrong = _wrong(leaf, array)
    rows = np.flatnonzero(wrong.reshape(len(array), -1).any(1) & counted)
    if len(rows):
        raise MismatchError(f"the {path} {describe(array[rows[0]])} is not in {leaf}", int(rows[0]))
    return np.where(wrong, 0, array)


def _wrong(leaf: Space[Any], array: Array) -> Array:
    if isinstance(leaf, Box):
        return ~np.isfinite(array)
    if isinstance(leaf, MultiBinary):
        return (array != 0) & (array != 1)
    _, n = integer_range(leaf)
    return (array < 0) | (array >= n)


def _dtype(leaf: Space[Any]) -> Any:
    return np.int64 if isinstance(leaf, Discrete) else leaf.dtype


def _rows(space: Space[Any], arrays: Iterator[Array]) -> list[Any]:
    if isinstance(space, Dict):
        columns = [_rows(part, arrays) for part in space.spaces.values()]
        return [dict(zip(space.spaces, row, strict=True)) for row in zip(*columns, strict=True)]
    if isinstance(space, Tuple):
        return list(zip(*[_rows(part, arrays) for part in space.spaces], strict=True))
    array = next(arrays)
    return array.tolist() if isinstance(space, Discrete) else list(array)


def _batch(space: Space[Any], arrays: Iterator[Array]) -> Any:
    if isinstance(space, Dict):
        return {key: _batch(part, arrays) for key, part in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(_batch(part, arrays) for part in space.spaces)
    return next(arrays)
