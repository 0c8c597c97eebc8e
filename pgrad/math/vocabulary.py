"""Scores of tokens under a softmax over a large vocabulary, and their gradients, a chunk of logits at a time.

Between forward and backward one number per token is kept; the backward pass computes the logits again.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2**24
"""So many logits exist at a time: 64 MiB."""


class Shape(NamedTuple):
    """What happens to W·h + b: z = cap·tanh(scale·(W·h + b)/cap)/temperature, without tanh if cap is None."""

    temperature: float = 1.0
    scale: float = 1.0
    softcap: float | None = None


def logits(rows: Tensor, weight: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
    """z [N, V] in float32 of hidden states [N, H] and a head [V, H] of the same precision."""
    z = product(rows, weight.t())
    if bias is not None:
        z = z.add_(bias)
    if shape.scale != 1.0:
        z = z.mul_(shape.scale)
    if shape.softcap is not None:
        z = z.div_(shape.softcap).tanh_().mul_(shape.softcap)
    return z if shape.temperature == 1.0 else z.div_(shape.temperature)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a·b in float32 of matrices in any one precision: what they are rounded to, their product is not."""
    if a.dtype == torch.float32:
        return a @ b
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


def score(
    rows: Tensor, weight: Tensor, bias: Tensor | None, action: Tensor, shape: Shape, entropy: bool
) -> tuple[Tensor, Tensor]:
    """log π(action) and the entropy (zeros where it is not wanted) of N hidden states, [N] each."""
    scores: tuple[Tensor, Tensor] = _Score.apply(rows, weight, bias, action, shape, entropy)  # type: ignore
    return scores


def divergence(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shape: Shape,
    rows_q: Tensor,
    weight_q: Tensor,
    bias_q: Tensor | None,
    shape_q: Shape,
) -> Tensor:
    """KL(p‖q) of two softmaxes for every row, [N]."""
    value: Tensor = _Divergence.apply(  # type: ignore[no-untyped-call]
        rows, weight, bias, shape, rows_q, weight_q, bias_q, shape_q
    )
    return value


