"""One more token for every text: read, scored and chosen; on a GPU all of it as one CUDA graph."""

from collections.abc import Callable

import torch
from torch import Tensor

from pgrad.cuda_graph import Function, Recorded
from pgrad.models.language.decode import Fused, Plain

Chosen = tuple[Tensor, Tensor, Tensor]
"""Tokens, their log-probabilities, and the entropies of what they were drawn from, [n] each."""

Draw = Callable[[Tensor, Tensor], Chosen]
"""From hidden states [n, H] and uniform numbers [n]."""

GRAPHS = ("cuda",)
"""Kinds of devices that have them."""

LEAST = 32
"""Tokens to write, from which on a recording is worth its time."""

WIDTH = 512
"""A recording attends to a multiple of so many columns, or to all: few recordings, little that is in vain."""


class Next:
    """Step by step, texts of any number."""

    def __init__(self, reader: Plain | Fused, draw: Draw) -> None:
        self._reader, self._draw = reader, draw

    def __call__(self, token: Tensor, position: Tensor, u: Tensor) -> Chosen:
        """What follows the tokens [n] at `position` [n], chosen by u [n]."""
        return self._draw(self._reader.step(token, position), u)

    def room(self, n: int) -> int:
        """For how many texts to go on, where n of them are not over."""
        return n

    def keep(self, rows: Tensor) -> None:
        """Go on with these texts only."""
        self._reader.keep(rows)


class Launched:
    """The same by CUDA graphs, one for each number of texts and of columns: texts are halved, not counted.

    What is over goes on being written beside the rest until a half can be left out; nobody reads it.
    """

    def __init__(self, reader: Fused, draw: Draw, n: int) -> None:
        self._reader, self._n = reader, n
        self._every = torch.arange(reader.columns, device=reader.device)
        # A step that is run again writes the same keys and values to the same column.
        self._recorded = Recorded(_step(reader, draw), "the step of a token")

    def __call__(self, token: Tensor, position: Tensor, u: Tensor) -> Chosen:
        """As `Next`."""
        used, columns = self._reader.used, self._reader.columns
        every = self._every[: min(-(-(used + 1) // WIDTH) * WIDTH, columns)]
        column = torch.full((1,), used, device=token.device)
        first = [] if self._reader.first is None else [self._reader.first]
        chosen, logp, entropy = self._recorded([token, position, u, column, every, *first])
        self._reader.used = used + 1
        return chosen, logp, entropy

    def room(self, n: int) -> int:
        """As `Next`: the smallest half of a half … of all that holds n."""
        size = self._n
        while (size + 1) // 2 >= n and size > 1:
            size = (size + 1) // 2
        return size

    def keep(self, rows: Tensor) -> None:
        """As `Next`."""
        self._reader.keep(rows)


def _step(reader: Fused, draw: Draw) -> Function:
    """What is recorded. A method of `Launched` would keep itself, and keys and values with it, alive."""

    def step(inputs: list[Tensor]) -> list[Tensor]:
        token, position, u, column, every, *first = inputs
        seen = (every <= column).expand(len(token), -1)
        if first:
            seen = seen & (every >= first[0].unsqueeze(1))
        mask = seen.view(len(token), 1, 1, -1)
        return list(draw(reader.forward(token, position, column, len(every), mask), u))

    return step


def following(
    reader: Plain | Fused, draw: Draw, n: int, longest: int, device: torch.device
) -> Next | Launched:
    """How n texts of up to `longest` tokens are written on a device."""
    if device.type in GRAPHS and isinstance(reader, Fused) and longest >= LEAST:
        return Launched(reader, draw, n)
    return Next(reader, draw)
