"""What a run is made with is told without importing it."""

import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from pgrad.training import versions as module
from pgrad.training.versions import cores, devices, versions

SCRIPT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("versions", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.versions()["torch"], "torch" in sys.modules, "numpy" in sys.modules)
"""


def test_versions_are_those_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGES", ("torch", "numpy", "no-such-package"))
    found = versions()
    assert found["torch"] == torch.__version__
    assert found["numpy"] == np.__version__
    assert found["no-such-package"] is None
    assert found["python"] == f"{platform.python_implementation()} {platform.python_version()}"
    assert found["cores"] == str(cores())
    assert all(isinstance(value, str) for key, value in found.items() if key != "no-such-package")


def test_every_package_of_an_extra_is_told() -> None:
    root = Path(module.__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    needed = {
        re.split(r"[\[<>=]", one)[0] for name, group in extras.items() if name != "dev" for one in group
    }
    for_pictures = {"imageio", "packaging"}
    assert needed - for_pictures <= set(module.PACKAGES)


def test_finding_out_imports_nothing_heavy() -> None:
    command = [sys.executable, "-c", SCRIPT, str(Path(module.__file__))]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert output == [torch.__version__, "False", "False"]


def test_devices_are_those_of_torch() -> None:
    found = devices()
    assert found["cpu"].endswith(f"{cores()} cores, {torch.get_num_threads()} threads")
    assert sum(name.startswith("cuda:") for name in found) == torch.cuda.device_count()
    for name in found:
        assert torch.zeros(1, device=name).device.type == name.partition(":")[0]
