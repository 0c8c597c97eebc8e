"""Spaces: which are supported, buffers for observations, and how an environment's values get into them."""

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from numpy.typing import NDArray

from pgrad.errors import UsageError

Array = NDArray[Any]
Nested = Any
"""An array, or a dict or tuple of them, as a space has its parts."""
Writer = Callable[[int, Any], None]

SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"


class MismatchError(Exception):
    """A value does not fit its space; `row` is the environment it belongs to, where that is known."""

    def __init__(self, text: str, row: int | None = None) -> None:
        super().__init__(text)
        self.row = row


def declared(env: Any, attribute: str, name: str) -> Space[Any]:
    """The space that an environment has in this attribute. Raises UsageError where there is none."""
    space: Space[Any] | None = getattr(env, attribute, None)
    if space is None:
        raise UsageError(f"{name} declares no {attribute}")
    return space


def check_observation_space(space: Space[Any], name: str = "the environment") -> None:
    """Raise UsageError naming the part of `space` that cannot be observed, if there is one."""
    _check(space, name, "observation")


def check_action_space(space: Space[Any], name: str = "the environment") -> None:
    """Raise UsageError naming the part of `space` that cannot be acted on, if there is one."""
    _check(space, name, "action")
    for path, leaf in space_leaves(space, "action"):
        if 0 in (leaf.shape or ()):
            raise UsageError(f"{name}: its {path} space {leaf} has nothing to decide")


def _check(space: Space[Any], name: str, role: str) -> None:
    for path, leaf in space_leaves(space, role):
        if isinstance(leaf, Dict | Tuple):
            raise UsageError(f"{name}: its {path} space is an empty {type(leaf).__name__}")
        if not isinstance(leaf, Box | Discrete | MultiDiscrete | MultiBinary):
            raise UsageError(
                f"{name}: its {path} space is a {type(leaf).__name__}; supported are {SUPPORTED} "
                f"(a wrapper of gymnasium.wrappers can convert others)"
            )


def space_leaves(space: Space[Any], path: str) -> Iterator[tuple[str, Space[Any]]]:
    """The parts of `space` that are not Dict or Tuple (unless empty), each with its `path['key'][0]`."""
    parts = _parts(space)
    if not parts:
        yield path, space
    for key, part in parts:
        yield from space_leaves(part, f"{path}[{key!r}]")


def _parts(space: Space[Any]) -> list[tuple[Any, Space[Any]]]:
    if isinstance(space, Dict):
        return list(space.spaces.items())
    if isinstance(space, Tuple):
        return list(enumerate(space.spaces))
    return []


