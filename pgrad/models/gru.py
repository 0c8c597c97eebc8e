"""A GRU over whole sequences; shapes are those of `models/cells.py`."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgrad.models.derivative import Gradients, after, differentiate, project
from pgrad.models.loop import Taken, loop
from pgrad.models.places import Place, each_of, each_place, instead, joined, parts, place
from pgrad.models.steps import gru_step, kinds, unroll


class GRUSequence(Function):
    """`unroll` of `gru_step`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
        """[N, T, B, H]."""
        W, U, b, d = map(torch.stack, kinds(weights))
        q, H = project(x, *GRUSequence.spread(W, b, d)), U.shape[-1]
        own, x_n = q.split_with_sizes([3 * H, H], -1)
        rows, gates = (own, x_n, keep.unsqueeze(0)), instead(own, q)
        opened = None if gates is None else gates.narrow(-1, 0, 2 * H)
        places = [*(place(q, *q.shape[:3], H) for _ in range(3)), gates, opened, *each_place(3, gates)]
        kept = loop(GRUSequence.step, (state,), rows, (U.mT.contiguous(),), places)
        ctx.save_for_backward(x, keep, state, *weights, W, U, *kept)
        return kept[0]

    @staticmethod
    def spread(W: Tensor, b: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """Those of W·x + b + d of r and z, of d of n, and of W·x + b of n."""
        H = W.shape[1] // 3
        (W_rz, W_n), (b_rz, b_n), (d_rz, d_n) = (x.split_with_sizes([2 * H, H], 1) for x in (W, b, d))
        return torch.cat([W_rz, torch.zeros_like(W_n), W_n], 1), torch.cat([b_rz + d_rz, d_n, b_n], 1)

    @staticmethod
    def of_x(q: Tensor) -> Tensor:
        """Of q [..., 4·H] what x decides."""
        H = q.shape[-1] // 4
        r_z, _, n = q.split_with_sizes([2 * H, H, H], -1)
        return torch.cat([r_z, n], -1)

    @staticmethod
    def step(
        h: Tensor,
        own: Tensor,
        x_n: Tensor,
        k: Tensor,
        Ut: Tensor,
        to_h: Place,
        to_m: Place,
        to_n: Place,
        to_gates: Place,
        to_opened: Place,
        *three: Place,
    ) -> Taken:
        """As `gru_step` does it, of inputs that are W·x + b: x_n, and in `own` those of r and z, with d.

        Kept of the gates are r, z and U·h + d of n.
        """
        m = torch.mul(h, k, out=to_m)
        r, z, a_n = parts(torch.baddbmm(own, m, Ut, out=to_gates), three)
        if to_opened is None:
            r, z = r.sigmoid(), z.sigmoid()
        else:
            to_opened.sigmoid_()
        n = torch.tanh(torch.addcmul(x_n, r, a_n), out=to_n)
        h = torch.lerp(n, m, z, out=to_h)
        return (h,), (h, m, n, joined((r, z, a_n), to_gates))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Those of x and the weights."""
        return differentiate(ctx, GRUSequence, partial(unroll, gru_step), grads[0])

    @staticmethod
    def slopes(keep: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        """What every step found in the memory, ∂h'/∂q, and z."""
        y, m, n, gates = kept
        (r, z, a_n), to = each_of(3, gates), place(y, *y.shape[:3], 4 * y.shape[-1])
        to_r, to_z, to_n, to_x = each_place(4, to)
        gap, bend = y - n, torch.addcmul(torch.ones_like(n), n, n, value=-1.0)
        by_x = torch.addcmul(bend, bend, z, value=-1.0, out=to_x)
        by_n = torch.mul(by_x, r, out=to_n)
        of_r = by_n * a_n
        by_r = torch.addcmul(of_r, of_r, r, value=-1.0, out=to_r)
        by_z = torch.addcmul(gap, gap, z, value=-1.0, out=to_z)
        return m, joined((by_r, by_z, by_n, by_x), to), z

    @staticmethod
    def pull(grad: Tensor, keep: Tensor, U: Tensor, spent: bool, *slopes: Tensor) -> Tensor:
        """That of q."""
        none, rows = torch.zeros_like(grad[:, 0]), (grad, after(keep), *slopes)
        where = instead(slopes[0], grad, spent)
        places = [where, None if where is None else where.narrow(-1, 0, U.shape[1])]
        (dq,) = loop(GRUSequence.back, (none,), rows, (U,), places, backwards=True)
        return dq

    @staticmethod
    def back(
        dh: Tensor,
        dy: Tensor,
        goes_on: Tensor,
        to: Tensor,
        z: Tensor,
        U: Tensor,
        to_q: Place,
        own: Place,
    ) -> Taken:
        """From the gradient of the next step's h to that of this one's, and those inside the step."""
        dh = torch.addcmul(dy, dh, goes_on)
        dq = torch.mul(torch.cat([dh, dh, dh, dh], -1), to, out=to_q)
        own = dq.narrow(-1, 0, U.shape[1]) if own is None else own
        return (torch.baddbmm(dh * z, own, U),), (dq,)

    @staticmethod
    def push(dq: Tensor, keep: Tensor, U: Tensor, *slopes: Tensor) -> Tensor:
        """The change of h'."""
        (to, z), (G, H) = slopes, U.shape[1:]
        (own, rest), (to_own, to_x) = (x.split_with_sizes([G, H], -1) for x in (dq, to))
        rows, fixed = (own, to_x * rest, keep.unsqueeze(0), to_own, z), (U.mT.contiguous(),)
        (dy,) = loop(GRUSequence.forth, (torch.zeros_like(z[:, 0]),), rows, fixed, [place(dq, *z.shape)])
        return dy

    @staticmethod
    def forth(
        dh: Tensor,
        own: Tensor,
        x_n: Tensor,
        k: Tensor,
        to: Tensor,
        z: Tensor,
        Ut: Tensor,
        to_y: Place,
    ) -> Taken:
        """From the change of the last step's h to that of this one's."""
        dh = dh * k
        of_r, of_z, of_n = each_of(3, torch.baddbmm(own, dh, Ut) * to)
        dh = torch.addcmul(of_r + of_z + of_n + x_n, dh, z, out=to_y)
        return (dh,), (dh,)
