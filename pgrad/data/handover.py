"""From the CPU to where the agent is, without waiting for it."""

import torch
from torch import Tensor


def hand_over(x: Tensor, device: torch.device) -> Tensor:
    """`x` on `device`. To a GPU the CPU does not wait for what runs there.

    A copy from ordinary memory waits for everything that the GPU was told to do before it; from pinned memory
    it takes its turn. The pinned copy is torch's own, which is used again only when the GPU has read it.
    """
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)
