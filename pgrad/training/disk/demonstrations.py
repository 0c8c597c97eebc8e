"""Demonstrations on disk: whole episodes in one safetensors file, written atomically, checked when read.

The file's JSON header holds, under "pgrad": format, version, info, a SHA-256 over all tensors and over that.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pgrad.data import Masked, Trajectory, leaves
from pgrad.data.masked import bare
from pgrad.data.sequence import without_memory
from pgrad.errors import CheckpointError, UsageError
from pgrad.training.disk.files import is_disk_full, reason, write_atomic
from pgrad.training.disk.packing import for_disk

FORMAT, VERSION, KEY = "pgrad demonstrations", 1, "pgrad"
FACTS = ("logp", "reward", "terminated", "done", "mask")


@dataclass(frozen=True)
class Recording:
    """Whole episodes one after the other, as rows [R, ...]: their decisions, then a row that only resets."""

    obs: tuple[Tensor, ...]  # the leaves of the observations
    allowed: Tensor | None  # what was allowed, where actions were masked
    action: tuple[Tensor, ...]  # the leaves of the actions, as sampled
    facts: dict[str, Tensor]  # logp, reward, terminated, done, mask
    info: dict[str, Any]  # world, lengths and returns of the episodes, …
    sha256: str

    @property
    def lengths(self) -> tuple[int, ...]:
        """The decisions of each episode."""
        return tuple(self.info["lengths"])


def save_demonstrations(path: Path, traj: Trajectory, info: dict[str, Any]) -> Recording:
    """Write whole episodes, one per column of `traj`, with plain JSON values `info`; return what was written.

    Raises UsageError where the file exists or cannot be written.
    """
    if path.exists():
        raise UsageError(f"{path} exists already: choose another name, or delete it")
    recording = _lay_out(traj, info)
    tensors = for_disk(_tensors(recording))
    sha256 = _checksum(tensors, recording.info)
    header = {"format": FORMAT, "version": VERSION, "info": recording.info, "sha256": sha256}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save(tensors, {KEY: json.dumps(header)}))
    except OSError as error:
        what = "disk full" if is_disk_full(error) else reason(error)
        raise UsageError(f"cannot write {path}: {what}") from error
    return recording


def load_demonstrations(path: Path) -> Recording:
    """Read a recording, on the CPU; every byte is checked before it is used.

    Raises UsageError where there is no such file, CheckpointError where it is damaged or of another format.
    """
    if path.is_dir():
        kind, run = ("run", path) if (path / "config.json").exists() else ("folder", "RUN")
        raise UsageError(
            f"{path} is a {kind}, demonstrations are a file: record one with pgrad play {run} --record FILE"
        )
    if not path.is_file():
        raise UsageError(f"there is no recording at {path}: make one with pgrad play RUN --record {path}")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is not a recording, or a damaged one: {error}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {reason(error)}") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a recording of pgrad: its header is of another format")
    if header.get("version") != VERSION:
        raise CheckpointError(f"{path} was written by a newer pgrad: upgrade pgrad to read it")
    if header.get("sha256") != _checksum(tensors, header.get("info")):
        raise CheckpointError(f"{path} is damaged: its checksum does not match")
    parts = {kind: [x for x in tensors if x.startswith(f"{kind}/")] for kind in ("obs", "action")}
    columns = {
        kind: tuple(tensors[f"{kind}/{k}"] for k in range(len(names))) for kind, names in parts.items()
    }
    facts = {name: tensors[name] for name in FACTS}
    return Recording(
        columns["obs"],
        tensors.get("allowed"),
        columns["action"],
        facts,
        header["info"],
        header["sha256"],
    )


def _lay_out(traj: Trajectory, info: dict[str, Any]) -> Recording:
    lengths = [int(n) for n in (traj.mask > 0).sum(0)]

    def rows(x: Tensor) -> Tensor:  # [T, B, ...] or, for observations, [T+1, B, ...]
        parts = []
        for column, n in enumerate(lengths):
            last = x[n : n + 1, column] if len(x) > len(traj.reward) else torch.zeros_like(x[:1, column])
            parts += [x[:n, column], last]
        return torch.cat(parts)

    facts = {name: rows(getattr(traj, name)) for name in FACTS}
    facts["done"][torch.tensor(lengths).add(1).cumsum(0) - 1] = True
    returns = [float((traj.reward[:n, k]).sum()) for k, n in enumerate(lengths)]
    shown = without_memory(traj.obs)
    return Recording(
        tuple(rows(x) for x in leaves(bare(shown))),
        rows(shown.allowed) if isinstance(shown, Masked) else None,
        tuple(rows(x) for x in leaves(traj.action)),
        facts,
        {**info, "lengths": lengths, "returns": returns},
        "",
    )


def _tensors(recording: Recording) -> dict[str, Tensor]:
    named = {f"obs/{k}": x for k, x in enumerate(recording.obs)}
    named |= {f"action/{k}": x for k, x in enumerate(recording.action)}
    named |= {} if recording.allowed is None else {"allowed": recording.allowed}
    return named | recording.facts


def _checksum(tensors: dict[str, Tensor], info: Any) -> str:
    digest = hashlib.sha256(json.dumps(info, sort_keys=True).encode())
    for name in sorted(tensors):
        x = tensors[name].contiguous()
        digest.update(f"{name} {x.dtype} {list(x.shape)}".encode())
        digest.update(x.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
