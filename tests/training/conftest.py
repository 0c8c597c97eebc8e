"""Where machine code of the tests is kept, and what stands for it where the compiler would take too long."""

import os
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from pgrad.training.compiled import package


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for packages, to each test as if it were empty: what others compiled, here or in a process
    beside this one, is found where it would be compiled again.
    """
    home = tmp_path_factory.getbasetemp()
    folder = (home.parent if "PYTEST_XDIST_WORKER" in os.environ else home) / "packages"
    folder.mkdir(exist_ok=True)
    load, build, made = package.load, package.build, set[str]()

    def once(module: Any, inputs: Any, key: str, device: Any) -> package.Code:
        made.add(key)
        with FileLock(folder / f"{key}.lock"):  # who comes second waits for the first
            return load(key, device) or build(module, inputs, key, device)

    monkeypatch.setenv("PGRAD_CACHE", str(folder))
    monkeypatch.setattr(package, "build", once)
    monkeypatch.setattr(package, "load", lambda key, device: load(key, device) if key in made else None)
    return folder


@pytest.fixture
def interpreted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The traced graph itself in place of machine code, which takes the compiler seconds."""
    kept: dict[str, package.Code] = {}

    def build(module: Any, inputs: Any, key: str, device: Any) -> package.Code:
        kept[key] = lambda tensors: module(*tensors)
        return kept[key]

    monkeypatch.setattr(package, "load", lambda key, _: kept.get(key))
    monkeypatch.setattr(package, "build", build)
