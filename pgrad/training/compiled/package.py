"""Graphs as machine code in files that are kept: the second run of anything neither traces nor compiles."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor
from torch.fx import GraphModule

from pgrad import cache, processor
from pgrad.stopping import signals_later
from pgrad.training.compiled import products
from pgrad.training.compiled.graph import loops
from pgrad.training.versions import hash_of_sources

Code = Callable[[list[Tensor]], list[Tensor]]
"""Machine code: tensors in, tensors out; some of those that go in may be written to."""

COMPILED = (
    *(f"{room}/**/*.py" for room in ("math", "data", "models", "algorithms", "training/compiled")),
    "environments/masks.py",
    "training/acting.py",
    "training/optimizers.py",
)
"""The sources of what is compiled, and of what compiles it."""

OPTIONS = {
    "pattern_matcher": False,  # it would put sums back into the products before them
    "memory_planning": True,  # one allocation for all that is in between
    "cpp.enable_floating_point_contract_flag": "fast",  # a·b + c in one instruction
}
"""Of the compiler, where it makes code for processors."""

LOOPS = {"memory_planning": False}
"""Instead, where a graph has loops, whose bodies it would plan together with what is around them."""

LINES = "aot_inductor.enable_line_tables"
"""What the compiler since torch 2.13 writes for profilers: three quarters of a package."""


class NoCompilerError(Exception):
    """Nothing can be compiled here, whatever it is."""


def key_of(description: Any) -> str:
    """A name for what `description` (JSON) describes, on this machine with these versions and sources."""
    whole = json.dumps([description, _surroundings(torch.get_num_threads())], sort_keys=True, default=repr)
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


SOURCES = hash_of_sources(*COMPILED)
"""As they are when they are imported: files that change later are not what runs here."""


@lru_cache
def _surroundings(threads: int) -> list[Any]:
    """What decides the machine code beside the function: versions, sources, processor, threads."""
    capability = torch.backends.cpu.get_cpu_capability()
    return [SOURCES, torch.__version__, capability, processor.kind(), threads]


def load(key: str, device: torch.device) -> Code | None:
    """The package of that name, or None where there is none, or one that is damaged."""
    path = cache.folder() / f"{key}.pt2"
    if not path.is_file():
        return None
    cache.used(path)
    try:
        return _open(path, device)
    except (OSError, RuntimeError, BadZipFile):
        return None


def prepare() -> None:
    """Raise NoCompilerError unless there are a compiler and a folder to keep packages in."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        home = cache.made()
        get_cpp_compiler()
    except Exception as error:
        raise NoCompilerError(reason(error)) from error
    if not os.access(home, os.W_OK):
        raise NoCompilerError(f"{home} may not be written to")


def reason(error: Exception) -> str:
    """What went wrong, in one line: a compiler's errors are of every kind and of any length."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def build(module: GraphModule, inputs: Sequence[Tensor], key: str, device: torch.device) -> Code:
    """Compile a graph, keep it under that name, and return it. Raises whatever the compiler raises.

    Signals wait until that is done: one that ends the compiler, as Ctrl-C does, would let the run go on
    otherwise than it would have.
    """
    import torch._inductor

    home, on_processor = cache.folder(), device.type == "cpu"
    choosing = products.chosen_by_size() if on_processor else nullcontext()
    with signals_later(), choosing, tempfile.TemporaryDirectory(dir=home) as scratch, torch.no_grad():
        program = torch.export.export(module, tuple(inputs))
        made = torch._inductor.aoti_compile_and_package(
            program,
            package_path=f"{scratch}/{key}.pt2",
            inductor_configs=_options(module) if on_processor else {},
        )
        os.replace(made, home / f"{key}.pt2")
    cache.make_room()
    return _open(home / f"{key}.pt2", device)


def _options(module: GraphModule) -> dict[str, Any]:
    without = {LINES: False} if LINES in torch._inductor.list_options() else {}
    if loops(module):
        return OPTIONS | without | LOOPS
    return OPTIONS | without | (products.OPTIONS if products.own() else {})


def _open(path: Path, device: torch.device) -> Code:
    with ZipFile(path) as packed:  # the loader does not look at the checksums
        if (damaged := packed.testzip()) is not None:
            raise BadZipFile(f"{damaged} in {path}")
    # Not by torch._inductor.aoti_load_package: that loads the whole compiler first, for two seconds.
    index = -1 if device.index is None else device.index
    alone = device.type == "cuda"  # without looking whether earlier runs have ended, which no graph may
    loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", alone, 1, index)
    run: Code = loader.run
    return run
