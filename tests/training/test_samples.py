"""Sample completions on disk."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from pgrad.errors import CheckpointError
from pgrad.training.disk import samples
from pgrad.training.disk.samples import SampleLog

ONE: dict[str, Any] = {"prompt": "1+1=", "completion": "2", "reward": 1.0}
TALK: dict[str, Any] = {"prompt": [{"role": "user", "content": "π?"}], "completion": "a\nb", "reward": None}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_samples_are_lines_of_json(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "x.jsonl")
    log.write(0, [])
    assert not (tmp_path / "x.jsonl").exists(), "other runs have no such file"
    log.write(10, [ONE, TALK])
    log.write(20, [ONE])
    assert lines(tmp_path / "x.jsonl") == [
        {"timesteps": n, **x} for n, x in ((10, ONE), (10, TALK), (20, ONE))
    ]
    assert "π" in (tmp_path / "x.jsonl").read_text(encoding="utf-8")


def test_what_came_after_a_checkpoint_is_dropped(tmp_path: Path) -> None:
    """With a line that a crash cut off, and what is no line of ours."""
    path = tmp_path / "x.jsonl"
    log = SampleLog(path)
    for n in (10, 20, 30):
        log.write(n, [ONE])
    with open(path, "a") as file:
        file.write('not json\n{"timesteps": 5, "prompt": "cut o')
    SampleLog(path, 20).write(25, [TALK])
    assert [x["timesteps"] for x in lines(path)] == [10, 20, 25]


def test_a_full_disk_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    log = SampleLog(tmp_path / "x.jsonl", 0, said.append)

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(samples, "open", no_space, raising=False)
        log.write(1, [ONE])
        log.write(2, [ONE])
    assert said == [f"cannot write {tmp_path / 'x.jsonl'}: disk full; training continues without samples"]
    log.write(3, [ONE])
    assert [x["timesteps"] for x in lines(tmp_path / "x.jsonl")] == [3]
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match="cannot write"):
        SampleLog(tmp_path / "folder")
