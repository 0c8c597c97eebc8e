"""Checkpoints: killed at any point, or on a full disk, the older ones are intact."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor

from pgrad.errors import CheckpointError
from pgrad.training.disk import packing as module
from pgrad.training.disk.checkpoint import (
    checkpoints,
    is_intact,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)


def small(folder: Path, timesteps: int = 1) -> Path:
    state = {"w": torch.arange(3.0) + timesteps, "n": timesteps}
    return save_checkpoint(folder, state, info={"timesteps": timesteps})


class Killed(BaseException):
    """Stands for SIGKILL: nothing in `save_checkpoint` may run after it."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the n-th following change to the file system kill the process instead."""
    left = -1

    def tick() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            tick()
            return original(*args, **options)

        return call

    def save_half_first(contents: dict[str, Tensor], file: Path) -> None:
        original(contents, file)
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        tick()
        file.write_bytes(whole)
        tick()

    def arm(n: int) -> None:
        nonlocal left
        left = n

    original = module.save_file
    for name in ("mkdir", "replace", "rename", "fsync", "unlink", "rmdir", "open"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    monkeypatch.setattr(module, "save_file", save_half_first)
    return arm


@pytest.mark.parametrize(("earlier", "new", "keep"), [([100, 200], 300, 2), ([200], 200, 1), ([100], 200, 1)])
def test_killed_at_any_point_the_old_or_the_new_one_is_there(
    tmp_path: Path, kill_at: Callable[[int], None], earlier: list[int], new: int, keep: int
) -> None:
    def save(folder: Path, timesteps: int, value: int) -> Path:
        return save_checkpoint(
            folder, {"x": torch.full((50,), value)}, info={"timesteps": timesteps}, keep=keep
        )

    survived = 0
    for n in range(1, 200):
        folder = tmp_path / str(n)
        for timesteps in earlier:
            save(folder, timesteps, 1)
        kill_at(n)
        try:
            save(folder, new, 2)
        except Killed:
            kill_at(-1)
        else:
            break
        newest = latest_checkpoint(folder)
        state, info = load_checkpoint(newest)
        assert (info["timesteps"], state["x"][0]) in ((earlier[-1], 1), (new, 2))
        survived += int(state["x"][0] == 1)
        assert all(map(is_intact, checkpoints(folder)))
        save(folder, new, 3)
        kept = sorted(p.name for p in folder.iterdir())
        assert kept == [f"{timesteps:012d}" for timesteps in sorted({*earlier, new})[-keep:]]
        assert load_checkpoint(latest_checkpoint(folder))[0]["x"][0] == 3
    assert (
        8 < survived < n - 1 < 199
    )  # it was killed often, before and after the new one counted, and then not


class Disk(NamedTuple):
    path: Path
    fill: Callable[[], object]  # from here on, nothing more can be written


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A file system of 1 MiB where root may mount one; else one whose writes fail as if it were full."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path]
    if shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0:
        try:
            yield Disk(path, lambda: None)
        finally:
            subprocess.run(["umount", path], check=True)
    else:

        def fail(*args: Any) -> None:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

        yield Disk(path, lambda: monkeypatch.setattr(module, "save_file", fail))


def lie_about_space(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(free, 0, free))  # type: ignore[attr-defined]


def test_space_is_checked_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = small(tmp_path)
    lie_about_space(monkeypatch, 3_000_000)
    state = {"w": torch.zeros(3_000_000)}
    with pytest.raises(CheckpointError) as error:
        save_checkpoint(tmp_path, state, info={"timesteps": 2})
    assert str(error.value) == (
        f"disk full: needs 12 MB, 3.0 MB free at {tmp_path}; the previous checkpoint is intact"
    )
    with pytest.raises(CheckpointError, match="no checkpoint was written"):
        save_checkpoint(tmp_path / "other", state, info={"timesteps": 2})
    assert load_checkpoint(latest_checkpoint(tmp_path))[0]["n"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [first.name, "other"]


def test_a_disk_that_fills_up_while_writing(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"w": torch.zeros(150_000)}
    first = save_checkpoint(disk.path, state, info={"timesteps": 1})
    lie_about_space(monkeypatch, 10**9)  # as when another program takes the space after the check
    disk.fill()
    with pytest.raises(CheckpointError, match="disk full") as error:
        save_checkpoint(disk.path, state, info={"timesteps": 2})
    assert str(error.value).endswith("the previous checkpoint is intact")
    assert [p.name for p in disk.path.iterdir()] == [first.name]
    assert torch.equal(load_checkpoint(latest_checkpoint(disk.path))[0]["w"], state["w"])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_manifest_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    first = small(tmp_path)
    original = os.fsync
    calls = 0

    def fail(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(code, os.strerror(code))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(
        CheckpointError, match=r"disk full or quota reached: .*the previous checkpoint is intact"
    ):
        small(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == [first.name]


def test_other_write_errors_name_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CheckpointError,
        match=r"cannot write the checkpoint .*/file/000000000001: (Not a directory|File exists)",
    ):
        small(tmp_path / "file")
