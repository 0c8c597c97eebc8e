"""How much memory tensors take, and how much there is."""

import os

import torch

from pgrad.data.tree import Tree, leaves

USABLE = 0.9
"""Share of the memory that one storage may fill; the rest is everything else's."""


def size_of(tree: Tree) -> int:
    """Bytes of all leaves together."""
    return sum(x.numel() * x.element_size() for x in leaves(tree))


def room_on(device: torch.device) -> float:
    """Bytes that a storage on `device` may take; infinite where the system does not tell."""
    if device.type == "cuda":
        return USABLE * torch.cuda.get_device_properties(device).total_memory
    try:
        return USABLE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return float("inf")


def too_large(what: str, needed: float, device: torch.device, most: str) -> str:
    """What to say of a storage that does not fit, and of the `most` that does."""
    where = f"{device} has" if device.type == "cuda" else "this machine has"
    return (
        f"{what} needs {needed / 1e9:,.1f} GB, {where} {room_on(device) / 1e9:,.1f} GB to spare; the most "
        f"that fits is {most}"
    )