def buffers(space: Space[Any], *batch: int) -> Nested:
    """Buffers for observations: zeros [*batch, ...] in the structure of `space`.

    Box is float32, or uint8 where it is uint8; Discrete and MultiDiscrete are int64, counted from zero;
    MultiBinary is float32.
    """
    if isinstance(space, Dict):
        return {key: buffers(part, *batch) for key, part in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(buffers(part, *batch) for part in space.spaces)
    dtype: type[np.generic] = np.float32
    if isinstance(space, Discrete | MultiDiscrete):
        dtype = np.int64
    elif isinstance(space, Box) and space.dtype == np.uint8:
        dtype = np.uint8
    return np.zeros((*batch, *(space.shape or ())), dtype)


def flat(value: Nested) -> list[Array]:
    """The arrays in it, in the order of the space's parts."""
    if isinstance(value, dict):
        return [x for part in value.values() for x in flat(part)]
    if isinstance(value, tuple):
        return [x for part in value for x in flat(part)]
    return [value]


def staging(space: Space[Any], shown: Nested) -> Nested:
    """Buffers to write an environment's values into: those of `buffers`, but float64 where the space is.

    A float64 row is copied into a float64 buffer quickly; all rows become float32 together afterwards.
    """
    if isinstance(space, Dict):
        return {key: staging(part, shown[key]) for key, part in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(staging(part, x) for part, x in zip(space.spaces, shown, strict=True))
    return np.zeros(shown.shape) if isinstance(space, Box) and space.dtype == np.float64 else shown


def writer(space: Space[Any], buffers: Nested, path: str = "observation") -> Writer:
    """A function (i, value) that writes one environment's value into row i of `buffers` (a tree of arrays).

    The function raises MismatchError where the value does not fit the space.
    """
    if isinstance(space, Dict):
        return _dict_writer(space, buffers, path)
    if isinstance(space, Tuple):
        return _tuple_writer(space, buffers, path)
    shape, dtype, plain = space.shape, buffers.dtype, isinstance(space, Box)

    def write(i: int, value: Any) -> None:
        if plain and type(value) is np.ndarray and value.dtype is dtype and value.shape == shape:
            buffers[i] = value
        else:
            buffers[i] = fit(space, value, path)

    return write


def _dict_writer(space: Dict, buffers: Nested, path: str) -> Writer:
    parts = [(key, writer(part, buffers[key], f"{path}[{key!r}]")) for key, part in space.spaces.items()]

    def write(i: int, value: Any) -> None:
        if not isinstance(value, dict) or value.keys() != space.spaces.keys():
            came = f"keys {list(value)}" if isinstance(value, dict) else describe(value)
            raise MismatchError(f"{path} is {came}, the space declares keys {list(space.spaces)}")
        for key, write_part in parts:
            write_part(i, value[key])

    return write


def _tuple_writer(space: Tuple, buffers: Nested, path: str) -> Writer:
    parts = [writer(part, buffers[k], f"{path}[{k}]") for k, part in enumerate(space.spaces)]

    def write(i: int, value: Any) -> None:
        if not isinstance(value, tuple | list) or len(value) != len(parts):
            raise MismatchError(f"{path} is {describe(value)}, the space declares a tuple of {len(parts)}")
        for write_part, part in zip(parts, value, strict=True):
            write_part(i, part)

    return write


def fit(space: Space[Any], value: Any, path: str, batch: tuple[int, ...] = ()) -> Array:
    """`value` [*batch, ...] of a space that is neither Dict nor Tuple, as `buffers` hold it.

    Raises MismatchError for another shape, numbers of another kind, or values outside a set of integers. The
    bounds of a float Box are not enforced: too many environments declare them wrongly.
    """
    try:
        array = np.asarray(_plain(value))
    except (TypeError, ValueError):
        raise MismatchError(f"{path} is {describe(value)}, the space declares {space}") from None
    if array.dtype == object:
        raise MismatchError(f"{path} is {describe(value)}, the space declares {space}")
    shape = (*batch, *(space.shape or ()))
    if array.shape != shape:
        raise MismatchError(f"{path} has shape {array.shape}, the space declares {shape}")
    kinds = "biuf" if isinstance(space, Box) and space.dtype.kind == "f" else "biu"
    if array.dtype.kind not in kinds:
        raise MismatchError(f"{path} has dtype {array.dtype}, the space declares {space.dtype}")
    if isinstance(space, Box):
        if space.dtype != np.uint8:
            with np.errstate(over="ignore"):  # float64 too large for float32: found as infinity
                return array.astype(np.float32)
        if array.dtype != np.uint8 and ((array < 0) | (array > 255)).any():
            raise MismatchError(f"{path} has values outside 0..255, the space declares uint8")
        return array.astype(np.uint8)
    if isinstance(space, MultiBinary):
        if ((array != 0) & (array != 1)).any():
            raise MismatchError(f"{path} is {describe(array)}, the space declares {space}")
        return array.astype(np.float32)
    start, n = integer_range(space)
    shifted = array.astype(np.int64) - start
    if ((shifted < 0) | (shifted >= n)).any():
        raise MismatchError(f"{path} is {describe(array)}, the space declares {space}")
    return shifted


def integer_range(space: Space[Any]) -> tuple[Any, Any]:
    """First value and number of values of a Discrete or (as arrays) of a MultiDiscrete."""
    if isinstance(space, Discrete):
        return int(space.start), int(space.n)
    assert isinstance(space, MultiDiscrete)
    return space.start.astype(np.int64), space.nvec.astype(np.int64)


def number(value: Any) -> float:
    """`value` as a float, also from an array of one; MismatchError where it is not one number."""
    if isinstance(value, int | float | np.floating | np.integer | np.bool_):
        return float(value)
    value = _plain(value)
    if isinstance(value, np.ndarray) and math.prod(value.shape) == 1:
        return number(value.item())
    raise MismatchError(f"reward is {describe(value)}, not a number")


def describe(value: Any) -> str:
    """A value in a few words, on one line."""
    value = _plain(value)
    if isinstance(value, np.ndarray) and value.ndim > 0:
        return np.array2string(value, max_line_width=10_000, threshold=8, precision=4).replace("\n", "")
    if isinstance(value, np.ndarray | np.generic):
        value = value.item()
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"a {type(value).__name__} {text[:60]}…"


def _plain(value: Any) -> Any:
    """The array of a tensor, which some environments answer with; anything else as it is."""
    torch = sys.modules.get("torch")  # there where anybody has a tensor
    return value.numpy(force=True) if torch is not None and isinstance(value, torch.Tensor) else value
