"""Recurrent layers and their derivative: pulled back by a loop of its own, and differentiable again.

As a function of the gradient of y, the gradients of x and the weights are linear, and the other way round
stands the change of y that follows from changes of x and the weights: a loop forwards in time with the same
slopes. Products with a Gauss-Newton matrix (TRPO) take one of each. What second derivatives have beside
that is computed from the plain steps, where somebody asks for it.

Shapes are those of `pgrad.models.cells`: T steps, B columns, N cells side by side, H units, G gates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pgrad.models.cells.native import Loop
from pgrad.models.cells.steps import Step, kinds, unroll

Gradients = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Layer:
    """Cells of one kind over whole sequences, with four `weights` for each cell.

    forward: from (x, keep, weights, state) to what is `kept`: y, what every step found in the memory, h
    [N, T, B, H], and the rest. pull: from (the gradient of y, keep, weights, x, *kept) to those of q
    [N, T, B, Q] and of all W, U, b and d. push: `pull` transposed, from (x, keep, weights, their changes,
    more of the change of q or None, *kept) to the change of y. spread: from W, b and d to weights [N, Q, n]
    and biases [N, Q] that say what x decides of q. of_x: of q [..., Q] what W·x + b is part of [..., G·H];
    the first G·H have a part of U·h + d.
    """

    step: Step
    forward: Callable[..., tuple[Tensor, ...]]
    pull: Callable[..., tuple[Tensor, ...]]
    push: Callable[..., Tensor]
    spread: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    of_x: Callable[[Tensor], Tensor]

    def apply(self, x: Tensor, keep: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
        """y, the outputs after every step [N, T, B, H]: `unroll` of `step`."""
        found: Tensor = Whole.apply(self, x, keep, state, *weights)  # type: ignore[no-untyped-call]
        return found


def layer(
    kind: str,
    gates: int,
    kept: Sequence[str],
    step: Step,
    forward: Callable[..., tuple[Tensor, ...]],
    pull: Callable[..., Tensor],
    push: Callable[..., Tensor],
    spread: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    of_x: Callable[[Tensor], Tensor],
) -> Layer:
    """A layer whose loops are C++ or, by torch, these: pull(gradient of y, keep, U, y, *rest of what is kept)
    finds that of q, push(change of q but for what follows from that of h, keep, Uᵀ, y, *rest) that of y.

    kind: its name; kept: the names of what the way forwards leaves between h and the gates.
    """

    def whole_pull(
        grad: Tensor, keep: Tensor, weights: Sequence[Tensor], x: Tensor, y: Tensor, h: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        dq = pull(grad, keep, torch.stack(kinds(weights)[1]), y, *rest)
        return dq, *gradients(of_x, weights, x, h, dq)

    def whole_push(
        x: Tensor,
        keep: Tensor,
        weights: Sequence[Tensor],
        changes: Sequence[Tensor],
        more: Tensor | None,
        y: Tensor,
        h: Tensor,
        *rest: Tensor,
    ) -> Tensor:
        dq, Ut = change(spread, x, weights, changes, more, h)
        return push(dq, keep, Ut, y, *rest)

    seen, left = "Tensor x, Tensor keep, Tensor[] weights, ", ("y", "h", *kept, "gates")
    given = ", ".join(f"Tensor {name}" for name in left)
    rows, G = [*["N T B H"] * (len(left) - 1), "N T B 4H"], f"{gates}H"
    pulled = ["N T B 4H", f"N {G} n", f"N {G} H", f"N {G}", f"N {G}"]
    return Layer(
        step,
        Loop(kind, "forward", seen + "Tensor state", rows, forward),
        Loop(
            kind, "pull", f"Tensor grad, Tensor keep, Tensor[] weights, Tensor x, {given}", pulled, whole_pull
        ),
        Loop(kind, "push", f"{seen}Tensor[] changes, Tensor? more, {given}", ["N T B H"], whole_push),
        spread,
        of_x,
    )


class Whole(Function):
    """`Layer.apply`."""

    @staticmethod
    def forward(ctx: Any, layer: Layer, x: Tensor, keep: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
        """[N, T, B, H]."""
        kept = layer.forward(x, keep, weights, state)
        ctx.layer = layer
        ctx.save_for_backward(x, keep, state, *weights, *kept)
        return kept[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Gradients of x and the weights."""
        x, keep, state, *rest = ctx.saved_tensors
        layer, weights, wants_x = ctx.layer, rest[: 4 * len(state)], ctx.needs_input_grad[1]
        if not torch.is_grad_enabled():
            gradients = pulled(grads[0], layer, len(state), wants_x, x, keep, *rest)
        else:

            def plainly(*inputs: Tensor) -> Tensor:
                seen, own = (inputs[0], inputs[1:]) if wants_x else (x, inputs)
                return unroll(layer.step, seen, keep, state, *own)

            inputs = (x, *weights) if wants_x else weights
            fixed = layer, len(state), wants_x, *(one.detach() for one in (x, keep, *rest))
            parts = Pulled.apply(grads[0], *fixed), Bent.apply(plainly, grads[0].detach(), *inputs)  # type: ignore
            gradients = [linear + bent for linear, bent in zip(*parts, strict=True)]
        dx = gradients.pop(0) if wants_x else None
        return None, dx, None, None, *gradients


