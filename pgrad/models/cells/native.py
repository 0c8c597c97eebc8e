"""The loops over time by `steps.cpp`, where processor and tensors allow it; by torch elsewhere.

A step of a small memory is a dozen operations that take torch longer to be called than to compute. Each
loop is one function of C++, and one operation of the graphs that machine code is made of.
"""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor, is_legacy_batchedtensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from pgrad import native

SOURCE = Path(__file__).with_name("steps.cpp")

OPERATIONS = torch.library.Library("pgrad", "DEF")
"""What graphs call them by."""

Answer = Tensor | tuple[Tensor, ...]


class Loop:
    """One loop over time: its inputs are tensors, of which the first is [N, T, B, ·], and its answers are
    [N, T, B, k·H] for each k in `answers`: a tuple of them, or the only one.

    written: the same as a function of torch, which runs where C++ cannot.
    """

    def __init__(
        self, name: str, inputs: int, wide: int, answers: Sequence[int], written: Callable[..., Answer]
    ) -> None:
        self.name, self._wide, self._answers, self._written = name, wide, answers, written
        taken, found = [f"Tensor x{i}" for i in range(inputs)], ["Tensor"] * len(answers)
        OPERATIONS.define(f"{name}({', '.join(taken)}) -> ({', '.join(found)})")
        OPERATIONS.impl(name, self._run, "CPU")
        torch.library.register_fake(f"pgrad::{name}", self._room, lib=OPERATIONS)
        self._in_graph: Any = getattr(torch.ops.pgrad, name).default

    def __call__(self, *inputs: Tensor) -> Any:
        """The answer."""
        if not all(map(_plain, inputs)):
            return self._written(*inputs)
        return self._run(*inputs) if get_proxy_mode() is None else self._in_graph(*inputs)

    def _run(self, *inputs: Tensor) -> Answer:
        found = native.library(SOURCE)
        if found is None:
            return self._written(*inputs)
        inputs, answer = tuple(x.contiguous() for x in inputs), self._room(*inputs)
        sizes = (*inputs[0].shape[:3], inputs[0].shape[3] // self._wide)
        tensors = *inputs, *((answer,) if isinstance(answer, Tensor) else answer)
        addresses = [ctypes.c_void_p(x.data_ptr()) for x in tensors]
        found[self.name](*map(ctypes.c_long, sizes), *addresses)
        return answer

    def _room(self, *inputs: Tensor) -> Answer:
        *rows, n = inputs[0].shape
        found = [inputs[0].new_empty((*rows, k * (n // self._wide))) for k in self._answers]
        return tuple(found) if len(found) > 1 else found[0]


def _plain(x: Tensor) -> bool:
    """Whether C++ may look at its numbers: those that are differentiated in batches have more dimensions."""
    if x.device.type != "cpu" or x.dtype is not torch.float32:
        return False
    return not (is_batchedtensor(x) or is_legacy_batchedtensor(x))
