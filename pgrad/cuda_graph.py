"""A function of tensors as CUDA graphs: recorded once for every set of shapes, then launched as a whole.

Small networks and single tokens keep a GPU waiting for the CPU, which launches one kernel after the other. A
recording launches all of them at once, on the memory that they were recorded with.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Function = Callable[[list[Tensor]], list[Tensor]]

WARM_UP = 2
"""Runs before the recording, in which libraries choose their kernels and take their memory."""

TRIALS = 2
"""Calls that are compared: in the first a number that was written into the recording would still be right."""

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 3e-3}
"""By how much of its largest number, or of 1, an answer may differ from the one that it is compared with."""

MOVED = 0.1
"""By how much of its length a change may differ from the one that it is compared with."""


@dataclass(frozen=True)
class Recording:
    """Kernels that read `inputs` and write `packed`."""

    inputs: list[Tensor]
    replay: Callable[[], None]
    packed: dict[torch.dtype, Tensor]  # all answers of a type, one after the other
    forms: list[tuple[torch.dtype, torch.Size]]  # of the answers

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The answers to other inputs, in memory of their own: the recording's is written anew every time."""
        if inputs:
            torch._foreach_copy_(self.inputs, list(inputs))
        self.replay()
        sizes: dict[torch.dtype, list[int]] = {dtype: [] for dtype in self.packed}
        for dtype, shape in self.forms:
            sizes[dtype].append(shape.numel())
        parts = {dtype: iter(torch.split(x.clone(), sizes[dtype])) for dtype, x in self.packed.items()}
        return [next(parts[dtype]).view(shape) for dtype, shape in self.forms]


class Recorded:
    """`function`, by recordings where they compute what it does.

    function: from a list of tensors to another, on one GPU, without waiting for it and without drawing random
        numbers. What else it reads must stay where it is; what it changes is named by `writes`, or is changed
        alike if that happens twice. Its inputs it leaves alone.
    plainly: the same function in another way, which recordings are compared with, and which runs where there
        is none; by default `function`.
    most: recordings that are kept, one for every set of shapes; calls with further shapes run `plainly`.

    The first calls with new shapes run `plainly` too, and everything that comes of both is compared. Where
    recording raises or the answers differ, `plainly` runs from then on, and `tell` is told once. Whatever
    happens, a call changes what `writes` names exactly once.
    """

    def __init__(
        self,
        function: Function,
        name: str,
        *,
        plainly: Function | None = None,
        writes: Sequence[Tensor] = (),
        most: int = 16,
        tell: Callable[[str], Any] = warnings.warn,
    ) -> None:
        self._function, self._name, self._writes, self._tell = function, name, list(writes), tell
        self._plainly, self._most = plainly or function, most
        self._recordings: dict[Any, tuple[Recording, int]] = {}  # and how often each was compared
        self._records = True  # as far as is known

    @torch.no_grad()
    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The answers to `inputs`, in memory that nothing writes to again."""
        key = tuple((x.shape, x.stride(), x.dtype) for x in inputs)
        found, tried = self._recordings.get(key, (None, 0))
        if found is not None and tried == TRIALS:
            return found(inputs)
        if not self._records or (found is None and len(self._recordings) == self._most):
            return self._plainly(list(inputs))
        before = [x.clone() for x in self._writes]
        try:
            expected = [x.clone() for x in self._plainly(list(inputs))]
            written = [x.clone() for x in self._writes]
            self._restore(before)
            if found is None:
                found = self._record(inputs, before)
            answers = found(inputs)
            same = all(map(alike, expected, answers))
            if same and all(map(moved_alike, before, written, self._writes)):
                self._recordings[key] = found, tried + 1
                return answers
            why = "its answers differ"
        except Exception as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        self._restore(before)
        self._records = False
        self._recordings.clear()
        self._tell(f"{self._name} is not run as a CUDA graph ({why})")
        return self._plainly(list(inputs))

    def _record(self, inputs: Sequence[Tensor], before: list[Tensor]) -> Recording:
        device = next(x.device for x in (*self._writes, *inputs))
        static = [x.clone() for x in inputs]
        with aside(device):
            for _ in range(WARM_UP):
                answers = self._function(static)
                self._restore(before)
        forms = [(x.dtype, x.shape) for x in answers]
        replay, packed = capture(lambda: pack(self._function(static)), device)
        return Recording(static, replay, packed, forms)

    def _restore(self, before: list[Tensor]) -> None:
        for x, old in zip(self._writes, before, strict=True):
            x.copy_(old)


def pack(answers: Sequence[Tensor]) -> dict[torch.dtype, Tensor]:
    """The answers of each type in one flat tensor, which is copied by one kernel."""
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for x in answers:
        kinds.setdefault(x.dtype, []).append(x.reshape(-1))
    return {dtype: torch.cat(parts) for dtype, parts in kinds.items()}


def alike(expected: Tensor, found: Tensor) -> bool:
    """Whether two tensors are equal up to the rounding of sums in another order."""
    if not expected.is_floating_point():
        return torch.equal(expected, found)
    largest = expected.abs().nan_to_num(0.0, 0.0).amax() if expected.numel() else 0.0
    allowed = TOLERANCE[expected.dtype] * max(1.0, float(largest))
    return torch.allclose(expected, found, rtol=0.0, atol=allowed, equal_nan=True)


def moved_alike(before: Tensor, expected: Tensor, found: Tensor) -> bool:
    """Whether a tensor was moved by as much, and where to.

    As a whole: where a gradient is next to nothing, rounding decides where Adam steps to.
    """
    if not expected.is_floating_point():
        return torch.equal(expected, found)
    here, step, error = (x.double().nan_to_num() for x in (before, expected - before, found - expected))
    rounding = torch.finfo(expected.dtype).eps * here.norm()
    same = torch.equal(expected.isfinite(), found.isfinite())
    return same and bool(error.norm() <= MOVED * step.norm() + rounding)


@contextmanager
def aside(device: torch.device) -> Iterator[None]:
    """On a stream of its own, as runs before a recording must be."""
    with torch.cuda.device(device):
        here = torch.cuda.current_stream(device)
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            yield
        here.wait_stream(stream)


def capture(
    function: Callable[[], dict[torch.dtype, Tensor]], device: torch.device
) -> tuple[Callable[[], None], dict[torch.dtype, Tensor]]:
    """Record what `function` launches, without running it: what replays it, and where its answers will be.

    Other threads may use the GPU meanwhile. Raises whatever cannot be recorded raises.
    """
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # each device has streams of its own
    recording = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
    with torch.cuda.device(device), recording:
        packed = function()
    return graph.replay, packed
