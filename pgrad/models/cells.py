"""Recurrent cells over whole sequences, with resets inside them and a backward pass written out.

torch's own layers cannot be reset in the middle of a sequence, and autograd through a loop over its cells
takes three times as long: here the backward pass has one small product per step, and all weights' gradients
at once.

Shapes: T steps, B columns, H units, G gates. `x` [T, B, n] is the input; `keep` [T, B, 1] is 0 where an
episode begins, else 1; `state` [B, K] is the memory before the first step. `weights` are those of torch's
cell, with its order of gates: W [G·H, n], U [G·H, H] and their biases b, d [G·H]. Gradients reach `x` and the
weights; a first state is data.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import linear

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
    """h after every step [T, B, H], one step at a time: what the faster functions are equal to."""
    outputs = []
    for x_t, keep_t in zip(x.unbind(0), keep.unbind(0), strict=True):
        state = step(x_t, state * keep_t, *weights)
        outputs.append(state[..., : weights[1].shape[1]])
    return torch.stack(outputs)


class GRUSequence(Function):
    """`unroll` of `gru_step`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
        """[T, B, H]."""
        W, U, b, d = weights
        T, B, H = *x.shape[:2], U.shape[1]
        inputs, Ut = linear(x, W, b), U.t()
        before, n, y = (x.new_empty(T, B, H) for _ in range(3))
        gates, a = x.new_empty(T, B, 2 * H), x.new_empty(B, 3 * H)
        a_rz, a_n = a[:, : 2 * H], a[:, 2 * H :]
        x_parts = inputs[..., : 2 * H], inputs[..., 2 * H :]
        h = state
        for k, old, x_rz, x_n, rz, r, z, new, out in rows(
            keep, before, *x_parts, gates, *gates.chunk(2, -1), n, y
        ):
            torch.mul(h, k, out=old)
            torch.addmm(d, old, Ut, out=a)
            torch.add(x_rz, a_rz, out=rz).sigmoid_()
            torch.addcmul(x_n, r, a_n, out=new).tanh_()
            h = torch.lerp(new, old, z, out=out)
        ctx.save_for_backward(x, keep, state, *weights, before, gates, n)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Those of x and the weights."""
        x, keep, state, *weights, before, gates, n = ctx.saved_tensors
        if torch.is_grad_enabled():
            return differentiable(gru_step, x, keep, state, *weights, grad=grads[0])
        _, U, _, d = weights
        H = U.shape[1]
        r, z = gates.chunk(2, -1)
        not_r, not_z = (1.0 - gates).chunk(2, -1)
        to_n = not_z * (1.0 - n * n)  # ∂h'/∂ what is under the tanh
        to_a = to_n * r
        a_n = linear(before, U[2 * H :], d[2 * H :])
        local = torch.stack([to_a * a_n * not_r, (before - n) * z * not_z, to_a], -2)
        dh = grads[0][-1]
        each = [dh]
        for earlier, by_gate, by_state in rows(
            grads[0][:-1], (local * keep.unsqueeze(-1))[1:], (z * keep)[1:], backwards=True
        ):
            da = (dh.unsqueeze(-2) * by_gate).reshape(len(dh), -1)
            dh = torch.addmm(torch.addcmul(earlier, dh, by_state), da, U)
            each.append(dh)
        dy = torch.stack(each[::-1])
        da = (dy.unsqueeze(-2) * local).reshape(*dy.shape[:2], -1)
        return gradients(ctx, x, before, torch.cat([da[..., : 2 * H], dy * to_n], -1), da, weights)


class LSTMSequence(Function):
    """`unroll` of `lstm_step`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
        """[T, B, H]."""
        W, U, b, d = weights
        T, B, H = *x.shape[:2], U.shape[1]
        inputs, Ut = linear(x, W, b + d), U.t()
        before, c_before, g, cell, squashed, y = (x.new_empty(T, B, H) for _ in range(6))
        gates = x.new_empty(T, B, 4 * H)
        h, c = state.chunk(2, -1)
        for k, x_t, old, old_c, all_gates, i, f, a_g, o, new, next_c, tanh_c, out in rows(
            keep, inputs, before, c_before, gates, *gates.chunk(4, -1), g, cell, squashed, y
        ):
            torch.mul(h, k, out=old)
            torch.mul(c, k, out=old_c)
            torch.addmm(x_t, old, Ut, out=all_gates)
            torch.tanh(a_g, out=new)
            all_gates.sigmoid_()
            c = torch.mul(f, old_c, out=next_c).addcmul_(i, new)
            h = torch.mul(o, torch.tanh(c, out=tanh_c), out=out)
        ctx.save_for_backward(x, keep, state, *weights, before, c_before, gates, g, squashed)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Those of x and the weights."""
        x, keep, state, *weights, before, c_before, gates, g, squashed = ctx.saved_tensors
        if torch.is_grad_enabled():
            return differentiable(lstm_step, x, keep, state, *weights, grad=grads[0])
        i, f, _, o = gates.chunk(4, -1)
        not_i, not_f, _, not_o = (1.0 - gates).chunk(4, -1)
        to_c, to_o = o * (1.0 - squashed * squashed), squashed * o * not_o
        local = torch.stack([g * i * not_i, c_before * f * not_f, i * (1.0 - g * g)], -2)
        dh, dc = grads[0][-1], torch.zeros_like(grads[0][-1])
        each = []
        for earlier, by_cell, by_o, by_gate, f_t, k in rows(  # `earlier` of the first row is not used
            grads[0].roll(1, 0), to_c, to_o, local, f * keep, keep, backwards=True
        ):
            dc = torch.addcmul(dc, dh, by_cell)
            da = torch.cat([(dc.unsqueeze(-2) * by_gate).reshape(len(dc), -1), dh * by_o], -1)
            each.append(da)
            dh, dc = torch.addcmul(earlier, torch.mm(da, weights[1]), k), dc * f_t
        da = torch.stack(each[::-1])
        return gradients(ctx, x, before, da, da, weights)


def rows(*parts: Tensor, backwards: bool = False) -> Iterator[tuple[Tensor, ...]]:
    """The rows of several tensors [T, ...] together."""
    each = [part.unbind(0) for part in parts]
    return zip(*(part[::-1] for part in each) if backwards else each, strict=True)


def gradients(
    ctx: Any, x: Tensor, before: Tensor, d_input: Tensor, d_hidden: Tensor, weights: list[Tensor]
) -> Gradients:
    """Those of x and the weights, from those of W·x + b and of U·h + d [T, B, G·H]."""
    flat_input, flat_hidden = (d.reshape(-1, d.shape[-1]) for d in (d_input, d_hidden))
    dx = d_input @ weights[0] if ctx.needs_input_grad[0] else None
    dW = (x.reshape(-1, x.shape[-1]).t() @ flat_input).t()  # so that few inputs are quick
    dU = flat_hidden.t() @ before.reshape(-1, before.shape[-1])
    db = flat_input.sum(0)
    return dx, None, None, dW, dU, db, db if d_hidden is d_input else flat_hidden.sum(0)


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
    step: Step
    sequence: type[Function]


CELLS = {
    "gru": Cell(gates=3, parts=1, remembers=1, step=gru_step, sequence=GRUSequence),
    "lstm": Cell(gates=4, parts=2, remembers=1, step=lstm_step, sequence=LSTMSequence),
}
