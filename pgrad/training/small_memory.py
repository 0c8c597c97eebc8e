"""The memories of small networks by numpy; see `small.py`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgrad.models.cells import CELLS
from pgrad.models.recurrent import RecurrentNetwork

Numbers = NDArray[np.float32]
Remember = Callable[[Numbers, Numbers, NDArray[np.bool_]], tuple[Numbers, Numbers]]
"""From inputs [B, n], memories [B, N, K] and where episodes begin [B] to memories after a row and the first's
outputs [B, H].
"""


def remembering(network: RecurrentNetwork) -> Remember:
    """The memories of the actor and, where there is one, the critic, which take their step together."""
    memories = [branch.memory for branch in (network.actor, network.critic) if branch is not None]
    own_weights = [[w.detach().numpy() for w in one.weights] for one in memories]
    W, U, b, d = map(np.stack, zip(*own_weights, strict=True))
    inputs = np.ascontiguousarray(W.reshape(-1, W.shape[-1]).T)
    hidden = np.ascontiguousarray(U.swapaxes(1, 2))  # [N, H, G·H]
    step, H = STEPS[network.actor.memory.cell.step], network.actor.memory.size

    def after(x: Numbers, before: Numbers, start: NDArray[np.bool_]) -> tuple[Numbers, Numbers]:
        if start.any():
            before = np.where(start[:, None, None], np.float32(0.0), before)
        own = np.matmul(x, inputs).reshape(len(x), *b.shape)
        own += b
        past = np.matmul(before[..., :H].swapaxes(0, 1), hidden).swapaxes(0, 1)
        found = step(own, past + d, before)
        return found, found[:, 0, :H]

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


STEPS: dict[Any, Callable[[Numbers, Numbers, Numbers], Numbers]] = {
    CELLS["gru"].step: gru,
    CELLS["lstm"].step: lstm,
}
