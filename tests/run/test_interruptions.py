"""Signals and full disks: the update is finished, what can be saved is saved, and nothing is lost."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pgrad as pg
import pgrad.run.saver
from pgrad.errors import CheckpointError
from pgrad.training.disk.checkpoint import checkpoints
from tests.run.tools import differences, final_state, rows

pytestmark = pytest.mark.usefixtures("no_plots")

PPO = pg.PPO(n_steps=16, batch_size=16, n_epochs=2)
SMALL: dict[str, Any] = {"total_timesteps": 100, "n_envs": 2, "agent": pg.AgentSpec(net_arch=(8,))}


@pytest.mark.parametrize(
    ("number", "error", "code"), [(signal.SIGINT, KeyboardInterrupt, None), (signal.SIGTERM, SystemExit, 143)]
)
def test_signals_finish_the_update_and_save(
    number: int, error: type[BaseException], code: int | None, tmp_path: Path, capsys: Any
) -> None:
    """Then the program ends as it would have, and the run goes on from there exactly."""
    setting = SMALL | {"log_every": 1}
    pg.train(PPO, "cartpole", run_dir=tmp_path / "whole", **setting)

    def interrupt(row: dict[str, float]) -> None:
        os.kill(os.getpid(), number)

    with pytest.raises(error) as caught:
        pg.train(PPO, "cartpole", run_dir=tmp_path / "cut", callback=interrupt, **setting)
    if code is not None:
        assert caught.value.code == code  # type: ignore[attr-defined]
    assert f"continue with: pgrad resume {tmp_path / 'cut'}" in capsys.readouterr().err
    assert 0 < final_state(tmp_path / "cut")["timesteps"] < final_state(tmp_path / "whole")["timesteps"]
    assert not (tmp_path / "cut" / "lock").exists()
    pg.resume(tmp_path / "cut")
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "cut")) == []
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[Path], bool]) -> None:
    original = pgrad.run.saver.save_checkpoint

    def save(folder: Path, *args: Any, **kwargs: Any) -> Path:
        if fails(folder):
            raise CheckpointError("disk full: needs 12 MB, 3 MB free")
        return original(folder, *args, **kwargs)

    monkeypatch.setattr(pgrad.run.saver, "save_checkpoint", save)


def test_a_full_disk_on_the_way_does_not_stop_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """It is told, training goes on, and the last state is saved once there is space."""
    full = iter([True, True])
    failing(monkeypatch, lambda folder: next(full, False))
    run = pg.train(PPO, "cartpole", run_dir=tmp_path, save_every=20, progress=True, **SMALL)
    assert run.timesteps >= 100
    assert final_state(tmp_path)["timesteps"] == run.timesteps
    assert "warning: disk full: needs 12 MB, 3 MB free; training goes on" in capsys.readouterr().out


def test_a_full_disk_at_the_best_checkpoint_does_not_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, lambda folder: folder.name == "best")
    with pytest.warns(UserWarning, match="disk full: needs 12 MB, 3 MB free; training goes on"):
        run = pg.train(PPO, "cartpole", run_dir=tmp_path, eval_every=30, eval_episodes=1, **SMALL)
    assert final_state(tmp_path)["timesteps"] == run.timesteps
    assert checkpoints(tmp_path / "best") == []


def test_a_full_disk_at_the_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, lambda folder: folder.name == "checkpoints")
    with pytest.raises(CheckpointError, match="disk full"):
        pg.train(PPO, "cartpole", run_dir=tmp_path, save_every=10**6, **SMALL)
    assert len(rows(tmp_path)) > 0, "and the rows are kept"