def pulled(
    grad: Tensor, layer: Layer, n_cells: int, wants_x: bool, x: Tensor, keep: Tensor, *rest: Tensor
) -> list[Tensor]:
    """The gradients of x, if wanted, and of the weights."""
    weights, kept = rest[: 4 * n_cells], rest[4 * n_cells :]
    dq, *found = layer.pull(grad, keep, weights, x, *kept)
    own = [one for cell in zip(*(kind.unbind(0) for kind in found), strict=True) for one in cell]
    if not wants_x:
        return own
    return [(layer.of_x(rows(dq)) @ torch.stack(kinds(weights)[0])).sum(0).view_as(x), *own]


def gradients(
    of_x: Callable[[Tensor], Tensor], weights: Sequence[Tensor], x: Tensor, h: Tensor, dq: Tensor
) -> tuple[Tensor, ...]:
    """Those of all W, U, b and d [N, ...] from that of q."""
    dq, G = rows(dq), len(weights[0])
    seen = x.flatten(0, 1).mT.expand(len(dq), -1, -1)  # else `@` would copy dq, which is the larger one
    dW = of_x(torch.bmm(seen, dq)).mT  # in this order few inputs are quick
    own, sums = dq.narrow(-1, 0, G), dq.sum(1)
    return dW, own.mT @ rows(h), of_x(sums), sums.narrow(-1, 0, G)


class Pulled(Function):
    """`pulled`, whose derivative in the gradient of y is `push`; in the rest it has none."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, layer: Layer, n_cells: int, wants_x: bool, *fixed: Tensor
    ) -> Gradients:
        """Gradients of x, if wanted, and of the weights."""
        ctx.layer, ctx.n_cells, ctx.wants_x = layer, n_cells, wants_x
        ctx.save_for_backward(*fixed)
        return tuple(pulled(grad, layer, n_cells, wants_x, *fixed))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *changes: Tensor) -> Gradients:
        """The change of y where x and the weights change."""
        (x, keep, *rest), more = ctx.saved_tensors, None
        weights, kept = rest[: 4 * ctx.n_cells], rest[4 * ctx.n_cells :]
        if ctx.wants_x:
            W, _, b, _ = map(torch.stack, kinds(weights))
            none = torch.zeros_like(b)
            more = project(changes[0], *ctx.layer.spread(W, none, none))
        dy = ctx.layer.push(x, keep, weights, changes[ctx.wants_x :], more, *kept)
        return dy, *[None] * (3 + len(ctx.saved_tensors))


def change(
    spread: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    weights: Sequence[Tensor],
    changes: Sequence[Tensor],
    more: Tensor | None,
    h: Tensor,
) -> tuple[Tensor, Tensor]:
    """The change of q [N, T, B, Q] but for what follows from that of h, and what that is multiplied by."""
    V, D, b, d = map(torch.stack, kinds(changes))
    dq = project(x, *spread(V, b, d))
    dq = dq if more is None else dq + more
    own, rest = dq.split_with_sizes([D.shape[1], dq.shape[-1] - D.shape[1]], -1)
    own = torch.baddbmm(rows(own), rows(h), D.mT).view(own.shape)
    return torch.cat([own, rest], -1), torch.stack(kinds(weights)[1]).mT.contiguous()


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


def project(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """W·x + b for the whole sequence and every cell [N, T, B, Q]."""
    flat = x.flatten(0, 1).expand(len(W), -1, -1)
    return (torch.bmm(flat, W.mT) + b.unsqueeze(1)).view(len(W), *x.shape[:2], -1)


def rows(x: Tensor) -> Tensor:
    """[N, T, B, ·] as [N, T·B, ·]."""
    return x.reshape(len(x), -1, x.shape[-1])


def after(keep: Tensor) -> Tensor:
    """Of every step, whether the next one goes on with its memory [1, T, B, 1]; of the last, anything."""
    return keep.roll(-1, 0).unsqueeze(0)
