"""Machine code on a GPU: launched as one graph, in which the CPU has no part."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pgrad.cuda_graph import Recorded
from pgrad.training.compiled.package import Code


def on_gpu(device: torch.device) -> bool:
    """Whether there are graphs to launch."""
    return device.type == "cuda"


def launched(
    code: Code | None, plainly: Code, kept: Sequence[Tensor], name: str, tell: Callable[[str], None]
) -> Code:
    """Code that stays on the GPU, whose first inputs are those in `kept`, always the same tensors.

    `plainly` is the traced graph itself: it is recorded where there is no machine code of it, it is what a
    recording must agree with, and it runs where nothing can be recorded.
    """
    first = list(kept)

    def of_the_rest(whole: Code) -> Code:
        return lambda rest: list(whole([*first, *rest]))

    own = of_the_rest(plainly)
    recorded = Recorded(
        own if code is None else of_the_rest(code), name, plainly=own, writes=first, most=1, tell=tell
    )
    return lambda tensors: recorded(tensors[len(first) :])


def described(device: torch.device) -> list[Any]:
    """What of a GPU decides the code for it; nothing of a CPU, which is described elsewhere."""
    if not on_gpu(device):
        return []
    kind = torch.cuda.get_device_name(device), *torch.cuda.get_device_capability(device)
    return [torch.version.cuda, *kind]
