"""Numbers too small to be held in full precision, which processors are slow with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALLEST = 5e-324
"""Equal to 0 where they are flushed."""


@contextmanager
def flushed() -> Iterator[None]:
    """Inside they count as zeros, for this thread; afterwards as before.

    The moments of a weight without a gradient, as behind a unit that is never active, halve until they get
    there, and stay: they can make a step of the optimiser four times slower. Worlds are not stepped inside:
    their numbers are their own.
    """
    before = SMALLEST == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
