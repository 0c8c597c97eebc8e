"""A GRU over whole sequences; shapes are those of `pgrad.models.cells`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pgrad.models.cells.derivative import after, layer, project
from pgrad.models.cells.loop import Taken, loop
from pgrad.models.cells.steps import each_of, gru_step, kinds


def spread(W: Tensor, b: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Those of W·x + b + d of r and z, of d of n, and of W·x + b of n."""
    H = W.shape[1] // 3
    (W_rz, W_n), (b_rz, b_n), (d_rz, d_n) = (x.split_with_sizes([2 * H, H], 1) for x in (W, b, d))
    return torch.cat([W_rz, torch.zeros_like(W_n), W_n], 1), torch.cat([b_rz + d_rz, d_n, b_n], 1)


def of_x(q: Tensor) -> Tensor:
    """Of q [..., 4·H] what x decides."""
    H = q.shape[-1] // 4
    r_z, _, n = q.split_with_sizes([2 * H, H, H], -1)
    return torch.cat([r_z, n], -1)


def forward(x: Tensor, keep: Tensor, weights: Sequence[Tensor], state: Tensor) -> tuple[Tensor, ...]:
    """y, what every step found in the memory, n, and r, z, U·h + d of n and W·x + b of n."""
    W, U, b, d = map(torch.stack, kinds(weights))
    own, x_n = _parted(project(x, *spread(W, b, d)))
    return loop(step, (state,), (own, x_n, keep.unsqueeze(0)), (U.mT.contiguous(),))


def step(h: Tensor, own: Tensor, x_n: Tensor, k: Tensor, Ut: Tensor) -> Taken:
    """As `gru_step` does it."""
    m = h * k
    r, z, a_n = each_of(3, torch.baddbmm(own, m, Ut))
    r, z = r.sigmoid(), z.sigmoid()
    n = torch.addcmul(x_n, r, a_n).tanh()
    h = torch.lerp(n, m, z)
    return (h,), (h, m, n, torch.cat([r, z, a_n, x_n], -1))


def slopes(y: Tensor, n: Tensor, gates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """∂h'/∂q of r, z and d of n, that of W·x + b of n, and z."""
    r, z, a_n, _ = each_of(4, gates)
    gap, bend = y - n, 1.0 - n * n
    by_x = torch.addcmul(bend, bend, z, value=-1.0)
    by_n = by_x * r
    of_r = by_n * a_n
    by_r, by_z = (torch.addcmul(of_it, of_it, it, value=-1.0) for of_it, it in ((of_r, r), (gap, z)))
    return torch.cat([by_r, by_z, by_n], -1), by_x, z


def pull(grad: Tensor, keep: Tensor, U: Tensor, *kept: Tensor) -> Tensor:
    """From the gradient of y to that of q."""
    none, columns = torch.zeros_like(grad[:, 0]), (grad, after(keep), *slopes(*kept))
    own, by_x = loop(back, (none,), columns, (U,), backwards=True)
    return torch.cat([own, by_x], -1)


def back(dh: Tensor, dy: Tensor, goes_on: Tensor, to: Tensor, by_x: Tensor, z: Tensor, U: Tensor) -> Taken:
    """From the gradient of the next step's h to that of this one's, and those inside the step."""
    dh = torch.addcmul(dy, dh, goes_on)
    own = torch.cat([dh, dh, dh], -1) * to
    return (torch.baddbmm(dh * z, own, U),), (own, dh * by_x)


def push(dq: Tensor, keep: Tensor, Ut: Tensor, *kept: Tensor) -> Tensor:
    """From the change of q, but for what follows from that of h, to that of y."""
    (own, of_n), (to, by_x, z) = _parted(dq), slopes(*kept)
    columns = own, by_x * of_n, keep.unsqueeze(0), to, z
    (dy,) = loop(forth, (torch.zeros_like(z[:, 0]),), columns, (Ut,))
    return dy


def forth(dh: Tensor, own: Tensor, x_n: Tensor, k: Tensor, to: Tensor, z: Tensor, Ut: Tensor) -> Taken:
    """From the change of the last step's h to that of this one's."""
    dh = dh * k
    of_r, of_z, of_n = each_of(3, torch.baddbmm(own, dh, Ut) * to)
    dh = torch.addcmul(of_r + of_z + of_n + x_n, dh, z)
    return (dh,), (dh,)


def _parted(q: Tensor) -> tuple[Tensor, Tensor]:
    """What U·h is added to, and W·x + b of n."""
    H = q.shape[-1] // 4
    own, of_n = q.split_with_sizes([3 * H, H], -1)
    return own, of_n


LAYER = layer("gru", 3, ("n",), gru_step, forward, pull, push, spread, of_x)
