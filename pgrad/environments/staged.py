"""What environments answer in float64, shown as float32."""

from collections.abc import Iterable

import numpy as np

from pgrad.environments.spaces import Array

FITS = 1e76
"""A sum of squares below this is of numbers that float32 holds."""


class Staged:
    """Buffers that are written to, and those that show them; where types agree they are the same."""

    def __init__(self, shown: Iterable[Array], written: Iterable[Array]) -> None:
        both = list(zip(shown, written, strict=True))
        self._pairs = [(a, b) for a, b in both if a is not b]
        self._floats = [b.reshape(-1) for _, b in both if b.dtype.kind == "f"]

    def show_usual(self) -> bool:
        """Show what was written if a quick look says that float32 holds every number; whether it does."""
        for x in self._floats:
            if not float(np.vdot(x, x)) < FITS:
                return False
        for shown, written in self._pairs:
            shown[...] = written
        return True

    def show(self) -> None:
        """Show what was written; what is too large is found as infinity."""
        with np.errstate(over="ignore"):
            for shown, written in self._pairs:
                shown[...] = written
