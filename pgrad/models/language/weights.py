"""The weights of a language model as another engine takes them, and fingerprints that tell which it has."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pgrad.models.language.adapters import adapted, merged_weight
from pgrad.models.language.sample import mix

AT_ONCE = 2**22
"""So many numbers are hashed at a time."""

WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Whole numbers of so many bytes."""


@torch.no_grad()
def pushed_weights(model: Any, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Every weight once under its name in a checkpoint, in `dtype`, adapters merged: W + (α/r)·B·A."""
    layers = {id(layer.base_layer.weight): layer for layer in adapted(model)}
    seen: set[int] = set()
    for name, x in model.state_dict(keep_vars=True).items():
        if ".lora_" in name or id(x) in seen or not x.is_floating_point():  # a tied head is the embedding
            continue
        seen.add(id(x))
        whole = merged_weight(layers[id(x)]) if id(x) in layers else x
        yield name.replace(".base_layer.", "."), whole.detach().to(dtype)


@torch.no_grad()
def fingerprints(weights: Iterator[tuple[str, Tensor]]) -> dict[str, int]:
    """For each tensor Σ hash(bits of x) mod 2⁶⁴ over its elements; what is empty is left out.

    Changing one bit changes the sum. Transposing, joining with others, and padding with zeros do not, or add:
    an engine keeps weights in other shapes than a checkpoint.
    """
    found = {name: _fingerprint(x) for name, x in weights if x.numel() and x.is_floating_point()}
    if not found:
        return {}
    return dict(zip(found, torch.stack(list(found.values())).tolist(), strict=True))


def differing(
    held: Mapping[str, int], wanted: Mapping[str, int], packed: Mapping[str, Sequence[str]]
) -> tuple[list[str], int]:
    """Which of the tensors that an engine holds are not as wanted, and how many could be compared.

    packed: by a module's name those whose weights are joined in it, as in {"qkv_proj": ["q_proj", …]}.
    """
    other, compared = [], 0
    for name, value in held.items():
        parts = [name] if name in wanted else _parts(name, packed)
        if not parts or not all(part in wanted for part in parts):
            continue
        compared += 1
        if (sum(wanted[part] for part in parts) - value) % 2**64:
            other.append(name)
    return other, compared


def _parts(name: str, packed: Mapping[str, Sequence[str]]) -> list[str]:
    """The names of what is joined in the tensor `name`."""
    for whole, parts in packed.items():
        if f".{whole}." in name:
            return [name.replace(f".{whole}.", f".{part}.") for part in parts]
    return []


def _fingerprint(x: Tensor) -> Tensor:
    bits = x.detach().contiguous().flatten().view(WHOLE[x.element_size()])
    parts = bits.chunk(-(-len(bits) // AT_ONCE))
    return torch.stack([mix(part.long()).sum() for part in parts]).sum()
