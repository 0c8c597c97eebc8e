"""Random numbers of several steps, drawn at once where they are the very same."""

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

AT_ONCE = 2**16
"""Numbers that are drawn together at most."""

TINY = np.finfo(np.float32).tiny


@cache
def drawn_singly() -> bool:
    """Whether torch draws exponential numbers one by one; a vendor's library may seed every call anew."""
    whole, each = (Generator().manual_seed(0) for _ in range(2))
    rows = torch.empty(128, 16).exponential_(generator=whole)
    same = all(torch.equal(row, torch.empty(16).exponential_(generator=each)) for row in rows)
    return same and torch.equal(whole.get_state(), each.get_state())


class LogExponentials:
    """log E, E ~ Exp(1), float32 [n, k] for one step after the other; no E is less than the least number.

    Where they are `drawn_singly` those of many steps are drawn together: the very same that each would draw.
    """

    def __init__(self, n: int, k: int) -> None:
        self._n, self._k = n, k
        self._rows: NDArray[np.float32] = np.empty((0, n, k), np.float32)
        self._used = 0
        self._origin: tuple[Generator, Tensor] | None = None  # where these rows were drawn from
        self.together(1)

    def together(self, steps: int) -> None:
        """From now on draw for so many steps at once, if that is not too much; nothing may be left over."""
        steps = max(1, min(steps, AT_ONCE // (self._n * self._k))) if steps > 1 and drawn_singly() else 1
        if steps != len(self._rows):
            self._room = torch.empty(steps, self._n, self._k)
            self._rows, self._used = self._room.numpy(), steps

    def __call__(self, generator: Generator) -> Any:
        """Those of the next step."""
        if self._used == len(self._rows):
            self._draw(generator)
        row = self._rows[self._used]
        self._used += 1
        return row

    def _draw(self, generator: Generator) -> None:
        self._origin = (generator, generator.get_state()) if len(self._rows) > 1 else None
        self._room.exponential_(generator=generator)
        np.log(np.maximum(self._rows, TINY, out=self._rows), out=self._rows)
        self._used = 0

    def give_back(self) -> None:
        """Leave the generator where it would be, had each step drawn its own."""
        if self._origin is not None and self._used < len(self._rows):
            generator, before = self._origin
            generator.set_state(before)
            torch.empty(self._used, self._n, self._k).exponential_(generator=generator)
        self._used = len(self._rows)
