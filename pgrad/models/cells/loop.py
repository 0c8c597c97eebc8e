"""A loop over time: in Python, or as one loop of the graph that is made of the function around it."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan_op
from torch.fx.experimental.proxy_tensor import get_proxy_mode

Taken = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""A step that was taken: what the next one begins with, and what is kept of this one."""


def loop(
    step: Callable[..., Taken],
    carry: Sequence[Tensor],
    rows: Sequence[Tensor],
    fixed: Sequence[Tensor] = (),
    backwards: bool = False,
) -> tuple[Tensor, ...]:
    """What step(*carry, *row, *fixed) keeps of every row [·, T, ...]: [N, T, ...] each.

    `step` is a function of its arguments alone, and changes nothing.
    """
    if get_proxy_mode() is not None:
        return _in_graph(step, carry, rows, fixed, backwards)
    now, found = tuple(carry), []
    for row in _each(rows, backwards):
        now, kept = step(*now, *row, *fixed)
        found.append(kept)
    columns = zip(*(found[::-1] if backwards else found), strict=True)
    return tuple(torch.stack(column, 1) for column in columns)


def _each(tensors: Sequence[Tensor], backwards: bool) -> Iterator[tuple[Tensor, ...]]:
    """What each of some tensors has of every row."""
    return zip(*(x.unbind(1)[::-1] if backwards else x.unbind(1) for x in tensors), strict=True)


def _in_graph(
    step: Callable[..., Taken],
    carry: Sequence[Tensor],
    rows: Sequence[Tensor],
    fixed: Sequence[Tensor],
    backwards: bool,
) -> tuple[Tensor, ...]:
    """Unrolled, it would be compiled for minutes, and be no faster than torch's own loop."""

    def turned(x: Tensor) -> Tensor:
        return x.flip(0) if backwards else x

    def apart(x: Tensor) -> Tensor:
        return x.clone(memory_format=torch.contiguous_format)

    def combine(*tensors: Tensor) -> list[Tensor]:
        now, kept = step(*tensors)
        return list(map(apart, (*now, *kept)))  # none may be another, or an argument

    first = list(map(apart, carry))
    own = [turned(x.contiguous().transpose(0, 1)) for x in rows]  # a part of more would be copied whole
    found = scan_op(combine, first, own, tuple(fixed))
    return tuple(turned(x).transpose(0, 1) for x in found[len(first) :])
