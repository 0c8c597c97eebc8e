"""Checkpoints: every damage is found and named, and nothing in one is ever executed."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pgrad.errors import CheckpointError
from pgrad.training.disk.checkpoint import is_intact, latest_checkpoint, load_checkpoint, save_checkpoint


def small(folder: Path, timesteps: int = 1) -> Path:
    state = {"w": torch.arange(3.0) + timesteps, "n": timesteps}
    return save_checkpoint(folder, state, info={"timesteps": timesteps})


def equal(a: tuple[dict[str, Any], ...], b: tuple[dict[str, Any], ...]) -> bool:
    return torch.equal(a[0]["w"], b[0]["w"]) and a[0]["n"] == b[0]["n"] and a[1] == b[1]


@pytest.mark.parametrize("name", ["tensors.safetensors", "manifest.json"])
def test_every_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    path = small(tmp_path)
    whole = load_checkpoint(path)
    data = (path / name).read_bytes()
    for position in range(len(data)):
        for bit in (position % 8, 5):  # 5 makes small letters of capitals
            (path / name).write_bytes(
                data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]
            )
            try:
                loaded = load_checkpoint(path)
            except CheckpointError:
                continue
            assert name == "manifest.json"  # where a space may have become another one
            assert equal(loaded, whole)
    (path / name).write_bytes(data)
    assert equal(load_checkpoint(path), whole)


@pytest.mark.parametrize("name", ["tensors.safetensors", "manifest.json"])
def test_every_truncation_is_found(tmp_path: Path, name: str) -> None:
    path = small(tmp_path)
    data = (path / name).read_bytes().rstrip()
    for length in range(len(data)):
        (path / name).write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="truncated"):
            load_checkpoint(path)


def forge(path: Path, change: Callable[[dict[str, Any]], object], tensors_file: bytes | None = None) -> None:
    """Change a manifest (and the tensors) and make the checksums fit again."""
    manifest = json.loads((path / "manifest.json").read_text())
    if tensors_file is not None:
        (path / "tensors.safetensors").write_bytes(tensors_file)
        manifest["tensors"] = {"bytes": len(tensors_file), "sha256": hashlib.sha256(tensors_file).hexdigest()}
    change(manifest)
    del manifest["sha256"]
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    (path / "manifest.json").write_text(
        json.dumps(manifest | {"sha256": hashlib.sha256(canonical).hexdigest()})
    )


def flip(path: Path) -> None:
    data = bytearray((path / "tensors.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "tensors.safetensors").write_bytes(data)


PROBLEMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "there is no checkpoint at {path}"),
    "no tensors": (
        lambda p: (p / "tensors.safetensors").unlink(),
        "{path} is damaged: tensors.safetensors is missing",
    ),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "{path} is damaged: manifest.json is missing"),
    "empty": (
        lambda p: [file.unlink() for file in p.iterdir()],
        "{path} is not a pgrad checkpoint: it has no manifest.json",
    ),
    "bit": (flip, "{path} is damaged: the checksum of tensors.safetensors does not match"),
    "foreign JSON": (
        lambda p: (p / "manifest.json").write_text('{"version": 1}'),
        "{path} is not a pgrad checkpoint: its manifest.json is of another format",
    ),
    "not an object": (
        lambda p: (p / "manifest.json").write_text("[1]"),
        "{path} is not a pgrad checkpoint: its manifest.json is of another format",
    ),
    "newer": (
        lambda p: forge(p, lambda manifest: manifest.update(version=2)),
        "{path} was written by a newer pgrad (format version 2, this one reads version 1): "
        "upgrade pgrad to read it",
    ),
    "a folder as file": (
        lambda p: ((p / "manifest.json").unlink(), (p / "manifest.json").mkdir()),
        "cannot read {path}/manifest.json: Is a directory",
    ),
    "forged": (
        lambda p: forge(p, lambda manifest: manifest.update(state={"w": {"$tensor": "/other"}})),
        "{path} is damaged: manifest.json and tensors.safetensors contradict each other",
    ),
    "forged, incomplete": (
        lambda p: forge(p, lambda manifest: manifest.pop("tensors")),
        "{path} is damaged: manifest.json and tensors.safetensors contradict each other",
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_each_problem_has_its_own_message_and_names_the_newest_intact_one(
    tmp_path: Path, problem: str
) -> None:
    break_it, message = PROBLEMS[problem]
    path = small(tmp_path / "alone")
    break_it(path)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    assert str(error.value) == message.format(path=path)
    assert not is_intact(path)

    _, intact, damaged = (small(tmp_path / "run", timesteps) for timesteps in (1, 2, 3))
    newest = save_checkpoint(tmp_path / "run", {"w": torch.zeros(1)}, info={"timesteps": 4}, keep=4)
    break_it(newest)
    flip(damaged)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(newest)
    assert str(error.value) == message.format(path=newest) + f"; newest intact one: {intact}"


def test_damage_to_the_newest_is_never_skipped_silently(tmp_path: Path) -> None:
    small(tmp_path, 1)
    newest = small(tmp_path, 2)
    flip(newest)
    assert latest_checkpoint(tmp_path) == newest


def test_the_folder_of_checkpoints_is_told_from_a_checkpoint(tmp_path: Path) -> None:
    path = small(tmp_path, 5)
    with pytest.raises(CheckpointError, match=f"did you mean {path}"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="there is no checkpoint in"):
        latest_checkpoint(tmp_path / "other")


class Trap:
    """What a pickle in place of the tensors would do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("trapped",)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = small(tmp_path)
    forge(path, lambda manifest: None, pickle.dumps(Trap()))
    with pytest.raises(CheckpointError, match="contradict"):
        load_checkpoint(path)
    torch.save(Trap(), path / "torch.pt")
    forge(path, lambda manifest: None, (path / "torch.pt").read_bytes())
    with pytest.raises(CheckpointError, match="contradict"):
        load_checkpoint(path)
    assert not Path("trapped").exists()
