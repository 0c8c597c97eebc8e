"""Recurrent cells over whole sequences, with resets inside them and a backward pass written out.

torch's own layers cannot be reset in the middle of a sequence, and autograd through a loop over its cells
takes several times as long: here the backward pass has one product per step, and all weights' gradients at
once (`models/derivative.py`). Several cells that see the same inputs (an actor's and a critic's) take every
step together.

Shapes: T steps, B columns, N cells side by side, H units, G gates. `x` [T, B, n] is the input; `keep`
[T, B, 1] is 0 where an episode begins, else 1; `state` [N, B, K] is the memory before the first step.
`weights` are those of torch's cells, with its order of gates, four for each cell: W [G·H, n], U [G·H, H] and
their biases b, d [G·H]. Gradients reach `x` and the weights; a first state is data.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgrad.models.derivative import (
    Gradients,
    after,
    before,
    differentiate,
    each_of,
    kinds,
    project,
    slope,
)
from pgrad.models.loop import Taken, loop

Weights = tuple[Tensor, Tensor, Tensor, Tensor]
Slopes = tuple[Tensor, ...]
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


class GRUSequence(Function):
    """`unroll` of `gru_step`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
        """[N, T, B, H]."""
        W, U, b, d = map(torch.stack, kinds(weights))
        own, x_n = project(x, *GRUSequence.spread(W, b, d)).split_with_sizes(U.shape[1:], -1)
        rows = own, x_n, keep.unsqueeze(0)
        y, rz, a_n, n = loop(GRUSequence.step, (state,), rows, (U.mT,))
        ctx.save_for_backward(x, keep, state, *weights, W, U, y, rz, a_n, n)
        return y

    @staticmethod
    def spread(W: Tensor, b: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """Those of W·x + b + d of r and z, of d of n, and of W·x + b of n."""
        H = W.shape[1] // 3
        (W_rz, W_n), (b_rz, b_n), (d_rz, d_n) = (x.split_with_sizes([2 * H, H], 1) for x in (W, b, d))
        return torch.cat([W_rz, torch.zeros_like(W_n), W_n], 1), torch.cat([b_rz + d_rz, d_n, b_n], 1)

    @staticmethod
    def step(h: Tensor, own: Tensor, x_n: Tensor, k: Tensor, Ut: Tensor) -> Taken:
        """As `gru_step` does it, of inputs that are W·x + b: x_n, and in `own` those of r and z, with d."""
        H, h = h.shape[-1], h * k
        a_rz, a_n = torch.baddbmm(own, h, Ut).split_with_sizes([2 * H, H], -1)
        rz = a_rz.sigmoid()
        r, z = each_of(2, rz)
        n = torch.addcmul(x_n, r, a_n).tanh()
        h = torch.lerp(n, h, z)
        return (h,), (h, rz, a_n, n)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Those of x and the weights."""
        return differentiate(ctx, GRUSequence, partial(unroll, gru_step), grads[0])

    @staticmethod
    def slopes(state: Tensor, keep: Tensor, *kept: Tensor) -> Slopes:
        """What every step found in the memory, ∂h'/∂(U·h + d), ∂h'/∂ what is under the tanh, and z."""
        y, rz, a_n, n = kept
        h, (r, z), (to_r, to_z) = before(state, y, keep), each_of(2, rz), each_of(2, slope(rz))
        new = 1.0 - z
        to_n = torch.addcmul(new, new * n, n, value=-1.0)
        to_a = torch.cat([to_r * a_n * to_n, to_z * (h - n), to_n * r], -1)
        return h, to_a, to_n, z

    @staticmethod
    def pull(grad: Tensor, keep: Tensor, U: Tensor, *slopes: Tensor) -> tuple[Tensor, Tensor]:
        """Those of U·h + d and of W·x + b."""
        to_a, to_n, z = slopes
        rows = grad, after(keep), to_a, z
        da, dh = loop(GRUSequence.back, (torch.zeros_like(grad[:, 0]),), rows, (U,), backwards=True)
        return da, torch.cat([da.narrow(-1, 0, 2 * z.shape[-1]), to_n * dh], -1)

    @staticmethod
    def back(dh: Tensor, dy: Tensor, goes_on: Tensor, to_a: Tensor, z: Tensor, U: Tensor) -> Taken:
        """From the gradient of the next step's h to that of this one's, and those inside the step."""
        dh = torch.addcmul(dy, dh, goes_on)
        da = torch.cat([dh, dh, dh], -1) * to_a
        return (torch.baddbmm(dh * z, da, U),), (da, dh)

    @staticmethod
    def push(own: Tensor, rest: Tensor, keep: Tensor, U: Tensor, *slopes: Tensor) -> Tensor:
        """The change of h'."""
        to_a, to_n, z = slopes
        rows = own, to_n * rest, keep.unsqueeze(0), to_a, z
        (dy,) = loop(GRUSequence.forth, (torch.zeros_like(z[:, 0]),), rows, (U.mT,))
        return dy

    @staticmethod
    def forth(dh: Tensor, own: Tensor, x_n: Tensor, k: Tensor, to_a: Tensor, z: Tensor, Ut: Tensor) -> Taken:
        """From the change of the last step's h to that of this one's."""
        dh = dh * k
        of_r, of_z, of_n = each_of(3, torch.baddbmm(own, dh, Ut) * to_a)
        dh = torch.addcmul(of_r + of_z + of_n + x_n, dh, z)
        return (dh,), (dh,)


class LSTMSequence(Function):
    """`unroll` of `lstm_step`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
        """[N, T, B, H]."""
        W, U, b, d = map(torch.stack, kinds(weights))
        rows = project(x, *map(to_sigmoids, LSTMSequence.spread(W, b, d))), keep.unsqueeze(0)
        kept = loop(LSTMSequence.step, each_of(2, state), rows, (to_sigmoids(U).mT,))
        ctx.save_for_backward(x, keep, state, *weights, W, U, *kept)
        y: Tensor = kept[0]
        return y

    @staticmethod
    def spread(W: Tensor, b: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """Those of W·x + b + d; there are no others."""
        return W, b + d

    @staticmethod
    def step(h: Tensor, c: Tensor, x: Tensor, k: Tensor, Ut: Tensor) -> Taken:
        """As `lstm_step` does it, of inputs that are W·x + b + d, what is under g's tanh times −2 in all.

        tanh a = 1 − 2·σ(−2a): one σ for all gates takes a fraction of the time of a tanh.
        """
        gates = torch.baddbmm(x, h * k, Ut).sigmoid()
        i, f, s, o = each_of(4, gates)
        c = torch.addcmul(torch.addcmul(i, i, s, value=-2.0), f, c * k)
        squashed = c.tanh()
        h = o * squashed
        return (h, c), (h, c, gates, squashed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Those of x and the weights."""
        return differentiate(ctx, LSTMSequence, partial(unroll, lstm_step), grads[0])

    @staticmethod
    def slopes(state: Tensor, keep: Tensor, *kept: Tensor) -> Slopes:
        """What every step found in the memory, ∂c'/∂(U·h + d) of three gates and ∂h'/∂ the fourth's, ∂h'/∂c'
        and ∂c'/∂c.
        """
        y, c, gates, squashed = kept
        (i, f, s, o), (first_h, first_c) = each_of(4, gates), each_of(2, state)
        to_i, to_f, to_s, to_o = each_of(4, slope(gates))
        by = [to_i * (1.0 - 2.0 * s), to_f * before(first_c, c, keep), 4.0 * to_s * i, to_o * squashed]
        return before(first_h, y, keep), torch.cat(by, -1), (1.0 - squashed * squashed) * o, f * keep

    @staticmethod
    def pull(grad: Tensor, keep: Tensor, U: Tensor, *slopes: Tensor) -> tuple[Tensor, Tensor]:
        """Those of U·h + d and of W·x + b, which are the same."""
        none = torch.zeros_like(grad[:, 0])
        rows = grad, after(keep), *slopes
        (da,) = loop(LSTMSequence.back, (none, none), rows, (U,), backwards=True)
        return da, da

    @staticmethod
    def back(dh: Tensor, dc: Tensor, dy: Tensor, goes_on: Tensor, *slopes_U: Tensor) -> Taken:
        """From the gradients of the next step's h and c to those of this one's, and those inside the step."""
        to_a, to_c, f, U = slopes_U
        dh = torch.addcmul(dy, dh, goes_on)
        dc = torch.addcmul(dc, dh, to_c)
        da = torch.cat([dc, dc, dc, dh], -1) * to_a
        return (torch.bmm(da, U), dc * f), (da,)

    @staticmethod
    def push(own: Tensor, rest: Tensor, keep: Tensor, U: Tensor, *slopes: Tensor) -> Tensor:
        """The change of h'."""
        none = torch.zeros_like(slopes[-1][:, 0])
        rows = own, keep.unsqueeze(0), *slopes
        (dy,) = loop(LSTMSequence.forth, (none, none), rows, (U.mT,))
        return dy

    @staticmethod
    def forth(dh: Tensor, dc: Tensor, own: Tensor, k: Tensor, *slopes_Ut: Tensor) -> Taken:
        """From the changes of the last step's h and c to those of this one's."""
        to_a, to_c, f, Ut = slopes_Ut
        of_i, of_f, of_g, of_o = each_of(4, torch.baddbmm(own, dh * k, Ut) * to_a)
        dc = torch.addcmul(of_i + of_f + of_g, dc, f)
        dh = torch.addcmul(of_o, dc, to_c)
        return (dh, dc), (dh,)


def to_sigmoids(x: Tensor) -> Tensor:
    """Weights or biases of four gates [N, 4·H, ...], those of the third times −2."""
    i, f, g, o = x.chunk(4, 1)
    return torch.cat([i, f, -2.0 * g, o], 1)


@dataclass(frozen=True)
class Cell:
    """What a recurrent layer needs to know of its cell."""

    gates: int
    parts: int  # of the state, H numbers each; the first is the output
    remembers: int  # the gate that keeps the state when it is open
    step: Step  # of one cell
    sequence: type[Function]


CELLS = {
    "gru": Cell(gates=3, parts=1, remembers=1, step=gru_step, sequence=GRUSequence),
    "lstm": Cell(gates=4, parts=2, remembers=1, step=lstm_step, sequence=LSTMSequence),
}
