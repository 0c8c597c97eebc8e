"""In place of CUDA graphs: operations that are recorded on the CPU, and repeated on the same memory."""

from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from pgrad import cuda_graph

LOOKS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero")


class Tape(TorchDispatchMode):
    """What was run, with the very tensors. As in a recording, nothing may be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Any, Any, Any, list[Any]]] = []
        self.made: set[int] = set()  # memory of the recording
        self.before: dict[int, tuple[Any, Any]] = {}  # memory that was there already, as it was

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in LOOKS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        kwargs = kwargs or {}
        for x in tensors((args, kwargs)):
            if (where := place(x)) not in self.made and where not in self.before:
                self.before[where] = x.untyped_storage(), x.untyped_storage().clone()
        answer = func(*args, **kwargs)
        found = tensors(answer)
        self.made |= {place(x) for x in found} - self.before.keys()
        self.steps.append((func, args, kwargs, found))
        return answer

    def replay(self) -> None:
        for func, args, kwargs, found in self.steps:
            for x, new in zip(found, tensors(func(*args, **kwargs)), strict=True):
                if place(x) != place(new):
                    x.copy_(new)


def tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_flatten(tree)[0] if isinstance(x, Tensor)]


def place(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


class Recordings:
    """What was recorded, and how often it was replayed; `breaks` spoils the next recordings."""

    def __init__(self) -> None:
        self.tapes: list[Tape] = []
        self.replayed = 0
        self.breaks = False

    def capture(self, function: Callable[[], Any], device: torch.device) -> tuple[Callable[[], None], Any]:
        tape = Tape()
        with tape:
            answers = function()
        for x, old in tape.before.values():  # nothing is run while it is recorded
            x.copy_(old)
        for x in tensors(answers):
            x.fill_(True if x.dtype == torch.bool else 77)
        if self.breaks:
            tape.steps.pop(0)
        self.tapes.append(tape)

        def replay() -> None:
            self.replayed += 1
            with torch.autocast("cpu", enabled=False):  # kernels know nothing of it
                tape.replay()

        return replay, answers


@contextmanager
def recorded_here() -> Any:
    """CUDA graphs on the CPU."""
    found = Recordings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_graph, "capture", found.capture)
        patch.setattr(cuda_graph, "aside", lambda _: nullcontext())
        yield found
