"""A function with what it is called with, taken apart into tensors and put together again."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Generator, Tensor

from pgrad.data import Tree, leaves, map_tree
from pgrad.data.tree import is_tree


class Call:
    """function(agent, *inputs, **keywords): inputs are trees of tensors, one may be a generator."""

    __slots__ = ("function", "generator", "inputs", "key", "keywords", "tensors")

    def __init__(self, function: Callable[..., Tree], *inputs: Any) -> None:
        self.keywords: dict[str, Any] = {}
        if isinstance(function, partial):  # its keywords are inputs like the others
            self.keywords, inputs = function.keywords, (*function.args, *inputs)
            function = function.func
        self.function, self.inputs = function, inputs
        self.generator: Generator | None = None
        self.tensors: list[Tensor] = []
        for one in (*inputs, *self.keywords.values()):
            if isinstance(one, Tensor):
                self.tensors.append(one)
            elif isinstance(one, Generator):
                self.generator = one
            elif is_tree(one):
                self.tensors.extend(leaves(one))
        owner = getattr(function, "__self__", None)  # a method is made anew whenever it is asked for
        base: Any = function if owner is None else (function.__func__, id(owner))  # type: ignore[attr-defined]
        self.key = (base, *[(x.shape, x.dtype) for x in self.tensors])

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
