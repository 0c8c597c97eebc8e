"""Settings for every test (one thread, no time limit on a hypothesis example), and what several use."""

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("pgrad", deadline=None)
settings.load_profile("pgrad")


@pytest.fixture(scope="session")
def shipped() -> SimpleNamespace:
    """The modules of pgrad.math as users import them: without the type checks that pytest adds.

    torch.compile cannot trace those checks, least of all those of dataclasses.
    """
    package = "pgrad.math"
    checked = {
        name: module for name, module in sys.modules.items() if name.split(".")[:2] == ["pgrad", "math"]
    }
    parent, finders = importlib.import_module("pgrad"), sys.meta_path[:]
    attribute = getattr(parent, "math", None)
    sys.meta_path[:] = [x for x in finders if not type(x).__module__.startswith("jaxtyping")]
    for name in checked:
        del sys.modules[name]
    try:
        modules = {x: _import(f"{package}.{x}") for x in ("distributions", "kl", "objectives", "reduce")}
    finally:
        sys.meta_path[:] = finders
        for name in [x for x in sys.modules if x.split(".")[:2] == ["pgrad", "math"]]:
            del sys.modules[name]
        sys.modules.update(checked)
        if attribute is not None:
            parent.math = attribute  # type: ignore[attr-defined]
    return SimpleNamespace(**modules)


def _import(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The axes of the last picture that was saved."""
    plots = importlib.import_module("pgrad.report.plots")  # not before the type checks are there
    seen: dict[str, Any] = {}
    save = plots.save

    def watched(figure: Any, picture: Path) -> Path:
        result = save(figure, picture)
        seen["axes"] = figure.axes[0]
        return result

    monkeypatch.setattr(plots, "save", watched)
    return seen
