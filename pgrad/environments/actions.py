"""From actions as sampled to actions as an environment takes them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from numpy.typing import NDArray

from pgrad.environments.spaces import Array, MismatchError, describe, integer_range, space_leaves


def action_buffers(space: Space[Any], n: int) -> list[Array]:
    """Zeros [n, ...] for each part of `space`, as `Actions.arrays` makes them."""
    return [np.zeros((n, *(leaf.shape or ())), _dtype(leaf)) for _, leaf in space_leaves(space, "action")]


class Actions:
    """What is asked of an action space at every step, with what of it never changes looked up once."""

    def __init__(self, space: Space[Any]) -> None:
        self._space = space
        self._parts = [_Part(path, leaf) for path, leaf in space_leaves(space, "action")]
        self._whole = list if type(space) is Box else np.ndarray.tolist if type(space) is Discrete else None

    def arrays(self, given: Sequence[Array], counted: NDArray[np.bool_]) -> list[Array]:
        """The actions [B, ...] of each part of the space, as an array in its own form.

        Discrete and MultiDiscrete are moved to their start, Box is clipped to its bounds (and rounded where
        it is of integers), everything is cast to the space's dtype. Parts of several dimensions may come
        flat.

        Raises MismatchError for another shape or kind of numbers; and for NaN, infinity or an integer outside
        the space where `counted` [B] is true (elsewhere the action is ignored).
        """
        return [part.encode(x, counted) for part, x in zip(self._parts, given, strict=True)]

    def rows(self, arrays: Sequence[Array]) -> list[Any]:
        """`to_rows`, sooner where the space is Box or Discrete."""
        return to_rows(self._space, arrays) if self._whole is None else self._whole(arrays[0])


def to_rows(space: Space[Any], arrays: Sequence[Array]) -> list[Any]:
    """The B actions in `arrays`, one for each environment."""
    if type(space) is Box:
        return list(arrays[0])
    return _rows(space, iter(arrays))


def to_batch(space: Space[Any], arrays: Sequence[Array]) -> Any:
    """The B actions in `arrays`, copied, as one value of a vector environment's batched action space."""
    return _batch(space, iter([x.copy() for x in arrays]))


class _Part:
    """A part of an action space that is neither Dict nor Tuple."""

    def __init__(self, path: str, space: Space[Any]) -> None:
        self._path, self._space = path, space
        self._shape, self._dtype = space.shape or (), _dtype(space)
        self._box = space if isinstance(space, Box) else None
        self._range = integer_range(space) if isinstance(space, Discrete | MultiDiscrete) else None
        # Where nothing is added the array is the one given: numbers are copied out of it, rows are not.
        stays = self._range is None or (not self._shape and self._range[0] == 0)
        self._shift = None if stays or self._range is None else self._range[0]

    def encode(self, array: Array, counted: NDArray[np.bool_]) -> Array:
        """The actions of this part; see `Actions.arrays`."""
        if array.shape != (len(counted), *self._shape):
            array = self._shaped(array, len(counted))
        if self._range is not None and array.dtype.kind == "f":
            raise MismatchError(f"the {self._path} has dtype {array.dtype}, {self._space} needs integers")
        if not self._surely_right(array):
            array = _without_wrong(self._path, self._space, array, counted)
        if self._shift is not None:
            array = array + self._shift
        elif self._box is not None:
            if self._dtype.kind in "iu":
                array = np.rint(array)
            array = np.minimum(np.maximum(array, self._box.low), self._box.high)
        return array if array.dtype == self._dtype else array.astype(self._dtype)

    def _shaped(self, array: Array, n: int) -> Array:
        shape = (n, *self._shape)
        if array.shape != (n, math.prod(self._shape)):
            raise MismatchError(
                f"the {self._path} has shape {array.shape}, {n} × {self._space} needs {shape}"
            )
        return array.reshape(shape)

    def _surely_right(self, array: Array) -> bool:
        """A quick look: false may only mean that it takes a slower one."""
        if self._box is not None:
            return array.dtype.kind == "f" and math.isfinite(np.vdot(array, array))
        if self._range is not None and not self._shape:
            rows = array.tolist()
            return bool(min(rows) >= 0 and max(rows) < self._range[1])
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


def _dtype(leaf: Space[Any]) -> np.dtype[Any]:
    return np.dtype(np.int64 if isinstance(leaf, Discrete) else leaf.dtype)


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
