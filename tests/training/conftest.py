"""Where machine code of the tests is kept, and what stands for it where the compiler would take too long."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgrad.training.compiled import package


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for packages that the tests of a file share."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("packages")
        patch.setenv("PGRAD_CACHE", str(folder))
        yield folder


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The traced graph itself in place of machine code, which takes the compiler seconds."""
    kept: dict[str, package.Code] = {}

    def build(module: Any, inputs: Any, key: str, device: Any) -> package.Code:
        kept[key] = lambda tensors: module(*tensors)
        return kept[key]

    monkeypatch.setattr(package, "load", lambda key, _: kept.get(key))
    monkeypatch.setattr(package, "build", build)
