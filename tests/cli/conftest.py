"""One small run that the tests of reading commands share, and a terminal of one width."""

from pathlib import Path

import pytest

from tests.cli.tools import cli


@pytest.fixture(autouse=True)
def _width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short PPO run in the tensor world cartpole; tests only read it (and add videos)."""
    path = tmp_path_factory.mktemp("runs") / "trained"
    answer = cli("train ppo cartpole --total-timesteps 1024 --n-steps 64 --quiet --run-dir", path)
    assert answer == (0, "", "")
    return path
