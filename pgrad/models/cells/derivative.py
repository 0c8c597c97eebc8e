"""The derivative of a recurrent layer: pulled back by a loop of its own, and differentiable again.

As a function of the gradient of y, the gradients of x and the weights are linear, and the other way round
stands the change of y that follows from changes of x and the weights: a loop forwards in time with the same
slopes. Products with a Gauss-Newton matrix (TRPO) take one of each. What second derivatives have beside
that is computed from the plain steps, where somebody asks for it.

Shapes are those of `pgrad.models.cells`: T steps, B columns, N cells side by side, H units, G gates.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pgrad.models.cells.steps import kinds

Gradients = tuple[Tensor | None, ...]


class Layer(Protocol):
    """What a layer knows of its own derivative. `kept` is what the way forwards leaves: y, what every step
    found in the memory [N, T, B, H], which is not passed on, and the rest.
    """

    @staticmethod
    def pull(grad: Tensor, keep: Tensor, U: Tensor, *kept: Tensor) -> Tensor:
        """From the gradient of y to that of q [N, T, B, Q]."""

    @staticmethod
    def spread(W: Tensor, b: Tensor, d: Tensor) -> Tensor:
        """Weights and, last, biases [N, Q, n + 1] that say what x decides of q."""

    @staticmethod
    def of_x(q: Tensor) -> Tensor:
        """Of q [..., Q] what W·x + b is part of [..., G·H]; the first G·H have a part of U·h + d."""

    @staticmethod
    def push(dq: Tensor, keep: Tensor, U: Tensor, *kept: Tensor) -> Tensor:
        """The change of y from that of q, but for what follows from that of h: `pull` transposed."""


def differentiate(ctx: Any, layer: type[Layer], plain: Callable[..., Tensor], grad: Tensor) -> Gradients:
    """Gradients of x and the weights. `plain` is the layer as a function that autograd knows."""
    x, seen, keep, state, *rest = ctx.saved_tensors
    weights, fixed = rest[: 4 * len(state)], (keep, *rest[4 * len(state) :])
    wants_x = ctx.needs_input_grad[0]
    if not torch.is_grad_enabled():
        gradients = pulled(grad, layer, wants_x, seen, *fixed)
    else:

        def plainly(*inputs: Tensor) -> Tensor:
            of_x, own = (inputs[0], inputs[1:]) if wants_x else (x, inputs)
            return plain(of_x, keep, state, *own)

        inputs = (x, *weights) if wants_x else weights
        linear = Pulled.apply(grad, layer, wants_x, seen, *fixed)
        bent = Bent.apply(plainly, grad.detach(), *inputs)  # type: ignore
        gradients = [a + b for a, b in zip(linear, bent, strict=True)]
    dx = gradients.pop(0) if wants_x else None
    return dx, None, None, *gradients


def pulled(
    grad: Tensor,
    layer: type[Layer],
    wants_x: bool,
    seen: Tensor,
    keep: Tensor,
    W: Tensor,
    U: Tensor,
    y: Tensor,
    h: Tensor,
    *kept: Tensor,
) -> list[Tensor]:
    """The gradients of x, if wanted, and of the weights. seen: x, and a 1 for the biases."""
    dq, G = rows(layer.pull(grad, keep, U, y, *kept)), U.shape[1]
    every = seen.flatten(0, 1).mT.expand(len(dq), -1, -1)  # else `@` would copy dq, which is the larger one
    of_x, of_1 = torch.bmm(every, dq).split_with_sizes([W.shape[-1], 1], 1)  # in this order few are quick
    biases = of_1.squeeze(1)
    dx = [(layer.of_x(dq) @ W).sum(0).view(*seen.shape[:2], -1)] if wants_x else []
    dU = dq.narrow(-1, 0, G).mT @ rows(h)
    return dx + by_cell(layer.of_x(of_x).mT, dU, layer.of_x(biases), biases.narrow(-1, 0, G))


class Pulled(Function):
    """`pulled`, whose derivative in the gradient of y is `push`; in the rest it has none."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, layer: type[Layer], wants_x: bool, *fixed: Tensor) -> Gradients:
        """Gradients of x, if wanted, and of the weights."""
        ctx.layer, ctx.wants_x = layer, wants_x
        ctx.save_for_backward(*fixed)
        return tuple(pulled(grad, layer, wants_x, *fixed))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *changes: Tensor) -> Gradients:
        """The change of y where x and the weights change."""
        seen, keep, W, U, y, h, *kept = ctx.saved_tensors
        V, Q, b, d = map(torch.stack, kinds(changes[ctx.wants_x :]))  # of W, U and their biases
        dq, none = project(seen, ctx.layer.spread(V, b, d)), torch.zeros_like(b)
        if ctx.wants_x:
            dx = torch.cat([changes[0], torch.zeros_like(changes[0][..., :1])], -1)
            dq = dq + project(dx, ctx.layer.spread(W, none, none))
        own, rest = dq.split_with_sizes([U.shape[1], dq.shape[-1] - U.shape[1]], -1)
        own = torch.baddbmm(rows(own), rows(h), Q.mT).view(own.shape)
        dy = ctx.layer.push(torch.cat([own, rest], -1), keep, U, y, *kept)
        return dy, *[None] * (2 + len(ctx.saved_tensors))


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


def with_one(x: Tensor) -> Tensor:
    """Inputs [T, B, n + 1], the last of them 1 for the biases."""
    return torch.cat([x, torch.ones_like(x[..., :1])], -1)


def project(seen: Tensor, W: Tensor) -> Tensor:
    """W·x + b for the whole sequence and every cell [N, T, B, Q]. W: with b as its last column."""
    flat = seen.flatten(0, 1).expand(len(W), -1, -1)
    return torch.bmm(flat, W.mT).view(len(W), *seen.shape[:2], -1)


def rows(x: Tensor) -> Tensor:
    """[N, T, B, ·] as [N, T·B, ·]."""
    return x.reshape(len(x), -1, x.shape[-1])


def after(keep: Tensor) -> Tensor:
    """Of every step, whether the next one goes on with its memory [1, T, B, 1]; of the last, anything."""
    return keep.roll(-1, 0).unsqueeze(0)
