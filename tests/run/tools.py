"""Comparing runs bit for bit, through their files."""

import csv
from pathlib import Path
from typing import Any

import torch

from pgrad.training.disk.checkpoint import latest_checkpoint, load_checkpoint
from pgrad.training.disk.rundir import RunDir

COUNTS = ("time/total_timesteps", "time/iterations")


def final_state(run_dir: Path) -> dict[str, Any]:
    """The last checkpoint's state: parameters, optimisers, normalisers, generators, world, statistics,
    counts."""
    return load_checkpoint(latest_checkpoint(RunDir.open(run_dir, locked=False).checkpoints))[0]


def rows(run_dir: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv as written, without what clocks say."""
    with open(run_dir / "metrics.csv", newline="") as file:
        return [
            {key: x for key, x in row.items() if key in COUNTS or not key.startswith("time/")}
            for row in csv.DictReader(file)
        ]


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two states are not equal bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [path]
    if isinstance(a, dict) and isinstance(b, dict):
        missing = [f"{path}/{key}" for key in a.keys() ^ b.keys()]
        return missing + [
            x for key in a.keys() & b.keys() for x in differences(a[key], b[key], f"{path}/{key}")
        ]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [
            x for i, (u, v) in enumerate(zip(a, b, strict=True)) for x in differences(u, v, f"{path}/{i}")
        ]
    return [] if type(a) is type(b) and a == b else [path]
