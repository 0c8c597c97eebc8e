"""Graphs as machine code in files that are kept: the second run of anything neither traces nor compiles."""

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

Code = Callable[[list[Tensor]], list[Tensor]]
"""Machine code: tensors in, tensors out; some of those that go in may be written to."""

COMPILED = ("math", "data", "models", "algorithms", "training/compiled")
"""Where the sources are of what is compiled."""

KEPT = 400
"""Packages in the folder; the ones that were not used for longest make room."""


def folder() -> Path:
    """Where packages are kept: PGRAD_CACHE, or the user's cache folder."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgrad"
    return Path(os.environ.get("PGRAD_CACHE") or usual)


def key_of(description: Any) -> str:
    """A name for what `description` (JSON) describes, on this machine with these versions and sources."""
    whole = json.dumps([description, _surroundings(torch.get_num_threads())], sort_keys=True, default=repr)
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


@cache
def _surroundings(threads: int) -> list[Any]:
    """What decides the machine code beside the function: versions, sources, processor, threads."""
    sources = hashlib.sha256()
    home = Path(__file__).parents[2]
    for path in sorted(one for room in COMPILED for one in (home / room).rglob("*.py")):
        sources.update(path.read_bytes())
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    flags = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    capability = torch.backends.cpu.get_cpu_capability()
    processor = [platform.machine(), capability, *flags]
    return [
        sources.hexdigest(),
        torch.__version__,
        hashlib.sha256(str(processor).encode()).hexdigest(),
        threads,
    ]


def load(key: str, device: torch.device) -> Code | None:
    """The package of that name, or None where there is none."""
    path = folder() / f"{key}.pt2"
    if not path.is_file():
        return None
    os.utime(path)  # used now
    return _open(path, device)


def build(module: GraphModule, inputs: Sequence[Tensor], key: str, device: torch.device) -> Code:
    """Compile a graph, keep it under that name, and return it. Raises whatever the compiler raises."""
    import torch._inductor

    home = folder()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=home) as scratch, torch.no_grad():
        program = torch.export.export(module, tuple(inputs))
        made = torch._inductor.aoti_compile_and_package(program, package_path=f"{scratch}/{key}.pt2")
        os.replace(made, home / f"{key}.pt2")
    _make_room(home)
    return _open(home / f"{key}.pt2", device)


def _open(path: Path, device: torch.device) -> Code:
    # Not by torch._inductor.aoti_load_package: that loads the whole compiler first, for two seconds.
    index = -1 if device.index is None else device.index
    loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, index)
    run: Code = loader.run
    return run


def _make_room(home: Path) -> None:
    packages = sorted(home.glob("*.pt2"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in packages[KEPT:]:
        path.unlink(missing_ok=True)