class _Score(torch.autograd.Function):
    """log π(a) and the entropy H of every row: ∂log π(a)/∂z = 1ₐ − π, ∂H/∂z = −π·(log π + H)."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        action: Tensor,
        shape: Shape,
        entropy_too: bool,
    ) -> tuple[Tensor, Tensor]:
        head = weight.to(rows.dtype)
        logp = rows.new_empty(len(rows), dtype=torch.float32)
        total, entropy = torch.empty_like(logp), torch.zeros_like(logp)
        start = 0
        for part in chunks(rows, head):
            here = slice(start, start + len(part))
            z = logits(part, head, bias, shape)
            total[here] = torch.logsumexp(z, -1)
            z = z.sub_(total[here].unsqueeze(1))
            logp[here] = z.gather(1, action[here].unsqueeze(1)).squeeze(1)
            if entropy_too:
                entropy[here] = -(z.exp() * z).sum(-1)
            start = here.stop
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.bias = shape, bias
        ctx.save_for_backward(rows, weight, action, total, entropy)
        return logp, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logp: Tensor | None, grad_entropy: Tensor | None) -> tuple[Any, ...]:
        rows, weight, action, total, entropy = ctx.saved_tensors
        head, pull = weight.to(rows.dtype), _Pull(ctx.needs_input_grad[:3], ctx.shape)
        start = 0
        for part in chunks(rows, head):
            here = slice(start, start + len(part))
            z = logits(part, head, ctx.bias, ctx.shape)
            logp = z - total[here].unsqueeze(1)
            grad = None
            if grad_entropy is not None:
                grad = logp.exp() * (logp + entropy[here].unsqueeze(1)) * -grad_entropy[here].unsqueeze(1)
            if grad_logp is not None:
                of_logp = grad_logp[here].unsqueeze(1)
                own = (logp.exp_() * -of_logp).scatter_add_(1, action[here].unsqueeze(1), of_logp)
                grad = own if grad is None else grad.add_(own)
            if grad is not None:
                pull.add(grad, z, part, head)
            start = here.stop
        return *pull.read(rows, weight, ctx.bias), None, None, None


class _Divergence(torch.autograd.Function):
    """KL(p‖q) of every row: ∂/∂z_p = p·(log p − log q − KL), ∂/∂z_q = q − p."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        (rows, weight, bias, shape), (rows_q, weight_q, bias_q, shape_q) = args[:4], args[4:]
        value = rows.new_empty(len(rows), dtype=torch.float32)
        heads = weight.to(rows.dtype), weight_q.to(rows_q.dtype)
        start = 0
        for part, part_q in zip(chunks(rows, weight), chunks(rows_q, weight), strict=True):
            p = logits(part, heads[0], bias, shape).log_softmax(-1)
            q = logits(part_q, heads[1], bias_q, shape_q).log_softmax(-1)
            value[start : start + len(part)] = (p.exp() * (p - q)).sum(-1)
            start += len(part)
        ctx.rest = (bias, shape, bias_q, shape_q)
        ctx.save_for_backward(rows, weight, rows_q, weight_q, value)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        rows, weight, rows_q, weight_q, value = ctx.saved_tensors
        bias, shape, bias_q, shape_q = ctx.rest
        heads = weight.to(rows.dtype), weight_q.to(rows_q.dtype)
        need = ctx.needs_input_grad
        ours, theirs = _Pull(need[:3], shape), _Pull(need[4:7], shape_q)
        start = 0
        for part, part_q in zip(chunks(rows, weight), chunks(rows_q, weight), strict=True):
            here = slice(start, start + len(part))
            z, z_q = logits(part, heads[0], bias, shape), logits(part_q, heads[1], bias_q, shape_q)
            p, q, each = z.log_softmax(-1), z_q.log_softmax(-1), grad[here].unsqueeze(1)
            ours.add(each * p.exp() * (p - q - value[here].unsqueeze(1)), z, part, heads[0])
            theirs.add(each * (q.exp() - p.exp()), z_q, part_q, heads[1])
            start = here.stop
        own = (*ours.read(rows, weight, bias), None)
        return *own, *theirs.read(rows_q, weight_q, bias_q), None


class _Pull:
    """Carries ∂/∂z of one chunk after another back to the hidden states and the head."""

    def __init__(self, need: Any, shape: Shape) -> None:
        self._need, self._shape = need, shape
        self._rows: list[Tensor] = []
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None

    def add(self, grad: Tensor, z: Tensor, rows: Tensor, head: Tensor) -> None:
        """The chunk with logits `z` of `rows`."""
        if not any(self._need):
            return
        shape = self._shape
        if shape.softcap is not None:
            grad = grad * (1.0 - (z * (shape.temperature / shape.softcap)).square())
        if shape.scale != shape.temperature:
            grad = grad * (shape.scale / shape.temperature)
        if self._need[2]:
            part = grad.sum(0)
            self._bias = part if self._bias is None else self._bias.add_(part)
        grad = grad.to(rows.dtype)
        if self._need[0]:
            self._rows.append(product(grad, head))
        if self._need[1]:
            part = product(grad.t(), rows)
            self._weight = part if self._weight is None else self._weight.add_(part)

    def read(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Any, Any, Any]:
        """The gradients of rows, weight and bias, None where none is needed."""
        if not any(self._need):
            return None, None, None
        of_rows = torch.cat(self._rows).to(rows.dtype) if self._rows else None
        of_weight = None if self._weight is None else self._weight.to(weight.dtype)
        of_bias = None if self._bias is None or bias is None else self._bias.to(bias.dtype)
        return of_rows, of_weight, of_bias


def chunks(rows: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """At least one chunk, an empty one if there are no rows."""
    return torch.split(rows, max(CHUNK // len(weight), 1))
