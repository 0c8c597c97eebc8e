"""Runs that end before there is anything to keep: nothing of them stays in the way."""

import shutil
import signal
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium.spaces import Box, Discrete

import pgrad as pg
from pgrad.errors import CheckpointError, TrainingError, UsageError, WorldError
from pgrad.training.disk.rundir import RunDir
from tests.cli.tools import cli
from tests.run.texts import SETTING, TINY, length

pytestmark = pytest.mark.usefixtures("no_plots")

SMALL: dict[str, Any] = {"n_envs": 2, "total_timesteps": 64, "log_every": 1, "save_every": 48}
A2C = pg.A2C(n_steps=8)


class Breaks(gymnasium.Env[Any, Any]):
    """Breaks at its step number `at`; pays `reward`."""

    observation_space, action_space = Box(-1.0, 1.0, (1,)), Discrete(2)

    def __init__(self, at: int, reward: float = 1.0) -> None:
        self.left, self.reward = at, reward

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.low, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        if self.left < 0:
            raise ValueError("broken")
        return self.observation_space.low, self.reward, False, False, {}


def judged_by_nobody(completions: list[str], **_: Any) -> list[float]:
    raise ValueError("broken")


def world(at: int, reward: float = 1.0) -> Any:
    return lambda: Breaks(at, reward)


def test_the_same_command_works_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reward, an environment, a gradient that break in the first round leave no folder, and no second."""
    monkeypatch.chdir(tmp_path)
    text: dict[str, Any] = {**SETTING, "agent": TINY, "total_timesteps": 100}
    for run_dir in ("auto", "named"):
        for _ in range(2):
            with pytest.raises(WorldError, match="broken"):
                pg.train(pg.GRPO(n_prompts=2), "copy", reward=judged_by_nobody, run_dir=run_dir, **text)
            with pytest.raises(WorldError, match="broken"):
                pg.train(A2C, world(5), run_dir=run_dir, **SMALL)
            with pytest.raises(TrainingError, match="not finite"):
                pg.train(A2C, world(99, 1e38), run_dir=run_dir, **SMALL)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert pg.train(pg.GRPO(n_prompts=2), "copy", reward=length, run_dir="named", **text).path == Path(
        "named"
    )


def test_what_there_is_to_keep_is_kept(tmp_path: Path) -> None:
    """Rows without a checkpoint, checkpoints, and what is not of the run."""
    rows, saved, mine = (tmp_path / name for name in ("rows", "saved", "mine"))
    with pytest.raises(WorldError):
        pg.train(A2C, world(10), run_dir=rows, **SMALL)
    assert (len((rows / "metrics.csv").read_text().splitlines()), RunDir(rows).has_checkpoint) == (2, False)
    with pytest.raises(WorldError):
        pg.train(A2C, world(30), run_dir=saved, **SMALL)
    assert RunDir(saved).has_checkpoint

    again = "it ended before its first checkpoint, choose another run directory, or delete it with overwrite"
    with pytest.raises(UsageError, match=again):
        pg.train(A2C, "cartpole", run_dir=rows, **SMALL)
    for read in (pg.load, pg.resume):
        with pytest.raises(
            CheckpointError, match=r"has no checkpoint: .* train it anew \(with --overwrite\)"
        ):
            read(rows, world=world(10))
    with pytest.raises(UsageError, match="already holds a run: resume it"):
        pg.train(A2C, "cartpole", run_dir=saved, **SMALL)

    mine.mkdir()
    with RunDir.create(mine) as directory:
        (mine / "notes.txt").write_text("mine")
        directory.discard()
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("header", [True, False])
def test_a_run_that_was_killed_at_its_beginning_makes_room(header: bool, tmp_path: Path) -> None:
    """As a power cut leaves it: folders, a configuration, perhaps a header, and no more."""
    path = tmp_path / "run"
    pg.train(A2C, "cartpole", run_dir=path, **SMALL)
    for folder in ("checkpoints", "best"):
        shutil.rmtree(path / folder)
        (path / folder).mkdir()
    metrics = (path / "metrics.csv").read_text()
    (path / "metrics.csv").unlink()
    if header:
        (path / "metrics.csv").write_text(metrics.splitlines()[0] + "\n")
    for read in (pg.load, pg.resume):
        with pytest.raises(CheckpointError, match=r"has no checkpoint: .* train it anew$"):
            read(path)
    assert RunDir(pg.train(A2C, "cartpole", run_dir=path, **SMALL).path).has_checkpoint
    assert (path / "metrics.csv").read_text().splitlines()[0] == metrics.splitlines()[0]


def test_a_signal_before_the_first_step_promises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pgrad.run.conduct.opening", lambda config: signal.raise_signal(signal.SIGTERM) or [])
    with pytest.raises(SystemExit) as end:
        pg.train(A2C, "cartpole", run_dir=tmp_path / "run", **SMALL)
    assert end.value.code == 143
    assert "nothing was begun, and nothing is kept" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_seeds_that_all_fail_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same command, once what broke is mended; nothing of the failure stays."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "breaks.py"
    text = "from tests.run.test_ended_early import *\ngymnasium.register('B-v0', Breaks, kwargs={'at': %d})\n"
    module.write_text(text % 0)
    command = "train a2c breaks:B-v0 --total-timesteps 60 --n-envs 2 --quiet --seeds 1 --run-dir all"
    answer = cli(command)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.splitlines()[-1] == "try again with: pgrad resume all"
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["seeds.json"]
    module.write_text(text % 99)
    assert cli(command).code == 0
    assert cli(command).err.startswith("pgrad: error: all already holds runs")
