"""Trees: a tensor, or a dict, tuple or dataclass of trees; so are observations, actions, distributions."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

Tree = Any
"""A tensor, or a dict / tuple / dataclass whose values are trees (JSON-like, without lists)."""


def map_tree(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """Apply `function` to every leaf of `tree` (and the matching leaves of `others`), keeping the structure.

    Fields of a dataclass that are not trees (names, sizes) are kept as they are.
    """
    if isinstance(tree, Tensor):  # first, because most are
        return function(tree, *others)
    if isinstance(tree, dict):
        return {key: map_tree(function, part, *[x[key] for x in others]) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(map_tree(function, *parts) for parts in zip(tree, *others, strict=True))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        parts = {name: getattr(tree, name) for name in names(type(tree))}
        for name, part in parts.items():
            if is_tree(part):
                parts[name] = map_tree(function, part, *[getattr(x, name) for x in others])
        return type(tree)(**parts)
    return function(tree, *others)


@cache
def names(kind: type) -> tuple[str, ...]:
    """The names of the fields of a dataclass."""
    return tuple(field.name for field in dataclasses.fields(kind))


def is_tree(value: Any) -> bool:
    """Whether `value` is a tensor or a non-empty container of trees."""
    if isinstance(value, Tensor):
        return True
    if isinstance(value, dict):
        return bool(value) and all(is_tree(part) for part in value.values())
    if isinstance(value, tuple):
        return bool(value) and all(is_tree(part) for part in value)
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def leaves(tree: Tree) -> Iterator[Any]:
    """The leaves of `tree`, in a fixed order (dict order, field order)."""
    if isinstance(tree, Tensor):  # first, because most are
        yield tree
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from leaves(part)
    elif isinstance(tree, tuple):
        for part in tree:
            yield from leaves(part)
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        for name in names(type(tree)):
            part = getattr(tree, name)
            if isinstance(part, Tensor):
                yield part
            elif is_tree(part):
                yield from leaves(part)
    else:
        yield tree


def split_tree(tree: Tree, n: int, axis: int) -> list[Tree]:
    """All of a tree's rows along an axis, `n` at a time, as views; of tensors without a gradient."""
    if isinstance(tree, Tensor):
        return list(torch.unsafe_split(tree, n, axis))  # `split` costs twice as much, for autograd's sake
    pieces = zip(*[torch.unsafe_split(x, n, axis) for x in leaves(tree)], strict=True)
    return [like(tree, piece) for piece in pieces]


def like(tree: Tree, parts: Iterable[Any]) -> Tree:
    """A tree of that structure with other leaves, in the order of `leaves`."""
    left = iter(parts)
    return map_tree(lambda _: next(left), tree)
