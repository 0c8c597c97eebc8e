"""Recurrent cells as they are written in books: one step at a time, by operations that autograd knows.

Shapes: x [B, n] is the input, H units, G gates. Weights are those of torch's cells, with its order of gates:
W [G·H, n], U [G·H, H] and their biases b, d [G·H].
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Weights = tuple[Tensor, Tensor, Tensor, Tensor]
Step = Callable[..., Tensor]


def gru_step(x: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
    """h' = (1 − z)·n + z·h with r, z = σ(W·x + b + U·h + d) and n = tanh(W·x + b + r·(U·h + d)).

    x [B, n], state h [B, H] → [B, H]. Cho et al. 2014 (arXiv 1406.1078), with r applied after the product.
    """
    return torch.gru_cell(x, state, *weights)


def lstm_step(x: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
    """c' = f·c + i·g and h' = o·tanh(c') with i, f, o = σ(W·x + b + U·h + d) and g = tanh of the same.

    x [B, n], state (h, c) [B, 2H] → [B, 2H]. Hochreiter & Schmidhuber 1997, with the forget gate of Gers,
    Schmidhuber & Cummins 2000.
    """
    h, c = state.chunk(2, -1)
    return torch.cat(torch.lstm_cell(x, (h, c), *weights), -1)


def kinds(weights: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """All W, all U, all b and all d of cells side by side."""
    return [tuple(weights[i::4]) for i in range(4)]


def each_of(n: int, x: Tensor) -> tuple[Tensor, ...]:
    """What n gates have of x [..., n·H], [..., H] each. `chunk` would take twice as long."""
    return x.split_with_sizes([x.shape[-1] // n] * n, -1)


def unroll(step: Step, x: Tensor, keep: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
    """h after every step [N, T, B, H], one step at a time: what the faster functions are equal to."""
    cells = []
    for now, *own in zip(state.unbind(0), *kinds(weights), strict=True):
        outputs = []
        for x_t, keep_t in zip(x.unbind(0), keep.unbind(0), strict=True):
            now = step(x_t, now * keep_t, *own)
            outputs.append(now[..., : own[1].shape[1]])
        cells.append(torch.stack(outputs))
    return torch.stack(cells)
