"""C++ of this library as machine code for the processor it runs on: compiled once, kept, and loaded."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path

from pgrad import cache as kept
from pgrad import processor
from pgrad.stopping import signals_later

FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math"),  # nobody asks what went wrong: NaN and infinity go their way
)


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """The functions of a file, which may include the headers beside it; None where there is no compiler.

    A compiler that fails, or nowhere to keep what it makes, is told of in a warning, and is as none.
    """
    compiler = _compiler()
    if compiler is None:
        return None
    state = os.stat(compiler)
    sources = [path.read_text() for path in (source, *sorted(source.parent.glob("*.h")))]
    made_with = [sources, compiler, state.st_size, state.st_mtime, FLAGS, processor.kind()]
    name = f"{source.stem}-{hashlib.sha256(repr(made_with).encode()).hexdigest()[:32]}"
    try:
        found = _kept(name)
        if found is None:
            found = _built(compiler, source, name)
        return ctypes.CDLL(str(found))
    except subprocess.CalledProcessError as error:
        _warn(source, (error.stderr.splitlines() or [f"{compiler} fails"])[0])
    except OSError as error:
        _warn(source, str(error))
    return None


def _compiler() -> str | None:
    named = [os.environ.get("CXX"), "g++", "clang++", "c++"]
    return next((path for one in named if one and (path := shutil.which(one))), None)


def _kept(name: str) -> Path | None:
    """A file of that name that is whole: what it holds is part of its name."""
    for path in kept.folder().glob(f"{name}-*.so"):
        if path.stem == f"{name}-{_digest(path)}":
            kept.used(path)
            return path
    return None


def _built(compiler: str, source: Path, name: str) -> Path:
    home = kept.made()
    with signals_later(), tempfile.TemporaryDirectory(dir=home) as scratch:
        made = Path(scratch) / "made.so"
        command = [compiler, *FLAGS, "-o", str(made), str(source)]
        subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        place = home / f"{name}-{_digest(made)}.so"
        os.replace(made, place)
    kept.make_room()
    return place


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _warn(source: Path, reason: str) -> None:
    warnings.warn(f"{source.name} is not used, and slower steps are taken ({reason[:200]})", stacklevel=3)
