"""Checkpoints: the state of a run in a folder of safetensors and JSON, written atomically, checked when read.

A checkpoint is a folder named after its timesteps, `000000102400/`, with two files and nothing to execute:

    tensors.safetensors   every tensor of the state
    manifest.json         format, version, info, size and SHA-256 of the tensors, the state without its
                          tensors (see `packing`), and a SHA-256 over all of that

The keys `format`, `version` and `sha256`, and how the latter is computed, stay the same in every version.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from pgrad.errors import CheckpointError
from pgrad.training.disk.files import force_to_disk, is_disk_full, reason, size, write_atomic
from pgrad.training.disk.packing import for_disk, pack, save_tensors, unpack

FORMAT, VERSION = "pgrad checkpoint", 1
TENSORS, MANIFEST = "tensors.safetensors", "manifest.json"


def save_checkpoint(folder: Path, state: dict[str, Any], *, info: dict[str, Any], keep: int = 3) -> Path:
    """Write `state` to `folder/{info["timesteps"]:012d}` and return that path.

    state: nested dicts (string keys) and lists of tensors (of any device) and plain values (None, bool,
    int of any size, float, str). info: plain values, with the integer `timesteps` among them.

    A folder is the history of one run: checkpoints beyond these timesteps, left by a run that went back
    to an older one, are removed, and the latest `keep` (at least 1) of the others stay. Nothing older is
    touched before the new one is complete, so that `keep=1` is a safe place for the best agent so far.

    Raises CheckpointError (disk full, not writable; older checkpoints are intact), TypeError for other
    values.
    """
    tensors: dict[str, Tensor] = {}
    manifest = {"format": FORMAT, "version": VERSION, "info": pack(info, "/info", None)}
    manifest["state"] = pack(state, "", tensors)
    target = folder / f"{info['timesteps']:012d}"
    temporary = folder / f".saving-{target.name}"
    needed = sum(t.nbytes for t in tensors.values()) + len(json.dumps(manifest)) + 256 * len(tensors) + 4096
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        if shutil.disk_usage(folder).free < needed:
            raise CheckpointError(_disk_full(folder, needed))
        temporary.mkdir()
        _write(temporary, manifest, for_disk(tensors))
        if target.exists():  # moved to a name that `checkpoints` knows, until the new one is in place
            os.replace(target, _replaced(target))
        os.replace(temporary, target)
        force_to_disk(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_disk_full(error):
            raise CheckpointError(_disk_full(folder, needed)) from error
        raise CheckpointError(f"cannot write the checkpoint {target}: {reason(error)}") from error
    with contextlib.suppress(OSError):  # what cannot be removed now is tried again after the next save
        _rotate(folder, target, keep)
    return target


def load_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a checkpoint: (state, info), the tensors on the CPU. Every byte is checked before it is used.

    Raises CheckpointError that says what is wrong (missing, truncated, damaged, foreign, written by a newer
    pgrad) and names the newest intact checkpoint beside it.
    """
    try:
        return _read(path)
    except CheckpointError as error:
        intact = next((p for p in reversed(checkpoints(path.parent)) if p != path and is_intact(p)), None)
        if intact is None:
            raise
        raise CheckpointError(f"{error}; newest intact one: {intact}") from error


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in `folder`, oldest first; not checked for damage."""
    if not folder.is_dir():
        return []
    # Reversed, "000000000512~" comes before "000000000512", which then takes its place.
    named = sorted((p for p in folder.iterdir() if re.fullmatch(r"\d{12,}~?", p.name)), reverse=True)
    by_timesteps = {_timesteps(path): path for path in named}
    return [by_timesteps[timesteps] for timesteps in sorted(by_timesteps)]


def latest_checkpoint(folder: Path) -> Path:
    """The newest complete checkpoint in `folder`. Raises CheckpointError when there is none."""
    found = checkpoints(folder)
    if not found:
        raise CheckpointError(f"there is no checkpoint in {folder}")
    return found[-1]


def steps_of(folder: Path) -> int:
    """The timesteps of the newest complete checkpoint in `folder`; 0 where there is none."""
    found = checkpoints(folder)
    return _timesteps(found[-1]) if found else 0


def checkpoint_info(path: Path) -> dict[str, Any]:
    """The info that a checkpoint was saved with; its tensors are not read. Raises CheckpointError."""
    info: dict[str, Any] = unpack(_read_manifest(path)["info"], {})
    return info


def is_intact(path: Path) -> bool:
    """Whether `load_checkpoint(path)` would succeed."""
    try:
        _read(path)
    except CheckpointError:
        return False
    return True


def _write(folder: Path, manifest: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    save_tensors(folder / TENSORS, tensors)
    force_to_disk(folder / TENSORS)
    with open(folder / TENSORS, "rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    manifest = manifest | {"tensors": {"bytes": (folder / TENSORS).stat().st_size, "sha256": checksum}}
    manifest["sha256"] = _checksum(manifest)
    lines = (f" {json.dumps(key)}: {json.dumps(part, allow_nan=False)}" for key, part in manifest.items())
    write_atomic(folder / MANIFEST, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def _checksum(manifest: dict[str, Any]) -> str:
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    manifest = _read_manifest(path)
    try:
        data = (path / TENSORS).read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is damaged: {TENSORS} is missing") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path / TENSORS}: {reason(error)}") from error
    try:
        expected = manifest["tensors"]["bytes"]
        if len(data) < expected:
            raise CheckpointError(
                f"{path} is damaged: {TENSORS} is truncated ({len(data)} of {expected} bytes)"
            )
        if hashlib.sha256(data).hexdigest() != manifest["tensors"]["sha256"]:
            raise CheckpointError(f"{path} is damaged: the checksum of {TENSORS} does not match")
        return unpack(manifest["state"], load(data)), unpack(manifest["info"], {})
    except (SafetensorError, LookupError, TypeError, ValueError) as error:  # forged: a fault fails a checksum
        raise CheckpointError(f"{path} is damaged: {MANIFEST} and {TENSORS} contradict each other") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise CheckpointError(f"there is no checkpoint at {path}")
    try:
        text = (path / MANIFEST).read_bytes()
    except FileNotFoundError as error:
        if (path / TENSORS).exists():
            raise CheckpointError(f"{path} is damaged: {MANIFEST} is missing") from error
        inside = checkpoints(path)
        hint = f"; did you mean {inside[-1]}?" if inside else ""
        raise CheckpointError(f"{path} is not a pgrad checkpoint: it has no {MANIFEST}{hint}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path / MANIFEST}: {reason(error)}") from error
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {MANIFEST} is truncated or overwritten") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a pgrad checkpoint: its {MANIFEST} is of another format")
    if manifest.pop("sha256", None) != _checksum(manifest):
        raise CheckpointError(f"{path} is damaged: the checksum of {MANIFEST} does not match")
    if manifest.get("version") != VERSION:
        versions = f"format version {manifest.get('version')}, this one reads version {VERSION}"
        raise CheckpointError(f"{path} was written by a newer pgrad ({versions}): upgrade pgrad to read it")
    return manifest


def _timesteps(path: Path) -> int:
    return int(path.name.removesuffix("~"))


def _replaced(path: Path) -> Path:
    return path.with_name(path.name + "~")


def _sweep(folder: Path) -> None:
    """Remove what interrupted saves left: unfinished folders, checkpoints whose replacement is in place."""
    left = [p for p in folder.iterdir() if p.name.startswith((".saving-", ".removing-"))]
    left += [_replaced(p) for p in checkpoints(folder) if _replaced(p).exists()]
    for path in left:
        shutil.rmtree(path)


def _rotate(folder: Path, newest: Path, keep: int) -> None:
    _sweep(folder)
    found = checkpoints(folder)
    history = [p for p in found if _timesteps(p) <= _timesteps(newest)]
    for path in set(found) - set(history[-keep:]):
        hidden = path.with_name(f".removing-{path.name}")
        os.replace(path, hidden)  # so that a half-removed checkpoint is never taken for a damaged one
        shutil.rmtree(hidden)


def _disk_full(folder: Path, needed: int) -> str:
    intact = "the previous checkpoint is intact" if checkpoints(folder) else "no checkpoint was written"
    free = shutil.disk_usage(folder).free
    what = "disk full" if free < needed else "disk full or quota reached"
    return f"{what}: needs {size(needed)}, {size(free)} free at {folder}; {intact}"
