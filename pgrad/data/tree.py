"""Trees: a tensor, or a dict, tuple or dataclass of trees; so are observations, actions, distributions."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

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
        return {key: map_tree(function, tree[key], *(other[key] for other in others)) for key in tree}
    if isinstance(tree, tuple):
        return tuple(map_tree(function, *parts) for parts in zip(tree, *others, strict=True))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        changed = {
            field.name: map_tree(
                function, getattr(tree, field.name), *(getattr(other, field.name) for other in others)
            )
            for field in dataclasses.fields(tree)
            if is_tree(getattr(tree, field.name))
        }
        return dataclasses.replace(tree, **changed)
    return function(tree, *others)


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
        for field in dataclasses.fields(tree):
            part = getattr(tree, field.name)
            if isinstance(part, Tensor):
                yield part
            elif is_tree(part):
                yield from leaves(part)
    else:
        yield tree
