"""The folder of machine code keeps what was used last."""

import os
from pathlib import Path

import pytest

from pgrad import cache


def test_the_oldest_files_make_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PGRAD_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "KEPT", 2)
    for k in range(4):
        path = tmp_path / (f"{k}.pt2" if k % 2 else f"{k}.so")
        path.touch()
        os.utime(path, (k, k))
    cache.make_room()
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["2", "3"]


def test_several_processes_make_room_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file that another process deletes between two looks is no error."""
    monkeypatch.setenv("PGRAD_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "KEPT", 1)
    for k in range(4):
        (tmp_path / f"{k}.pt2").touch()
        os.utime(tmp_path / f"{k}.pt2", (k, k))
    (tmp_path / "gone.pt2").symlink_to(tmp_path / "nowhere")  # listed, and not there when it is looked at
    cache.make_room()
    assert sorted(path.stem for path in tmp_path.glob("[0-9].pt2")) == ["3"]
