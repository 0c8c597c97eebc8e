"""From a function of tensors to a graph of elementary operations, without the Python around them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.fx import GraphModule
from torch.overrides import TorchFunctionMode

from pgrad.training.compiled.cheaper import cheaper

DRAWS = ("exponential_", "normal_", "uniform_")
"""The methods that draw random numbers: each fills a tensor that was just made."""


@dataclass(frozen=True)
class Draw:
    """Random numbers that a function asks its generator for; `room` is filled anew by every call."""

    method: str
    parameters: tuple[Any, ...]
    room: Tensor

    def __call__(self, generator: Generator) -> Tensor:
        """The next ones, the same that the function would have drawn."""
        drawn: Tensor = getattr(self.room, self.method)(*self.parameters, generator=generator)
        return drawn


class Draws(TorchFunctionMode):
    """Notes what is drawn inside; where numbers are given, they stand in for those that would be drawn."""

    def __init__(self, given: Iterator[Tensor] | None = None) -> None:
        super().__init__()
        self.given = given
        self.noted: list[Draw] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The operation's answer, or the numbers given in its stead."""
        kwargs = kwargs or {}
        if kwargs.get("generator") is None:
            return func(*args, **kwargs)
        if func.__name__ not in DRAWS:
            raise NotImplementedError(f"{func.__name__} draws random numbers in a way that is not known here")
        self.noted.append(Draw(func.__name__, tuple(args[1:]), torch.empty_like(args[0])))
        return func(*args, **kwargs) if self.given is None else args[0].copy_(next(self.given))


def trace(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], n_draws: int = 0
) -> GraphModule:
    """The graph of `function`, whose last `n_draws` inputs are what it draws, in the order of drawing.

    Values are never looked at: a function that decides by the value of a tensor raises, and is not traced
    with one of its branches.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    def without_chance(*tensors: Tensor) -> Sequence[Tensor]:
        split = len(tensors) - n_draws
        with Draws(iter(tensors[split:])):
            return function(*tensors[:split])

    return make_fx(without_chance, decomposition_table=cheaper(), tracing_mode="fake")(*inputs)


def loops(graph: GraphModule) -> list[GraphModule]:
    """What is done again and again in the loops of a graph."""
    return [part for part in graph.children() if isinstance(part, GraphModule)]


def text(graph: GraphModule) -> list[Any]:
    """What a graph computes, as JSON: its code, and the values of the tensors that are written into it."""
    names = [str(node.target) for node in graph.graph.nodes if node.op == "get_attr"]
    values = [(name, x.tolist()) for name in names if isinstance(x := getattr(graph, name), Tensor)]
    return [graph.code, values, *map(text, loops(graph))]
