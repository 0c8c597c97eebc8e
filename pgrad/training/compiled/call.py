"""A function with what it is called with, taken apart into tensors and put together again."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

from torch import Generator, Tensor

from pgrad.data import Tree, map_tree
from pgrad.data.tree import is_tree


class Call:
    """function(agent, *inputs, **keywords): inputs are trees of tensors, one may be a generator.

    form: the structure of the inputs, and what in them is no tensor. key: what tells this call from those
    that compute something else, within a process.
    """

    __slots__ = ("form", "function", "generator", "inputs", "key", "keywords", "tensors")

    def __init__(self, function: Callable[..., Tree], *inputs: Any) -> None:
        self.keywords: dict[str, Any] = {}
        if isinstance(function, partial):  # its keywords are inputs like the others
            self.keywords, inputs = function.keywords, (*function.args, *inputs)
            function = function.func
        self.function, self.inputs = function, inputs
        self.generator: Generator | None = None
        self.tensors: list[Tensor] = []
        self.form = (*map(self._take, inputs), *self.keywords, *map(self._take, self.keywords.values()))
        owner = getattr(function, "__self__", None)  # a method is made anew whenever it is asked for
        base: Any = function if owner is None else (function.__func__, id(owner))  # type: ignore[attr-defined]
        self.key = (base, self.form)

    @property
    def name(self) -> str:
        """What a person calls the function."""
        owner = getattr(self.function, "__self__", None)
        name = getattr(self.function, "__name__", "function")
        return name if owner is None else f"{type(owner).__name__}.{name}"

    def __call__(self, agent: Any, tensors: Sequence[Tensor], generator: Generator | None) -> Tree:
        """The function's answer for other tensors and another generator."""
        left = iter(tensors)

        def other(one: Any) -> Any:
            if isinstance(one, Generator):
                return generator
            return map_tree(lambda _: next(left), one) if is_tree(one) else one

        inputs = [other(one) for one in self.inputs]
        return self.function(agent, *inputs, **{name: other(one) for name, one in self.keywords.items()})

    def _take(self, one: Any) -> Any:
        """The form of an input, whose tensors are noted in the order in which `__call__` replaces them."""
        if isinstance(one, Generator):
            self.generator = one
            return Generator
        return form(one, self.tensors)


def form(tree: Any, tensors: list[Tensor]) -> Any:
    """What a tree is made of, to compare: shapes, types, names, and the values of what is no tensor.

    Its tensors are noted, but for those that lie beside something else in a dict, a tuple or a list, which
    therefore is no tree and goes on as it is.
    """
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        tensors.append(tree)
        return tree.shape, tree.dtype
    kind = type(tree)
    if (fields := getattr(kind, "__dataclass_fields__", None)) is not None:
        return kind, *[form(getattr(tree, name), tensors) for name in fields]
    if isinstance(tree, dict | tuple | list):
        inside = tensors if is_tree(tree) else []
        values = tree.values() if isinstance(tree, dict) else tree
        return kind, *(tree if isinstance(tree, dict) else ()), *[form(x, inside) for x in values]
    return (kind, tree) if isinstance(tree, Hashable) else (kind, repr(tree))
