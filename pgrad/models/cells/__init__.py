"""Recurrent cells over whole sequences, with resets inside them and a backward pass written out.

torch's own layers cannot be reset in the middle of a sequence, and autograd through a loop over its cells
takes several times as long: here the backward pass has one product per step, and all weights' gradients at
once (`derivative.py`). Several cells that see the same inputs (an actor's and a critic's) take every
step together.

Shapes: T steps, B columns, N cells side by side, H units, G gates. `x` [T, B, n] is the input; `keep`
[T, B, 1] is 0 where an episode begins, else 1; `state` [N, B, K] is the memory before the first step.
`weights` are those of torch's cells, with its order of gates, four for each cell: W [G·H, n], U [G·H, H] and
their biases b, d [G·H]. A step is a function of its memory h and of Q numbers q, of which U·h + d is part of
the first G·H and W·x + b of those that the layer's `of_x` picks. Gradients reach `x` and the weights; a first
state is data.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pgrad.models.cells import gru, lstm
from pgrad.models.cells.derivative import Layer


@dataclass(frozen=True)
class Cell:
    """What a recurrent layer needs to know of its cell."""

    name: str
    gates: int
    parts: int  # of the state, H numbers each; the first is the output
    remembers: int  # the gate that keeps the state when it is open
    sequence: Layer

    def __reduce__(self) -> tuple[Callable[[str], "Cell"], tuple[str]]:
        """Copies and pickles of an agent name it: there is one of each."""
        return named, (self.name,)


def named(name: str) -> Cell:
    """The cell of that name."""
    return CELLS[name]


CELLS = {
    "gru": Cell("gru", gates=3, parts=1, remembers=1, sequence=gru.LAYER),
    "lstm": Cell("lstm", gates=4, parts=2, remembers=1, sequence=lstm.LAYER),
}
