"""An LSTM over whole sequences; shapes are those of `pgrad.models.cells`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pgrad.models.cells.derivative import after, layer, project
from pgrad.models.cells.loop import Taken, loop
from pgrad.models.cells.steps import each_of, kinds, lstm_step


def spread(W: Tensor, b: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Those of W·x + b + d."""
    return W, b + d


def of_x(q: Tensor) -> Tensor:
    """All of q."""
    return q


def forward(x: Tensor, keep: Tensor, weights: Sequence[Tensor], state: Tensor) -> tuple[Tensor, ...]:
    """y, what every step found in the memory, c', tanh c' and the gates.

    tanh a = 1 − 2·σ(−2a): one σ for all gates takes a fraction of the time of a tanh.
    """
    W, U, b, d = map(torch.stack, kinds(weights))
    own = project(x, to_sigmoids(W), to_sigmoids((b + d).unsqueeze(-1)).squeeze(-1))
    return loop(step, each_of(2, state), (own, keep.unsqueeze(0)), (to_sigmoids(U).mT.contiguous(),))


def to_sigmoids(x: Tensor) -> Tensor:
    """Weights of four gates [N, 4·H, ·], those of the third times −2."""
    H = x.shape[1] // 4
    i_f, g, o = x.split_with_sizes([2 * H, H, H], 1)
    return torch.cat([i_f, -2.0 * g, o], 1)


def step(h: Tensor, c: Tensor, x: Tensor, k: Tensor, Ut: Tensor) -> Taken:
    """As `lstm_step` does it."""
    m = h * k
    gates = torch.baddbmm(x, m, Ut).sigmoid()
    i, f, s, o = each_of(4, gates)
    c = torch.addcmul(torch.addcmul(i, i, s, value=-2.0), f, c * k)
    squashed = c.tanh()
    h = o * squashed
    return (h, c), (h, m, c, squashed, gates)


def slopes(keep: Tensor, y: Tensor, c: Tensor, squashed: Tensor, gates: Tensor) -> tuple[Tensor, ...]:
    """∂c'/∂q of three gates and ∂h'/∂q of the fourth, ∂h'/∂c' and ∂c'/∂c. They follow from i·g and f·c, the
    two parts of c'.
    """
    i, f, s, o = each_of(4, gates)
    new = torch.addcmul(i, i, s, value=-2.0)
    old = c - new
    found = [
        torch.addcmul(new, new, i, value=-1.0),
        torch.addcmul(old, old, f, value=-1.0),
        torch.addcmul(i - new, new, s, value=2.0),
        torch.addcmul(y, y, o, value=-1.0),
    ]
    return torch.cat(found, -1), torch.addcmul(o, y, squashed, value=-1.0), f * keep


def pull(grad: Tensor, keep: Tensor, U: Tensor, *kept: Tensor) -> Tensor:
    """From the gradient of y to that of q."""
    none, columns = torch.zeros_like(grad[:, 0]), (grad, after(keep), *slopes(keep, *kept))
    (dq,) = loop(back, (none, none), columns, (U,), backwards=True)
    return dq


def back(
    dh: Tensor, dc: Tensor, dy: Tensor, goes_on: Tensor, to: Tensor, by_c: Tensor, f: Tensor, U: Tensor
) -> Taken:
    """From the gradients of the next step's h and c to those of this one's, and those inside the step."""
    dh = torch.addcmul(dy, dh, goes_on)
    dc = torch.addcmul(dc, dh, by_c)
    dq = torch.cat([dc, dc, dc, dh], -1) * to
    return (torch.bmm(dq, U), dc * f), (dq,)


def push(dq: Tensor, keep: Tensor, Ut: Tensor, *kept: Tensor) -> Tensor:
    """From the change of q, but for what follows from that of h, to that of y."""
    to, by_c, f = slopes(keep, *kept)
    none, columns = torch.zeros_like(f[:, 0]), (dq, keep.unsqueeze(0), to, by_c, f)
    (dy,) = loop(forth, (none, none), columns, (Ut,))
    return dy


def forth(
    dh: Tensor, dc: Tensor, dq: Tensor, k: Tensor, to: Tensor, by_c: Tensor, f: Tensor, Ut: Tensor
) -> Taken:
    """From the changes of the last step's h and c to those of this one's."""
    of_i, of_f, of_g, of_o = each_of(4, torch.baddbmm(dq, dh * k, Ut) * to)
    dc = torch.addcmul(of_i + of_f + of_g, dc, f)
    dh = torch.addcmul(of_o, dc, by_c)
    return (dh, dc), (dh,)


LAYER = layer("lstm", 4, ("c", "squashed"), lstm_step, forward, pull, push, spread, of_x)
