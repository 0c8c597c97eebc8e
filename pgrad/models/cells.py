"""Recurrent cells over whole sequences, with resets inside them and a backward pass written out.

torch's own layers cannot be reset in the middle of a sequence, and autograd through a loop over its cells
takes several times as long: here the backward pass has one product per step, and all weights' gradients at
once. Several cells that see the same inputs (an actor's and a critic's) take every step together.

Shapes: T steps, B columns, N cells side by side, H units, G gates. `x` [T, B, n] is the input; `keep`
[T, B, 1] is 0 where an episode begins, else 1; `state` [N, B, K] is the memory before the first step.
`weights` are those of torch's cells, with its order of gates, four for each cell: W [G·H, n], U [G·H, H] and
their biases b, d [G·H]. Gradients reach `x` and the weights; a first state is data.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgrad.models.loop import Taken, loop

Weights = tuple[Tensor, Tensor, Tensor, Tensor]
Step = Callable[..., Tensor]
Gradients = tuple[Tensor | None, ...]


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


def kinds(weights: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """All W, all U, all b and all d."""
    return [weights[i::4] for i in range(4)]


def project(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """W·x + b for the whole sequence and every cell [N, T, B, G·H]."""
    flat = x.flatten(0, 1).expand(len(W), -1, -1)
    return torch.baddbmm(b.unsqueeze(1), flat, W.mT).view(len(W), *x.shape[:2], -1)


class GRUSequence(Function):
    """`unroll` of `gru_step`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
        """[N, T, B, H]."""
        W, U, b, d = map(torch.stack, kinds(weights))
        rows = project(x, W, b), keep.unsqueeze(0)
        y, rz, a_n, n = loop(GRUSequence.step, (state,), rows, (d.unsqueeze(1), U.mT))
        ctx.save_for_backward(x, keep, state, *weights, W, U, y, rz, a_n, n)
        return y

    @staticmethod
    def step(h: Tensor, x: Tensor, k: Tensor, d: Tensor, Ut: Tensor) -> Taken:
        """As `gru_step` does it, of inputs that are W·x + b."""
        parts, h = [2 * h.shape[-1], h.shape[-1]], h * k
        (x_rz, x_n), (a_rz, a_n) = (torch.split(part, parts, -1) for part in (x, torch.baddbmm(d, h, Ut)))
        rz = (x_rz + a_rz).sigmoid()
        r, z = rz.chunk(2, -1)
        n = torch.addcmul(x_n, r, a_n).tanh()
        h = torch.lerp(n, h, z)
        return (h,), (h, rz, a_n, n)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Those of x and the weights."""
        x, keep, state, *weights, W, U, y, rz, a_n, n = ctx.saved_tensors
        if torch.is_grad_enabled():
            return differentiable(gru_step, x, keep, state, *weights, grad=grads[0])
        r, z = rz.chunk(2, -1)
        h = before(state, y, keep)
        to_n = (1.0 - z) * (1.0 - n * n)  # ∂h'/∂ what is under the tanh
        to_a = torch.cat([slope(r) * a_n * to_n, slope(z) * (h - n), to_n * r], -1)  # ∂h'/∂(U·h + d)
        rows = grads[0], after(keep), to_a, z
        da, dh = loop(GRUSequence.back, (torch.zeros_like(grads[0][:, 0]),), rows, (U,), backwards=True)
        dp = torch.cat([da.narrow(-1, 0, 2 * z.shape[-1]), to_n * dh], -1)  # of W·x + b
        return gradients(ctx, x, h, da, dp, W)

    @staticmethod
    def back(dh: Tensor, dy: Tensor, goes_on: Tensor, to_a: Tensor, z: Tensor, U: Tensor) -> Taken:
        """From the gradient of the next step's h to that of this one's, and those inside the step."""
        dh = torch.addcmul(dy, dh, goes_on)
        da = torch.cat([dh, dh, dh], -1) * to_a
        return (torch.baddbmm(dh * z, da, U),), (da, dh)


class LSTMSequence(Function):
    """`unroll` of `lstm_step`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
        """[N, T, B, H]."""
        W, U, b, d = map(torch.stack, kinds(weights))
        rows = project(x, W, b + d), keep.unsqueeze(0)
        y, c, i_f, g, o, squashed = loop(LSTMSequence.step, state.chunk(2, -1), rows, (U.mT,))
        ctx.save_for_backward(x, keep, state, *weights, W, U, y, c, i_f, g, o, squashed)
        return y

    @staticmethod
    def step(h: Tensor, c: Tensor, x: Tensor, k: Tensor, Ut: Tensor) -> Taken:
        """As `lstm_step` does it, of inputs that are W·x + b + d."""
        H = h.shape[-1]
        a_if, a_g, a_o = torch.split(torch.baddbmm(x, h * k, Ut), [2 * H, H, H], -1)
        i_f, g, o = a_if.sigmoid(), a_g.tanh(), a_o.sigmoid()
        i, f = i_f.chunk(2, -1)
        c = torch.addcmul(f * (c * k), i, g)
        squashed = c.tanh()
        h = o * squashed
        return (h, c), (h, c, i_f, g, o, squashed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Those of x and the weights."""
        x, keep, state, *weights, W, U, y, c, i_f, g, o, squashed = ctx.saved_tensors
        if torch.is_grad_enabled():
            return differentiable(lstm_step, x, keep, state, *weights, grad=grads[0])
        (i, f), (first_h, first_c) = i_f.chunk(2, -1), state.chunk(2, -1)
        of_i, of_f = slope(i) * g, slope(f) * before(first_c, c, keep)
        to_a = torch.cat([of_i, of_f, (1.0 - g * g) * i, slope(o) * squashed], -1)  # ∂c'/∂ and, last, ∂h'/∂
        to_c = (1.0 - squashed * squashed) * o
        rows = grads[0], after(keep), to_a, to_c, f * keep
        none = torch.zeros_like(grads[0][:, 0])
        (da,) = loop(LSTMSequence.back, (none, none), rows, (U,), backwards=True)
        return gradients(ctx, x, before(first_h, y, keep), da, da, W)

    @staticmethod
    def back(
        dh: Tensor,
        dc: Tensor,
        dy: Tensor,
        goes_on: Tensor,
        to_a: Tensor,
        to_c: Tensor,
        f: Tensor,
        U: Tensor,
    ) -> Taken:
        """From the gradients of the next step's h and c to those of this one's, and those inside the step."""
        dh = torch.addcmul(dy, dh, goes_on)
        dc = torch.addcmul(dc, dh, to_c)
        da = torch.cat([dc, dc, dc, dh], -1) * to_a
        return (torch.bmm(da, U), dc * f), (da,)


def slope(s: Tensor) -> Tensor:
    """σ' where s = σ: s·(1 − s)."""
    return torch.addcmul(s, s, s, value=-1.0)


def before(state: Tensor, out: Tensor, keep: Tensor) -> Tensor:
    """What every step found in the memory [N, T, B, H], from what the steps left there."""
    return torch.cat([state.unsqueeze(1), out[:, :-1]], 1) * keep


def after(keep: Tensor) -> Tensor:
    """Of every step, whether the next one goes on with its memory [1, T, B, 1]; of the last, anything."""
    return keep.roll(-1, 0).unsqueeze(0)


def gradients(ctx: Any, x: Tensor, h: Tensor, da: Tensor, dp: Tensor, W: Tensor) -> Gradients:
    """Those of x and the weights, from those of U·h + d and of W·x + b [N, T, B, G·H]."""
    da, dp, h = (part.reshape(len(W), -1, part.shape[-1]) for part in (da, dp, h))
    dW = (x.flatten(0, 1).mT @ dp).mT  # in this order few inputs are quick
    dx = (dp @ W).sum(0).view_as(x) if ctx.needs_input_grad[0] else None
    return dx, None, None, *by_cell(dW, da.mT @ h, dp.sum(1), da.sum(1))


def by_cell(*kinds: Tensor) -> list[Tensor]:
    """The gradients of every cell's four weights, from those of all cells [N, ...] of each."""
    return [own for cell in zip(*(kind.unbind(0) for kind in kinds), strict=True) for own in cell]


def differentiable(
    step: Step, x: Tensor, keep: Tensor, state: Tensor, *weights: Tensor, grad: Tensor
) -> Gradients:
    """The same as functions that can be differentiated again, for products with the Fisher matrix."""
    wanted = [part for part in (x, *weights) if part.requires_grad]
    found = iter(torch.autograd.grad(unroll(step, x, keep, state, *weights), wanted, grad, create_graph=True))
    dx, *rest = (next(found) if part.requires_grad else None for part in (x, *weights))
    return dx, None, None, *rest


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
