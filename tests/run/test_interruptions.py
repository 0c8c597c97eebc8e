"""Signals and full disks: what can be saved is saved, and nothing is lost."""

import importlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pgrad as pg
import pgrad.run.conduct as conduct
import pgrad.run.saver
import pgrad.training.loop
from pgrad.errors import CheckpointError
from pgrad.training.disk.checkpoint import checkpoints
from tests.run.texts import SETTING, TINY, samples
from tests.run.tools import differences, final_state, rows

pytestmark = pytest.mark.usefixtures("no_plots")

writing = importlib.import_module("pgrad.models.language.generate")  # a function of this name hides it

PPO = pg.PPO(n_steps=16, batch_size=16, n_epochs=2)
SMALL: dict[str, Any] = {"total_timesteps": 100, "n_envs": 2, "agent": pg.AgentSpec(net_arch=(8,))}


@pytest.mark.parametrize(
    ("number", "error", "code"),
    [
        (signal.SIGINT, KeyboardInterrupt, None),
        (signal.SIGTERM, SystemExit, 143),
        (signal.SIGHUP, SystemExit, 129),
    ],
)
def test_signals_save_and_end_the_program(
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


WANTED = pg.GRPO(n_prompts=3, num_generations=4, batch_size=5, n_epochs=2, dynamic_sampling=True)
TEXTS: dict[str, Any] = {
    **SETTING,
    "agent": TINY,
    "total_timesteps": 300,
    "eval_every": 90,
    "eval_episodes": 4,
}


class Signal:
    """Sends SIGTERM in the middle of one call of a function, the `place`th; what it was asked then."""

    def __init__(self, function: Callable[..., Any], place: int) -> None:
        self.function, self.place, self.calls = function, place, 0
        self.__name__ = function.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls == self.place:
            os.kill(os.getpid(), signal.SIGTERM)
            self.sent()
        return self.function(*args, **kwargs)

    def sent(self) -> None: ...


class Hanging(Signal):
    """Goes on for longer than anyone waits."""

    def sent(self) -> None:
        time.sleep(30.0)


def by_length(completions: list[str], **columns: Any) -> list[float]:
    return [float(len(text)) for text in completions]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    pg.train(WANTED, "copy", run_dir=folder, reward=by_length, **TEXTS)
    return folder


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("the first token", 1),
        ("a token", 9),
        ("the first reward", 1),
        ("a reward", 4),
        ("a gradient", 1),
        ("a gradient", 8),
        ("an evaluation", 2),
    ],
)
def test_a_signal_in_the_middle_of_an_iteration(
    where: str, place: int, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the run is another, nothing is told twice, and nothing is left out."""
    reward: Callable[..., Any] = by_length
    monkeypatch.setattr(pgrad.training.loop, "PATIENCE", 0.0)
    with monkeypatch.context() as patch:
        if "token" in where:
            patch.setattr(writing, "choose", Signal(writing.choose, place))
        elif "gradient" in where:
            patch.setattr(torch.autograd, "backward", Signal(torch.autograd.backward, place))
        elif "evaluation" in where:
            patch.setattr(conduct, "evaluate_fresh", Signal(conduct.evaluate_fresh, place))
        else:
            reward = Hanging(by_length, place)
        with pytest.raises(SystemExit) as caught:
            pg.train(WANTED, "copy", run_dir=tmp_path / "cut", reward=reward, **TEXTS)
    assert caught.value.code == 143
    assert final_state(tmp_path / "cut")["timesteps"] < final_state(uninterrupted)["timesteps"]
    pg.resume(tmp_path / "cut", reward=by_length)
    assert differences(final_state(uninterrupted), final_state(tmp_path / "cut")) == []
    assert rows(uninterrupted) == rows(tmp_path / "cut")
    assert samples(uninterrupted) == samples(tmp_path / "cut")


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


@pytest.mark.parametrize("save_every", [10**9, 32])
def test_a_second_ctrl_c_says_what_is_kept(
    save_every: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def impatient(row: dict[str, float]) -> None:
        if row["time/total_timesteps"] >= 64:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        pg.train(
            pg.A2C(),
            "probe-both",
            total_timesteps=1_000,
            n_envs=2,
            run_dir=tmp_path / "run",
            log_every=32,
            save_every=save_every,
            callback=impatient,
            progress=False,
        )
    kept = [int(path.name) for path in sorted((tmp_path / "run/checkpoints").iterdir())]
    how = (
        f"continue from {kept[-1]} steps with: pgrad resume {tmp_path / 'run'}"
        if kept
        else "nothing was saved"
    )
    assert capsys.readouterr().err == f"stopped at once; {how}\n"
    assert bool(kept) is (save_every == 32)
