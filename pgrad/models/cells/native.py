"""The loops over time in C++, where processor and tensors allow it; by torch elsewhere.

A step of a small memory is a dozen operations that take torch longer to be called than to compute. Each
loop is one function of C++, and one operation of the graphs that machine code is made of.
"""

import ctypes
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor, is_legacy_batchedtensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from pgrad import native

OPERATIONS: Any = torch.library.Library("pgrad", "DEF")  # type: ignore[no-untyped-call]
"""What graphs call them by."""

LARGEST = 256
"""Units up to which weights fit a processor's second cache, and C++ is faster than the library's products."""

Given = Any
"""A tensor, some tensors, or None."""

Answer = Tensor | tuple[Tensor, ...]


class Loop:
    """One loop over time of the cells whose weights are its third argument; the second is `keep` [T, B, 1].

    kind: which cells, by name; name: of the function in C++;
    takes: its arguments, as torch writes them; answers: the shapes of its answers, such as "N T B 4H", which
    are a tuple, or the only one; written: the same as a function of torch, which runs where C++ cannot.
    """

    def __init__(
        self, kind: str, name: str, takes: str, answers: Sequence[str], written: Callable[..., Answer]
    ) -> None:
        self._kind, self._name, self.written = kind, name, written
        parts = [one.split() for one in answers]
        self._answers = [[(int(size[:-1] or 1), "NTBHn".index(size[-1])) for size in one] for one in parts]
        self._library: ctypes.CDLL | None = None
        self._found: Any = None
        self._agrees = False  # with what is written; nobody knows every compiler
        self.operation = f"{kind}_{name}"
        OPERATIONS.define(f"{self.operation}({takes}) -> ({', '.join(['Tensor'] * len(answers))})")
        OPERATIONS.impl(self.operation, self._run, "CPU")
        torch.library.register_fake(f"pgrad::{self.operation}", self._room, lib=OPERATIONS)
        self._in_graph: Any = getattr(torch.ops.pgrad, self.operation).default

    def __call__(self, *given: Given) -> Any:
        """The answer."""
        if given[2][1].shape[1] > LARGEST or not all(map(_plain, _tensors(given))):
            return self.written(*given)
        return self._run(*given) if get_proxy_mode() is None else self._in_graph(*given)

    def _run(self, *given: Given) -> Answer:
        function = self._function()
        if function is None:
            return self.written(*given)
        sizes, given = _sizes(*given), tuple(map(_contiguous, given))
        answer = self._made(given[0], sizes)
        function(*map(ctypes.c_long, sizes), *map(address, given), *map(address, _all(answer)))
        return answer if self._agrees else self._compared(given, answer)

    def _function(self) -> Any:
        library = library_of(self._kind)
        if library is not self._library:
            self._library, self._agrees = library, False
            self._found = None if library is None else library[self._name]
        return self._found

    def _compared(self, given: Sequence[Given], answer: Answer) -> Answer:
        """The first answer, or what is written from then on, where that is another."""
        expected = self.written(*given)
        self._agrees = all(map(_close, _all(answer), _all(expected)))
        if self._agrees:
            return answer
        self._found = None
        told = f"{self._kind}.cpp answers otherwise than PyTorch here, which does its work ({self._name})"
        warnings.warn(told, stacklevel=2)
        return expected

    def _room(self, *given: Given) -> Answer:
        return self._made(given[0], _sizes(*given))

    def _made(self, like: Tensor, sizes: Sequence[int]) -> Answer:
        found = [like.new_empty([k * sizes[i] for k, i in shape]) for shape in self._answers]
        return tuple(found) if len(found) > 1 else found[0]


def _all(answer: Answer) -> tuple[Tensor, ...]:
    return (answer,) if isinstance(answer, Tensor) else answer


def _close(mine: Tensor, theirs: Tensor) -> bool:
    """Up to rounding, which is large beside the small ones of many numbers."""
    scale = float(theirs.nan_to_num(0.0, 0.0, 0.0).abs().max())
    return torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4 * (1.0 + scale), equal_nan=True)


def library_of(kind: str) -> ctypes.CDLL | None:
    """The functions of a cell in C++; None where there are none."""
    return native.library(Path(__file__).with_name(f"{kind}.cpp"))


def address(given: Given) -> Any:
    """Where numbers are, for C++: of a contiguous tensor, or of each of some."""
    if given is None:
        return None
    if isinstance(given, Tensor):
        return ctypes.c_void_p(given.data_ptr())
    return (ctypes.c_void_p * len(given))(*(x.data_ptr() for x in given))


def _sizes(first: Tensor, keep: Tensor, weights: Sequence[Tensor], *rest: Given) -> tuple[int, ...]:
    """N, T, B, H and n."""
    T, B = keep.shape[:2]
    return len(weights) // 4, T, B, weights[1].shape[1], weights[0].shape[1]


def _tensors(given: Sequence[Given]) -> Iterator[Tensor]:
    for one in given:
        if one is not None:
            yield from (one,) if isinstance(one, Tensor) else one


def _contiguous(given: Given) -> Given:
    if given is None:
        return None
    return given.contiguous() if isinstance(given, Tensor) else [x.contiguous() for x in given]


def _plain(x: Tensor) -> bool:
    """Whether C++ may look at its numbers: those that are differentiated in batches have more dimensions."""
    if not x.is_cpu or x.dtype is not torch.float32:
        return False
    return not (is_batchedtensor(x) or is_legacy_batchedtensor(x))
