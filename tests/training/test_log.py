"""Metrics come back to the last bit, nothing written is lost, and a full disk does not stop a training."""

import csv
import errno
import math
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrad.errors import CheckpointError, UsageError
from pgrad.training.disk import log as module
from pgrad.training.disk.log import MetricsLog, TensorBoardLog, WandbLog, read

FIRST = ["time/total_timesteps", "time/iterations", "time/time_elapsed", "time/fps"]


def rows(path: Path) -> list[list[str]]:
    return list(csv.reader(path.read_text().splitlines()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.csv"


def test_columns_stand_in_order_of_appearance(path: Path) -> None:
    log = MetricsLog(path)
    assert rows(path) == [FIRST]
    log.write(8, {"rollout/ep_rew_mean": 0.1, "time/fps": 1e3})
    log.write(16, {"train/loss": -1.0, "eval/mean, reward": 7})
    assert rows(path) == [
        [*FIRST, "rollout/ep_rew_mean", "train/loss", "eval/mean, reward"],
        ["8", "", "", "1000.0", "0.1", "", ""],
        ["16", "", "", "", "", "-1.0", "7"],
    ]
    log.close()


VALUES = st.floats() | st.integers(-(2**53), 2**53)
METRICS = st.dictionaries(st.sampled_from(["a", "b/c", 'with "quotes", commas', "é", "time/fps"]), VALUES)


@given(st.lists(METRICS, max_size=6), st.integers(0, 5))
@settings(max_examples=60)
def test_numbers_come_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, metrics: list[dict[str, float]], reopen_at: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.csv"
    log = MetricsLog(path)
    for i, row in enumerate(metrics):
        if i == reopen_at:
            log.close()
            log = MetricsLog(path)
        log.write(i, row)
        columns = read(path)  # every row is there at once
        assert columns["time/total_timesteps"] == list(range(i + 1))
        for key, column in columns.items():
            if key != "time/total_timesteps":
                expected = [float(row.get(key, math.nan)) for row in metrics[: i + 1]]
                assert list(map(repr, column)) == list(map(repr, expected))
    log.close()


def test_rows_are_appended_not_rewritten(path: Path) -> None:
    log = MetricsLog(path)
    log.write(1, {"a": 1.0})
    inode, text = path.stat().st_ino, path.read_text()
    log.write(2, {"a": 2.0})
    assert path.stat().st_ino == inode
    assert path.read_text() == text + "2,,,,2.0\n"
    log.write(3, {"b": 1.0})
    assert path.stat().st_ino != inode
    log.close()


def test_a_row_cut_off_by_a_crash_is_dropped(path: Path) -> None:
    log = MetricsLog(path)
    log.write(1, {"a": 1.0})
    log.write(2, {"a": 2.5})
    log.close()
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for length in range(start, len(whole)):
        path.write_bytes(whole[:length])
        assert read(path)["a"] == [1.0]
        log = MetricsLog(path)
        log.write(2, {"a": 2.5})
        log.close()
        assert path.read_bytes() == whole


def test_a_header_cut_off_by_a_crash_is_written_again(path: Path) -> None:
    path.write_text("time/total_time")
    MetricsLog(path).close()
    assert rows(path) == [FIRST]


def test_resuming_drops_the_rows_after_the_checkpoint(path: Path) -> None:
    log = MetricsLog(path)
    for step in (100, 200, 200, 300):
        log.write(step, {"a": step / 7})
    log.close()
    before = path.read_bytes()
    log = MetricsLog(path)
    log.truncate_after(200)
    assert read(path)["time/total_timesteps"] == [100, 200, 200]
    log.write(300, {"a": 300 / 7})
    log.close()
    assert path.read_bytes() == before
    log = MetricsLog(path)
    log.truncate_after(0)
    assert read(path) == {key: [] for key in [*FIRST, "a"]}
    log.close()


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "time/total_timesteps,x\n1\n", "\xff\xfe"])
def test_a_file_of_something_else_is_refused(path: Path, text: str) -> None:
    path.write_bytes(text.encode("latin-1"))
    for use in (read, MetricsLog):
        with pytest.raises(CheckpointError, match=r"metrics\.csv"):
            use(path)
    assert path.read_bytes() == text.encode("latin-1")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*: No such file"):
        read(tmp_path / "metrics.csv")
    with pytest.raises(CheckpointError, match=r"cannot write .*: No such file"):
        MetricsLog(tmp_path / "missing" / "metrics.csv")


