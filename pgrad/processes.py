"""Starting processes of our own: never forked from one where threads of torch may be running."""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from types import ModuleType
from typing import Any

THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Environment variables of many small processes, one thread each."""


@contextmanager
def starting(*preload: str) -> Iterator[Any]:
    """A multiprocessing context, in which processes may be started until the end of the `with` statement.

    They keep their linear algebra on one thread each, and do not run the user's script again, guarded or not.
    preload: modules that they all need; where there is a fork server, they are imported once, not in each.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(preload))
    else:
        context = multiprocessing.get_context("spawn")
    with _single_threaded(), _without_main():
        if context.get_start_method() == "forkserver":
            forkserver.ensure_running()
        yield context


@contextmanager
def _single_threaded() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(THREADS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _without_main() -> Iterator[None]:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
