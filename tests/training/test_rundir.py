"""Run directories: laid out, refused where something else is, never deleting what is not theirs."""

import errno
import json
import os
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pgrad.errors import CheckpointError, UsageError
from pgrad.training.disk.rundir import RunDir

CONFIG = {"algorithm": {"clip_range": 0.1, "layers": (64, 64)}, "seed": 1, "limit": float("inf")}


def files(path: Path) -> dict[str, str]:
    """Every file below `path` with its content."""
    return {str(p.relative_to(path)): p.read_text() for p in path.rglob("*") if p.is_file()}


def finished_run(path: Path) -> Path:
    with RunDir.create(path) as run:
        run.write_config(CONFIG)
        run.metrics.write_text("old")
        (run.checkpoints / "000000000001").mkdir()
        (run.videos / "a.mp4").write_text("old")
    return path


def test_what_is_written_is_there(tmp_path: Path) -> None:
    with RunDir.create(tmp_path / "deep" / "run") as run:
        run.write_config(CONFIG)
        run.write_versions({"torch": "2.13.0", "mujoco": None})
        run.add_command(["pgrad", "train", "ppo", "my world", "--seed", "1"])
        run.add_command(["pgrad", "resume", "run"])
        for folder in (run.checkpoints, run.best, run.videos, run.plots):
            assert folder.is_dir()
            assert folder.parent == run.path
        assert run.note == ""
        assert json.loads((run.path / "lock").read_text())["pid"] == os.getpid()
    again = RunDir.open(tmp_path / "deep" / "run", locked=False)
    assert again.config() == CONFIG | {"algorithm": {"clip_range": 0.1, "layers": [64, 64]}}
    assert json.loads((run.path / "versions.json").read_text()) == {"torch": "2.13.0", "mujoco": None}
    first, second = (run.path / "command.txt").read_text().splitlines()
    assert shlex.split(first) == ["pgrad", "train", "ppo", "my world", "--seed", "1"]
    assert second == "pgrad resume run"
    assert sorted(p.name for p in run.path.iterdir()) == [
        "best",
        "checkpoints",
        "command.txt",
        "config.json",
        "plots",
        "versions.json",
        "videos",
    ]


def test_the_order_of_settings_does_not_change_the_file(tmp_path: Path) -> None:
    texts = []
    for name, config in (("a", {"x": 1, "y": {"b": 2, "a": 3}}), ("b", {"y": {"a": 3, "b": 2}, "x": 1})):
        with RunDir.create(tmp_path / name) as run:
            run.write_config(config)
        texts.append((tmp_path / name / "config.json").read_text())
    assert texts[0] == texts[1]
    assert texts[0].splitlines()[1] == '  "config": {'


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path, overwrite: bool) -> None:
    path = tmp_path / "thesis"
    (path / "checkpoints").mkdir(parents=True)
    (path / "checkpoints" / "chapter.txt").write_text("years of work")
    for foreign in (None, "{}", '{"format": "other"}', "[1]", "not JSON"):
        if foreign is not None:
            (path / "config.json").write_text(foreign)
        before = files(path)
        with pytest.raises(UsageError, match="is not empty and not a pgrad run directory") as error:
            RunDir.create(path, overwrite=overwrite)
        assert str(error.value).count("\n") == 0
        assert files(path) == before


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    with RunDir.create(tmp_path) as run:
        assert run.config() == {}


def test_a_finished_run_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = finished_run(tmp_path / "run")
    before = files(path)
    with pytest.raises(UsageError, match=r"already holds a run: resume it, .* \(--overwrite\)"):
        RunDir.create(path)
    assert files(path) == before


