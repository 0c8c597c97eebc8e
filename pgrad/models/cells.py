"""Recurrent cells over whole sequences, with resets inside them and a backward pass written out.

torch's own layers cannot be reset in the middle of a sequence, and autograd through a loop over its cells
takes several times as long: here the backward pass has one product per step, and all weights' gradients at
once. Several cells that see the same inputs (an actor's and a critic's) take every step together.

Shapes: T steps, B columns, N cells side by side, H units, G gates. `x` [T, B, n] is the input; `keep`
[T, B, 1] is 0 where an episode begins, else 1; `state` [N, B, K] is the memory before the first step.
`weights` are those of torch's cells, with its order of gates, four for each cell: W [G·H, n], U [G·H, H] and
their biases b, d [G·H]. Gradients reach `x` and the weights; a first state is data.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

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
        H, inputs = U.shape[2], project(x, W, b)
        a, bias, Ut = torch.empty_like(inputs), d.unsqueeze(1), U.mT
        before, n, y = (a.new_empty(*a.shape[:3], H) for _ in range(3))
        h = state
        for k, old, all_a, x_rz, x_n, rz, r, z, a_n, new, out in rows(
            *(keep.unsqueeze(0), before, a, inputs[..., : 2 * H], inputs[..., 2 * H :], a[..., : 2 * H]),
            *(*a.chunk(3, -1), n, y),
        ):
            torch.mul(h, k, out=old)
            torch.baddbmm(bias, old, Ut, out=all_a)
            rz.add_(x_rz).sigmoid_()
            torch.addcmul(x_n, r, a_n, out=new).tanh_()
            h = torch.lerp(new, old, z, out=out)
        ctx.save_for_backward(x, keep, state, *weights, W, U, before, a, n)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Those of x and the weights."""
        x, keep, state, *weights, W, U, before, a, n = ctx.saved_tensors
        if torch.is_grad_enabled():
            return differentiable(gru_step, x, keep, state, *weights, grad=grads[0])
        r, z, a_n = a.chunk(3, -1)
        to_n = (1.0 - z).mul_(1.0 - n * n)  # ∂h'/∂ what is under the tanh
        da = grads[0].new_empty(a.shape)  # first ∂h'/∂ each of U·h + d; of many gradients where grads is
        to_r, to_z, to_a = da.chunk(3, -1)
        to_r.copy_(slope(r)).mul_(a_n).mul_(to_n)
        to_z.copy_(slope(z)).mul_(before - n)
        to_a.copy_(to_n).mul_(r)
        carried, goes_on = torch.zeros_like(grads[0][:, 0]), keep[0]
        each = []
        for dy, z_t, k, da_t, by_gate in rows(
            grads[0], z, keep.unsqueeze(0), da, da.view(*n.shape[:3], 3, -1), backwards=True
        ):
            dh = torch.addcmul(dy, carried, goes_on)
            by_gate.mul_(dh.unsqueeze(-2))
            carried, goes_on = torch.baddbmm(dh * z_t, da_t, U), k
            each.append(dh)
        dU, dd = hidden_gradients(before, da)
        to_a.copy_(to_n).mul_(torch.stack(each[::-1], 1))  # its part of W·x + b
        dx, dW = input_gradients(ctx, x, da, W)
        return dx, None, None, *by_cell(dW, dU, da.sum((1, 2)), dd)


class LSTMSequence(Function):
    """`unroll` of `lstm_step`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
        """[N, T, B, H]."""
        W, U, b, d = map(torch.stack, kinds(weights))
        H, Ut, gates = U.shape[2], U.mT, project(x, W, b + d)
        before, after = (gates.new_empty(*gates.shape[:3], 2 * H) for _ in range(2))
        squashed = gates.new_empty(*gates.shape[:3], H)
        now = state
        for k, old, old_h, old_c, a, i_f, i, f, g, o, new, h, c, tanh_c in rows(
            keep.unsqueeze(0),
            *(before, *before.chunk(2, -1)),
            *(gates, gates[..., : 2 * H], *gates.chunk(4, -1)),
            *(after, *after.chunk(2, -1), squashed),
        ):
            torch.mul(now, k, out=old)
            a.baddbmm_(old_h, Ut)
            i_f.sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.mul(f, old_c, out=c).addcmul_(i, g)
            torch.mul(o, torch.tanh(c, out=tanh_c), out=h)
            now = new
        ctx.save_for_backward(x, keep, state, *weights, W, U, before, gates, squashed)
        return after[..., :H]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Those of x and the weights."""
        x, keep, state, *weights, W, U, before, gates, squashed = ctx.saved_tensors
        if torch.is_grad_enabled():
            return differentiable(lstm_step, x, keep, state, *weights, grad=grads[0])
        i, f, g, o = gates.chunk(4, -1)
        h_before, c_before = before.chunk(2, -1)
        to_c = (1.0 - squashed * squashed).mul_(o)
        da = grads[0].new_empty(gates.shape)  # first ∂c'/∂ and, of the last gate, ∂h'/∂; else as for the GRU
        to_i, to_f, to_g, to_o = da.chunk(4, -1)
        for part, gate, other in ((to_i, i, g), (to_f, f, c_before), (to_o, o, squashed)):
            part.copy_(slope(gate)).mul_(other)
        to_g.copy_(1.0 - g * g).mul_(i)
        by_gate = da.view(*squashed.shape[:3], 4, -1)
        carried, goes_on = torch.zeros_like(grads[0][:, 0]), keep[0]
        dc = carried
        for dy, to_c_t, by_c, by_o, da_t, f_t, k in rows(
            *(grads[0], to_c, by_gate[..., :3, :], by_gate[..., 3, :], da, f * keep, keep.unsqueeze(0)),
            backwards=True,
        ):
            dh = torch.addcmul(dy, carried, goes_on)
            dc = torch.addcmul(dc, dh, to_c_t)
            by_c.mul_(dc.unsqueeze(-2))
            by_o.mul_(dh)
            carried, goes_on, dc = torch.bmm(da_t, U), k, dc * f_t
        dU, dd = hidden_gradients(h_before, da)
        dx, dW = input_gradients(ctx, x, da, W)
        return dx, None, None, *by_cell(dW, dU, dd, dd)


def slope(s: Tensor) -> Tensor:
    """σ' where s = σ: s·(1 − s)."""
    return torch.addcmul(s, s, s, value=-1.0)


def rows(*parts: Tensor, backwards: bool = False) -> Iterator[tuple[Tensor, ...]]:
    """The rows of several tensors [N, T, ...] together."""
    each = [part.unbind(1) for part in parts]
    return zip(*(part[::-1] for part in each) if backwards else each, strict=True)


def hidden_gradients(before: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    """Those of U and d, from those of U·h + d [N, T, B, G·H] and every h [N, T, B, H]."""
    flat = da.view(len(before), -1, da.shape[-1])
    return flat.mT @ before.flatten(1, 2), flat.sum(1)


def input_gradients(ctx: Any, x: Tensor, da: Tensor, W: Tensor) -> tuple[Tensor | None, Tensor]:
    """Those of x and W, from those of W·x + b [N, T, B, G·H]."""
    da = da.view(len(W), -1, da.shape[-1])
    dx = (da @ W).sum(0).view_as(x) if ctx.needs_input_grad[0] else None
    return dx, (x.flatten(0, 1).mT @ da).mT  # in this order few inputs are quick


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
