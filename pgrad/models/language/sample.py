"""Choosing tokens: a stream of uniform numbers for every text, put through the inverse distribution."""

import torch
from torch import Tensor

GOLDEN, FIRST, SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""The constants of splitmix64, as signed numbers."""


def uniforms(seeds: Tensor, n: int) -> Tensor:
    """u[i, t] in [0, 1), [N, n] float64: number t of the stream of seeds[i], the same on every device.

    Streams are counted, not walked, so that a text's numbers depend on its seed and on how long it is, not on
    what else is sampled. Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators"
    (splitmix64), started at the mixed seed; the upper 32 bits of each number.
    """
    count = torch.arange(1, n + 1, device=seeds.device) * GOLDEN
    bits = mix(mix(seeds + GOLDEN).unsqueeze(1) + count)
    return ((bits >> 32) & 0xFFFFFFFF).double() * 2.0**-32


def choose(
    z: Tensor, u: Tensor, *, top_k: int = 0, top_p: float = 1.0, greedy: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """A token for every row of logits z [n, V] float32 by u [n], its log-probability, and the entropy, [n].

    Both are of the distribution that is sampled: of the top_k most probable tokens (0: all; equal ones stay
    together), then of the fewest whose probabilities sum to at least top_p, renormalised. The token is the
    first whose cumulative probability exceeds u, which never has probability 0; `greedy` takes the most
    probable one instead. Of a row that is no distribution (NaN or +∞ among its logits) the log-probability
    is NaN, of some token.
    """
    if top_k or top_p < 1.0:
        z = truncate(z, top_k, top_p)
    logp = torch.log_softmax(z, -1)
    p = logp.exp()
    each = p * logp if not (top_k or top_p < 1.0) else torch.where(p > 0, p * logp, 0.0)
    if greedy:
        token = z.argmax(-1, keepdim=True)
    else:
        below = p.cumsum(-1, dtype=torch.float64)
        token = torch.searchsorted(below, u.unsqueeze(1) * below[:, -1:], right=True)
        token = token.clamp_(max=z.shape[-1] - 1)  # of NaN it would be beyond the last
    return token.squeeze(1), logp.gather(1, token).squeeze(1), each.sum(-1).neg_()


def truncate(z: Tensor, top_k: int, top_p: float) -> Tensor:
    """z with −∞ for the tokens that top_k and then top_p leave out."""
    if 0 < top_k < z.shape[-1]:
        z = z.masked_fill(z < z.topk(top_k, -1).values[:, -1:], -torch.inf)
    if top_p < 1.0:
        p, order = z.softmax(-1).sort(-1, descending=True)
        before = p.cumsum(-1, dtype=torch.float64) - p
        out = torch.empty_like(before, dtype=torch.bool).scatter_(1, order, before >= top_p)
        z = z.masked_fill(out, -torch.inf)
    return z


def mix(x: Tensor) -> Tensor:
    """A hash of every number, int64: splitmix64's, which leaves 0 as it is."""
    x = (x ^ _shift(x, 30)) * FIRST
    x = (x ^ _shift(x, 27)) * SECOND
    return x ^ _shift(x, 31)


def _shift(x: Tensor, k: int) -> Tensor:
    """x >> k without the sign."""
    return (x >> k) & ((1 << (64 - k)) - 1)
