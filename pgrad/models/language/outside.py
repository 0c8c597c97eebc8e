"""What checkpoints leave out: weights that do not train and can be read again from the folder of the model.

In their place stands a seal, the SHA-256 of their bytes, so that a run goes on with the very weights that it
began with, or not at all.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pgrad.errors import CheckpointError

PARTS = ("model", "frozen")
"""Parts of a network that come from the folder: what adapters were added to, and the reference."""


def take_out(network: Any, state: dict[str, Tensor], prefix: str, seals: dict[str, Tensor]) -> None:
    """Replace what need not be saved by `outside.PART`, uint8 [32]; `seals` remembers them."""
    for part, weights in _outside(network).items():
        for name in weights:
            state.pop(prefix + name, None)
        state[f"{prefix}outside.{part}"] = _seal(part, weights, seals)


def put_back(network: Any, state: dict[str, Tensor], prefix: str, seals: dict[str, Tensor]) -> None:
    """Fill what `take_out` left out with the network's own, if that is the same.

    Raises CheckpointError where it is not.
    """
    for part, weights in _outside(network).items():
        saved = state.pop(f"{prefix}outside.{part}", None)
        if saved is None:
            continue
        if not torch.equal(saved.cpu(), _seal(part, weights, seals)):
            raise CheckpointError(
                f"the model in {network.source} is not the one that this run began with: its weights have "
                "changed, and the run has only what it trained"
            )
        state.update({prefix + name: x for name, x in weights.items()})


def _outside(network: Any) -> dict[str, dict[str, Tensor]]:
    """By part, the parameters that are as they are in the folder."""
    if network.source is None:
        return {}
    parts = [part for part in PARTS if part == "model" or network.reference_is_read]
    still = {name: p.detach() for name, p in network.named_parameters() if not p.requires_grad}
    found = {part: {n: x for n, x in still.items() if n.startswith(f"{part}.")} for part in parts}
    return {part: weights for part, weights in found.items() if weights}


def _seal(part: str, weights: Mapping[str, Tensor], seals: dict[str, Tensor]) -> Tensor:
    if part not in seals:
        digest = hashlib.sha256()
        for name, x in weights.items():
            digest.update(f"{name} {x.dtype} {list(x.shape)}\n".encode())
            digest.update(x.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        seals[part] = torch.tensor(list(digest.digest()), dtype=torch.uint8)
    return seals[part]