# Disk full


def full(*args: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class HalfFull:
    """A file that takes five bytes more, then none: as a file system does when it fills up."""

    def __init__(self, file: Any) -> None:
        self.file, self.room = file, 5

    def write(self, data: bytes) -> int:
        if self.room == 0:
            full()
        self.room = 0
        return int(self.file.write(data[:5]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("new_metric", [False, True])
def test_a_full_disk_costs_one_warning_and_no_row(
    path: Path, monkeypatch: pytest.MonkeyPatch, new_metric: bool
) -> None:
    warnings: list[str] = []
    log = MetricsLog(path, warnings.append)
    log.write(1, {"a": 1.0})
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        if new_metric:
            patch.setattr(os, "fsync", full)
        patch.setattr(log, "_file", HalfFull(log._file))
        log.write(2, {"a": 2.0} | ({"b": 2.0} if new_metric else {}))
        log.write(3, {"a": 3.0})
        assert path.read_bytes() == before
    assert warnings == [f"cannot write {path}: disk full; training continues, its rows wait in memory"]
    log.write(4, {"a": 4.0})
    log.close()
    assert read(path)["a"] == [1.0, 2.0, 3.0, 4.0]
    assert len(warnings) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_what_a_real_full_device_says(path: Path) -> None:
    log = MetricsLog(path)
    log.close()
    log._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    with pytest.warns(UserWarning, match="disk full; training continues"):
        log.write(1, {})
    log.close()


# TensorBoard and Weights & Biases


def test_tensorboard_keeps_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    log = TensorBoardLog(tmp_path)
    log.write(8, {"rollout/ep_rew_mean": 1.5})
    log.write(16, {"rollout/ep_rew_mean": 2.5, "train/loss": -1.0})
    log.close()
    log = TensorBoardLog(tmp_path, purge_step=16)
    log.write(24, {"train/loss": -2.0})
    log.close()

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert scalars == {"rollout/ep_rew_mean": [(8, 1.5)], "train/loss": [(24, -2.0)]}


@pytest.mark.parametrize(
    ("package", "make", "words"),
    [
        ("torch.utils.tensorboard", TensorBoardLog, r"TensorBoard .*: pip install 'pgrad\[tensorboard\]'"),
        ("wandb", lambda x: WandbLog(x, "p", "n", {}), r"Weights & Biases .*: pip install 'pgrad\[wandb\]'"),
    ],
)
def test_a_missing_extra_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, make: Callable[[Path], object], words: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=words):
        make(tmp_path)


def test_weights_and_biases_gets_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    run = types.SimpleNamespace(
        log=lambda row, step: calls.append((step, row)), finish=lambda: calls.append("finish")
    )
    fake = types.ModuleType("wandb")
    fake.init = lambda **options: calls.append(options) or run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    log = WandbLog(tmp_path / "wandb", "project", "run-1", {"seed": 1})
    assert (tmp_path / "wandb").is_dir()
    log.write(8, {"a": 1.0})
    log.close()
    options = {"dir": str(tmp_path / "wandb"), "project": "project", "name": "run-1", "config": {"seed": 1}}
    assert calls == [options, (8, {"a": 1.0}), "finish"]


def test_the_sinks_have_one_interface() -> None:
    for sink in (MetricsLog, TensorBoardLog, WandbLog):
        assert {"write", "close"} <= vars(sink).keys()
        assert module.Sink.__dict__["write"].__annotations__ == sink.write.__annotations__
