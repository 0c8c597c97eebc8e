"""The memories of small networks by C++ or numpy; see `small.py`."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pgrad.data.sequence import Sequence
from pgrad.models.cells import Cell
from pgrad.models.cells.row import row
from pgrad.models.cells.steps import Weights
from pgrad.models.recurrent import RecurrentNetwork

Numbers = NDArray[np.float32]
Remember = Callable[[Numbers, Sequence], tuple[Tensor, Numbers]]
"""From inputs [B, n] and what is seen to the memories after it [B, N, K], and the inputs with the first one's
outputs [B, n + H].
"""


def remembering(network: RecurrentNetwork, n: int) -> Remember:
    """The memories of the actor and, where there is one, the critic, which take their step together: for n
    rows, with the weights as they are now.
    """
    memories = [branch.memory for branch in (network.actor, network.critic) if branch is not None]
    cell, weights = memories[0].cell, [one.weights for one in memories]
    fast = row(cell, weights, n)
    if fast is None:
        return by_numpy(cell, weights)
    both = fast.seen.numpy()
    return lambda x, seen: (fast(x, seen.state["cells"], seen.start), both)


def by_numpy(cell: Cell, weights: list[Weights]) -> Remember:
    """The same where there is no C++."""
    W, U, b, d = (np.stack([w.detach().numpy() for w in one]) for one in zip(*weights, strict=True))
    inputs = np.ascontiguousarray(W.reshape(-1, W.shape[-1]).T)
    hidden = np.ascontiguousarray(U.swapaxes(1, 2))  # [N, H, G·H]
    step, H = STEPS[cell.name], U.shape[-1]

    def after(x: Numbers, seen: Sequence) -> tuple[Tensor, Numbers]:
        before, start = seen.state["cells"].numpy(), seen.start.numpy()
        if start.any():
            before = np.where(start[:, None, None], np.float32(0.0), before)
        own = np.matmul(x, inputs).reshape(len(x), *b.shape)
        own += b
        past = np.matmul(before[..., :H].swapaxes(0, 1), hidden).swapaxes(0, 1)
        found = step(own, past + d, before)
        return torch.from_numpy(found), np.concatenate([x, found[:, 0, :H]], 1)

    return after


def gru(own: Numbers, past: Numbers, h: Numbers) -> Numbers:
    """`steps.gru_step` of W·x + b, U·h + d and h, [B, N, ...]."""
    H = h.shape[-1]
    rz = _sigmoid(own[..., : 2 * H] + past[..., : 2 * H])
    n = rz[..., :H] * past[..., 2 * H :]
    n += own[..., 2 * H :]
    n = np.tanh(n, out=n)
    kept = h - n
    kept *= rz[..., H:]
    return np.add(kept, n, out=kept)


def lstm(own: Numbers, past: Numbers, state: Numbers) -> Numbers:
    """`steps.lstm_step` of W·x + b, U·h + d and (h, c), [B, N, ...]."""
    H = state.shape[-1] // 2
    gates = np.add(own, past, out=past)
    g = np.tanh(gates[..., 2 * H : 3 * H])
    gates = _sigmoid(gates)
    found = np.empty_like(state)
    h, c = found[..., :H], found[..., H:]
    np.multiply(gates[..., H : 2 * H], state[..., H:], out=c)
    g *= gates[..., :H]
    c += g
    np.multiply(gates[..., 3 * H :], np.tanh(c, out=g), out=h)
    return found


def _sigmoid(x: Numbers) -> Numbers:
    """1/(1 + exp(−x)), in place."""
    np.exp(np.negative(x, out=x), out=x)
    x += 1.0
    return np.reciprocal(x, out=x)


STEPS: dict[str, Callable[[Numbers, Numbers, Numbers], Numbers]] = {"gru": gru, "lstm": lstm}
"""By the name of the cell."""