def test_overwrite_removes_what_the_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    path = finished_run(tmp_path / "run")
    (path / "notes.txt").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("mine")
    shutil.rmtree(path / "best")
    (path / "best").symlink_to(tmp_path / "elsewhere")
    with RunDir.create(path, overwrite=True) as run:
        assert run.config() == {}
        assert sorted(p.name for p in path.iterdir()) == [
            *("best", "checkpoints", "config.json", "lock", "notes.txt", "plots", "videos")
        ]
        assert not any(run.checkpoints.iterdir())
        assert not any(run.videos.iterdir())
        assert not run.best.is_symlink()
    assert (path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "elsewhere" / "precious").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_in_use_is_refused_before_anything_else(tmp_path: Path, overwrite: bool) -> None:
    path = finished_run(tmp_path / "run")
    with RunDir.open(path):
        before = files(path)
        with pytest.raises(CheckpointError, match=f"{path} is in use by pid {os.getpid()} on .* since "):
            RunDir.create(path, overwrite=overwrite)
        with pytest.raises(CheckpointError, match="is in use"):
            RunDir.open(path)
        assert files(path) == before
        assert RunDir.open(path, locked=False).config() == RunDir(path).config()  # reading is allowed
    RunDir.open(path).release()


def test_an_overwrite_cut_short_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*args: Any, **options: Any) -> None:
        raise Killed

    path = finished_run(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(Killed):
            RunDir.create(path, overwrite=True)
    with RunDir.create(path, overwrite=True) as run:
        assert run.config() == {}
        assert not any(run.checkpoints.iterdir())


def test_default_counts_up(tmp_path: Path) -> None:
    base = tmp_path / "runs" / "ppo"
    names = []
    for _ in range(3):
        with RunDir.default(base, "CartPole-v1-seed1") as run:
            names.append(run.path.name)
    assert names == ["CartPole-v1-seed1", "CartPole-v1-seed1-2", "CartPole-v1-seed1-3"]
    with RunDir.default(base, "ALE/Pong v5: seed=1") as run:
        assert run.path == base / "ALE-Pong-v5-seed=1"
    (base / "file").write_text("")
    with RunDir.default(base, "file") as run:
        assert run.path == base / "file-2"


def test_default_gives_every_run_its_own_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: RunDir.default(tmp_path, "run"), range(24)))
    expected = {"run"} | {f"run-{i}" for i in range(2, 25)}
    assert {run.path.name for run in runs} == expected
    for run in runs:
        run.release()


def test_places_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(
            UsageError, match=f"cannot create the run directory {path}: (File exists|Not a dir)"
        ):
            RunDir.create(path)
    with pytest.raises(UsageError, match=r"cannot create the run directory .*: Not a directory"):
        RunDir.default(tmp_path / "file", "run")


def test_open_says_what_is_wrong(tmp_path: Path) -> None:
    path = finished_run(tmp_path / "CartPole-v1-seed1")
    (tmp_path / "other").mkdir()
    problems = {
        tmp_path / "CartPole-v1-seed2": f"there is no run at .*: did you mean {path}",
        tmp_path / "nowhere" / "run": "there is no run at",
        tmp_path / "other": "is not a pgrad run directory: it has no config.json",
    }
    for wrong, message in problems.items():
        with pytest.raises(CheckpointError, match=message):
            RunDir.open(wrong)
    content = json.loads((path / "config.json").read_text())
    for text, message in (
        ("{", "config.json is damaged: it is not JSON"),
        ('{"config": {}}', "its config.json is of another format"),
        (json.dumps(content | {"version": 2}), "written by a newer pgrad"),
    ):
        (path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            RunDir.open(path)
    assert not (path / "lock").exists()


def test_a_folder_of_runs_names_some_of_them(tmp_path: Path) -> None:
    for name in ("a/2", "a/1", "b"):
        finished_run(tmp_path / name)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError) as error:
        RunDir.open(tmp_path)
    runs = ", ".join(str(tmp_path / name) for name in ("a/1", "a/2", "b"))
    assert str(error.value) == (
        f"{tmp_path} is not a pgrad run directory: it has no config.json; the runs in it: {runs}"
    )
    for number in range(3, 8):
        finished_run(tmp_path / "a" / str(number))
    with pytest.raises(CheckpointError, match=r"a/1, .*a/5 and 2 more$"):
        RunDir.open(tmp_path / "a", locked=False)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_full_disk_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    original, calls = os.fsync, 0

    def fail(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    def create() -> None:
        with RunDir.create(tmp_path / "run") as run:
            run.write_versions({})

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises((CheckpointError, UsageError), match="disk full"):
            create()
    with RunDir.create(tmp_path / "run", overwrite=True):  # and leaves nothing in the way
        pass
