"""A loop over time: in Python, or as one loop of the graph that is made of the function around it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan_op
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from pgrad.models.places import Place

Taken = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""A step that was taken: what the next one begins with, and what is kept of this one."""


def loop(
    step: Callable[..., Taken],
    carry: Sequence[Tensor],
    rows: Sequence[Tensor],
    fixed: Sequence[Tensor] = (),
    places: Sequence[Place] = (),
    backwards: bool = False,
) -> list[Tensor]:
    """What step(*carry, *row, *fixed, *place) keeps of every row [·, T, ...]: [N, T, ...] each.

    `step` is a function of its arguments alone. Where there are `places` [N, T, ...] it writes to those of
    its row, first of all that it keeps, and changes nothing else; they may be part of the row, and of each
    other. Else they are None.
    """
    where = [one for one in places if one is not None]
    nowhere = [None] * (len(places) - len(where))
    if get_proxy_mode() is not None:
        return _in_graph(lambda *tensors: step(*tensors, *nowhere), carry, rows, fixed, backwards)
    now, found = tuple(carry), []
    with _unremembered(carry[0]):
        here = _each(where, backwards) if where else _nothing(rows[0])
        for row, own in zip(_each(rows, backwards), here, strict=True):
            now, kept = step(*now, *row, *fixed, *own, *nowhere)
            found.append(kept)
    if where:
        return where[: len(kept)]
    columns = zip(*(found[::-1] if backwards else found), strict=True)
    return [torch.stack(column, 1) for column in columns]


def _each(tensors: Sequence[Tensor], backwards: bool) -> Iterator[tuple[Tensor, ...]]:
    """What each of some tensors has of every row."""
    return zip(*(x.unbind(1)[::-1] if backwards else x.unbind(1) for x in tensors), strict=True)


def _nothing(x: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """As many rows of nothing as x has."""
    return iter([()] * x.shape[1])


def _unremembered(x: Tensor) -> AbstractContextManager[Any]:
    """Where operations on tensors like x do not ask whether they will be differentiated: none of a step is,
    and on a processor to ask takes a tenth of its time.
    """
    return torch.inference_mode() if x.device.type == "cpu" else nullcontext()


def _in_graph(
    step: Callable[..., Taken],
    carry: Sequence[Tensor],
    rows: Sequence[Tensor],
    fixed: Sequence[Tensor],
    backwards: bool,
) -> list[Tensor]:
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
    return [turned(x).transpose(0, 1) for x in found[len(first) :]]
