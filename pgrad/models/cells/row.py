"""One step of memories that act, in C++."""

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgrad.models.cells import Cell
from pgrad.models.cells.native import address, library_of
from pgrad.models.cells.steps import Weights


class Row:
    """Steps of B columns with the weights as they are now: cells side by side that see the same inputs."""

    def __init__(self, library: ctypes.CDLL, cell: Cell, weights: Sequence[Weights], B: int) -> None:
        given = [w.detach().contiguous() for own in weights for w in own]
        N, H, n = len(weights), given[1].shape[-1], given[0].shape[-1]
        self.seen = torch.zeros(B, n + H)
        self._inputs = self.seen.numpy()[:, :n]
        self._arranged = torch.empty(N, H + n + 1, 4 * H)
        self._function = library["act"]
        self._sizes = [ctypes.c_long(size) for size in (N, B, H, n)]
        self._fixed = address(self._arranged), address(self.seen)
        sizes = (ctypes.c_long(size) for size in (N, H, n))
        library["weights"](*sizes, address(given), address(self._arranged))

    def __call__(self, x: NDArray[np.float32], before: Tensor, start: Tensor) -> Tensor:
        """The memories [B, N, K] after those before, empty ones where an episode begins (`start` [B]); the
        inputs x [B, n] and the first cell's outputs [B, H] are side by side in `seen`, until the next step.
        """
        self._inputs[...] = x
        before, start = before.contiguous(), start.contiguous()
        after = torch.empty_like(before)
        self._function(*self._sizes, address(before), address(start), *self._fixed, address(after))
        return after


def row(cell: Cell, weights: Sequence[Weights], B: int) -> Row | None:
    """None where there is no C++."""
    library = library_of(cell.name)
    return None if library is None else Row(library, cell, weights, B)
