"""Where the steps of a recurrent layer write: tensors of whole sequences, made before the first step.

Results that are written where they stay are not stacked afterwards, which would take as long again where the
sequences of a minibatch no longer fit a processor's cache. A graph has no such places, and numbers that are
differentiated in batches (torch.func.vmap) cannot be written to them: there a place is None, and `out=None`
is a tensor of its own.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor, is_legacy_batchedtensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

Place = Tensor | None


def writable(*tensors: Tensor) -> bool:
    """Whether what is computed from these can be written to a place."""
    if get_proxy_mode() is not None:
        return False
    return not any(is_batchedtensor(x) or is_legacy_batchedtensor(x) for x in tensors)


def place(like: Tensor, *shape: int) -> Place:
    """Room of that shape for what is computed from tensors such as `like`."""
    return like.new_empty(shape) if writable(like) else None


def instead(x: Tensor, like: Tensor, spent: bool = True) -> Place:
    """Room for what has the shape of x, that of x itself where nobody will ask for it any more."""
    if not writable(like):
        return None
    return x if spent else torch.empty_like(x)


def plus(x: Tensor, y: Tensor) -> Tensor:
    """x + y, in the place of x, which nobody else knows."""
    return torch.add(x, y, out=x if writable(x, y) else None)


def each_place(n: int, room: Place) -> Sequence[Place]:
    """Those of n parts of the last dimension."""
    return [None] * n if room is None else each_of(n, room)


def joined(parts: Sequence[Tensor], room: Place) -> Tensor:
    """The parts side by side: the room, where they were written to its parts."""
    return torch.cat(list(parts), -1) if room is None else room


def parts(x: Tensor, known: Sequence[Any]) -> Sequence[Tensor]:
    """The parts of the last dimension, unless they are known."""
    return each_of(len(known), x) if known[0] is None else known


def each_of(n: int, x: Tensor) -> tuple[Tensor, ...]:
    """What n gates have of x [..., n·H], [..., H] each. `chunk` would take twice as long."""
    return x.split_with_sizes([x.shape[-1] // n] * n, -1)
