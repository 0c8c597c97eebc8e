"""The derivative of a recurrent layer: pulled back by a loop of its own, and differentiable again.

As a function of the gradient of y, the gradients of x and the weights are linear, and the other way round
stands the change of y that follows from changes of x and the weights: a loop forwards in time with the same
slopes. Products with a Gauss-Newton matrix (TRPO) take one of each. What second derivatives have beside
that is computed from the plain steps, where somebody asks for it.

Shapes are those of `models/cells.py`: T steps, B columns, N cells side by side, H units, G gates.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pgrad.models.places import plus
from pgrad.models.steps import kinds

Gradients = tuple[Tensor | None, ...]


class Layer(Protocol):
    """What a layer knows of its own derivative."""

    @staticmethod
    def slopes(keep: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        """What every step found in the memory [N, T, B, H], and its slopes."""

    @staticmethod
    def pull(grad: Tensor, keep: Tensor, U: Tensor, spent: bool, *slopes: Tensor) -> Tensor:
        """From the gradient of y to that of q [N, T, B, Q], written over slopes where they are `spent`."""

    @staticmethod
    def spread(W: Tensor, b: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and biases [N, Q, ...] that say what x decides of q."""

    @staticmethod
    def of_x(q: Tensor) -> Tensor:
        """Of q [..., Q] what W·x + b is part of [..., G·H]; the first G·H have a part of U·h + d."""

    @staticmethod
    def push(dq: Tensor, keep: Tensor, U: Tensor, *slopes: Tensor) -> Tensor:
        """The change of y from that of q, but for what follows from that of h: `pull` transposed."""


def differentiate(ctx: Any, layer: type[Layer], plain: Callable[..., Tensor], grad: Tensor) -> Gradients:
    """Gradients of x and the weights. `plain` is the layer as a function that autograd knows."""
    x, keep, state, *rest = ctx.saved_tensors
    weights, (W, U, *kept) = rest[: 4 * len(state)], rest[4 * len(state) :]
    found = getattr(ctx, "slopes", None)
    spent = found is None and not torch.is_grad_enabled()
    if found is None:
        with torch.no_grad():
            found = layer.slopes(keep, *kept)
    if not spent:  # they will be asked for again, by every product
        ctx.slopes = found
    h, *slopes = found
    wants_x = ctx.needs_input_grad[0]
    fixed = layer, wants_x, spent, x, h, keep, W, U, *slopes
    if not torch.is_grad_enabled():
        gradients = pulled(grad, *fixed)
    else:

        def plainly(*inputs: Tensor) -> Tensor:
            seen, own = (inputs[0], inputs[1:]) if wants_x else (x, inputs)
            return plain(seen, keep, state, *own)

        inputs = (x, *weights) if wants_x else weights
        parts = Pulled.apply(grad, *fixed), Bent.apply(plainly, grad.detach(), *inputs)  # type: ignore
        gradients = [linear + bent for linear, bent in zip(*parts, strict=True)]
    dx = gradients.pop(0) if wants_x else None
    return dx, None, None, *gradients


def pulled(
    grad: Tensor,
    layer: type[Layer],
    wants_x: bool,
    spent: bool,
    x: Tensor,
    h: Tensor,
    keep: Tensor,
    W: Tensor,
    U: Tensor,
    *slopes: Tensor,
) -> list[Tensor]:
    """The gradients of x, if wanted, and of the weights."""
    dq = rows(layer.pull(grad, keep, U, spent, *slopes))
    own, biases = dq.narrow(-1, 0, U.shape[1]), dq.sum(1)
    seen = x.flatten(0, 1).mT.expand(len(dq), -1, -1)  # else `@` would copy dq, which is the larger one
    dW = layer.of_x(torch.bmm(seen, dq)).mT  # in this order few inputs are quick
    dx = [(layer.of_x(dq) @ W).sum(0).view_as(x)] if wants_x else []
    return dx + by_cell(dW, own.mT @ rows(h), layer.of_x(biases), biases.narrow(-1, 0, U.shape[1]))


class Pulled(Function):
    """`pulled`, whose derivative in the gradient of y is `push`; in the rest it has none."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, layer: type[Layer], wants_x: bool, spent: bool, *fixed: Tensor
    ) -> Gradients:
        """Gradients of x, if wanted, and of the weights."""
        ctx.layer, ctx.wants_x = layer, wants_x
        ctx.save_for_backward(*fixed)
        return tuple(pulled(grad, layer, wants_x, spent, *fixed))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *changes: Tensor) -> Gradients:
        """The change of y where x and the weights change."""
        x, h, keep, W, U, *slopes = ctx.saved_tensors
        V, Q, b, d = map(torch.stack, kinds(changes[ctx.wants_x :]))  # of W, U and their biases
        dq = project(x, *ctx.layer.spread(V, b, d))
        if ctx.wants_x:
            none = torch.zeros_like(b)
            dq = dq + project(changes[0], *ctx.layer.spread(W, none, none))
        own, rest = dq.split_with_sizes([U.shape[1], dq.shape[-1] - U.shape[1]], -1)
        own = torch.baddbmm(rows(own), rows(h), Q.mT).view(own.shape)
        dy = ctx.layer.push(torch.cat([own, rest], -1), keep, U, *slopes)
        return dy, *[None] * (3 + len(ctx.saved_tensors))


class Bent(Function):
    """Zeros, whose derivatives in x and the weights are those of the gradients of x and the weights."""

    @staticmethod
    def forward(ctx: Any, plainly: Callable[..., Tensor], grad: Tensor, *inputs: Tensor) -> Gradients:
        """A zero for every input."""
        ctx.plainly = plainly
        ctx.save_for_backward(grad, *inputs)
        return tuple(map(torch.zeros_like, inputs))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *changes: Tensor) -> Gradients:
        """By autograd through the plain steps."""
        grad, *inputs = ctx.saved_tensors
        with torch.enable_grad():
            inputs = [part.detach().requires_grad_() for part in inputs]
            found = torch.autograd.grad(ctx.plainly(*inputs), inputs, grad, create_graph=True)
        return None, None, *torch.autograd.grad(found, inputs, changes, materialize_grads=True)


def by_cell(*kinds: Tensor) -> list[Tensor]:
    """The gradients of every cell's four weights, from those of all cells [N, ...] of each."""
    return [own for cell in zip(*(kind.unbind(0) for kind in kinds), strict=True) for own in cell]


def project(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """W·x + b for the whole sequence and every cell [N, T, B, G·H]."""
    flat = x.flatten(0, 1).expand(len(W), -1, -1)
    return plus(torch.bmm(flat, W.mT), b.unsqueeze(1)).view(len(W), *x.shape[:2], -1)


def rows(x: Tensor) -> Tensor:
    """[N, T, B, ·] as [N, T·B, ·]."""
    return x.reshape(len(x), -1, x.shape[-1])


def after(keep: Tensor) -> Tensor:
    """Of every step, whether the next one goes on with its memory [1, T, B, 1]; of the last, anything."""
    return keep.roll(-1, 0).unsqueeze(0)
