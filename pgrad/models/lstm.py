"""An LSTM over whole sequences; shapes are those of `models/cells.py`."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from pgrad.models.derivative import Gradients, after, differentiate, project
from pgrad.models.loop import Taken, loop
from pgrad.models.places import Place, each_of, each_place, instead, joined, parts, place
from pgrad.models.steps import kinds, lstm_step, unroll


class LSTMSequence(Function):
    """`unroll` of `lstm_step`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, state: Tensor, *weights: Tensor) -> Tensor:
        """[N, T, B, H]."""
        W, U, b, d = map(torch.stack, kinds(weights))
        H, by_x = U.shape[-1], LSTMSequence.spread(W, b, d)
        A = to_sigmoids(torch.cat([U, by_x[0], by_x[1].unsqueeze(-1)], -1))
        own, fixed = project(x, A[..., H:-1], A[..., -1]), (A[..., :H].mT.contiguous(),)
        gates = instead(own, own)
        places = [*(place(own, *own.shape[:3], H) for _ in range(4)), gates, *each_place(4, gates)]
        rows = own, keep.unsqueeze(0)
        kept = loop(LSTMSequence.step, each_of(2, state), rows, fixed, places)
        ctx.save_for_backward(x, keep, state, *weights, W, U, *kept)
        return kept[0]

    @staticmethod
    def spread(W: Tensor, b: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """Those of W·x + b + d."""
        return W, b + d

    @staticmethod
    def of_x(q: Tensor) -> Tensor:
        """All of q."""
        return q

    @staticmethod
    def step(
        h: Tensor,
        c: Tensor,
        x: Tensor,
        k: Tensor,
        Ut: Tensor,
        to_h: Place,
        to_m: Place,
        to_c: Place,
        to_squashed: Place,
        to_gates: Place,
        *four: Place,
    ) -> Taken:
        """As `lstm_step` does it, of inputs that are W·x + b + d, what is under g's tanh times −2 in all.

        tanh a = 1 − 2·σ(−2a): one σ for all gates takes a fraction of the time of a tanh.
        """
        m = torch.mul(h, k, out=to_m)
        gates = torch.sigmoid(torch.baddbmm(x, m, Ut), out=to_gates)
        i, f, s, o = parts(gates, four)
        c = torch.addcmul(torch.addcmul(i, i, s, value=-2.0), f, c * k, out=to_c)
        squashed = torch.tanh(c, out=to_squashed)
        h = torch.mul(o, squashed, out=to_h)
        return (h, c), (h, m, c, squashed, gates)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        """Those of x and the weights."""
        return differentiate(ctx, LSTMSequence, partial(unroll, lstm_step), grads[0])

    @staticmethod
    def slopes(keep: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        """What every step found in the memory, ∂c'/∂q of three gates and ∂h'/∂q of the fourth, ∂h'/∂c' and
        ∂c'/∂c. They follow from i·g and f·c, the two parts of c'.
        """
        y, m, c, squashed, gates = kept
        to = place(gates, *gates.shape)
        (i, f, s, o), (to_i, to_f, to_g, to_o) = each_of(4, gates), each_place(4, to)
        new = torch.addcmul(i, i, s, value=-2.0)
        old = c - new
        found = [
            torch.addcmul(new, new, i, value=-1.0, out=to_i),
            torch.addcmul(old, old, f, value=-1.0, out=to_f),
            torch.addcmul(i - new, new, s, value=2.0, out=to_g),
            torch.addcmul(y, y, o, value=-1.0, out=to_o),
        ]
        by_c = torch.addcmul(o, y, squashed, value=-1.0)
        return m, joined(found, to), by_c, f * keep

    @staticmethod
    def pull(grad: Tensor, keep: Tensor, U: Tensor, spent: bool, *slopes: Tensor) -> Tensor:
        """That of q."""
        none, rows = torch.zeros_like(grad[:, 0]), (grad, after(keep), *slopes)
        places = [instead(slopes[0], grad, spent)]
        (dq,) = loop(LSTMSequence.back, (none, none), rows, (U,), places, backwards=True)
        return dq

    @staticmethod
    def back(
        dh: Tensor,
        dc: Tensor,
        dy: Tensor,
        goes_on: Tensor,
        to: Tensor,
        by_c: Tensor,
        f: Tensor,
        U: Tensor,
        to_q: Place,
    ) -> Taken:
        """From the gradients of the next step's h and c to those of this one's, and those inside the step."""
        dh = torch.addcmul(dy, dh, goes_on)
        dc = torch.addcmul(dc, dh, by_c)
        dq = torch.mul(torch.cat([dc, dc, dc, dh], -1), to, out=to_q)
        return (torch.bmm(dq, U), dc * f), (dq,)

    @staticmethod
    def push(dq: Tensor, keep: Tensor, U: Tensor, *slopes: Tensor) -> Tensor:
        """The change of h'."""
        none = torch.zeros_like(slopes[-1][:, 0])
        rows, fixed = (dq, keep.unsqueeze(0), *slopes), (U.mT.contiguous(),)
        (dy,) = loop(LSTMSequence.forth, (none, none), rows, fixed, [place(dq, *slopes[-1].shape)])
        return dy

    @staticmethod
    def forth(
        dh: Tensor,
        dc: Tensor,
        dq: Tensor,
        k: Tensor,
        to: Tensor,
        by_c: Tensor,
        f: Tensor,
        Ut: Tensor,
        to_y: Place,
    ) -> Taken:
        """From the changes of the last step's h and c to those of this one's."""
        of_i, of_f, of_g, of_o = each_of(4, torch.baddbmm(dq, dh * k, Ut) * to)
        dc = torch.addcmul(of_i + of_f + of_g, dc, f)
        dh = torch.addcmul(of_o, dc, by_c, out=to_y)
        return (dh, dc), (dh,)


def to_sigmoids(x: Tensor) -> Tensor:
    """Weights of four gates [N, 4·H, ...], those of the third times −2."""
    H = x.shape[1] // 4
    i_f, g, o = x.split_with_sizes([2 * H, H, H], 1)
    return torch.cat([i_f, -2.0 * g, o], 1)
