"""Sample completions: completions.jsonl, one JSON object a line, in the folder of the run."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pgrad.errors import CheckpointError
from pgrad.training.disk.files import is_disk_full, reason, write_atomic


class SampleLog:
    """Appends samples with the timesteps they were written after.

    The file holds nothing of after `timesteps`, where a run that continues begins, and no line that a crash
    cut off. It is made with the first sample. A disk that takes no more does not stop a training: `warn` is
    told once.

    Raises CheckpointError where the file that is there cannot be read or written.
    """

    def __init__(self, path: Path, timesteps: int = 0, warn: Callable[[str], object] = warnings.warn) -> None:
        self.path = path
        self._warn: Callable[[str], object] | None = warn
        try:
            if path.exists():
                kept = [line for line in path.read_bytes().splitlines(True) if _step(line) <= timesteps]
                write_atomic(path, b"".join(kept))
        except OSError as error:
            raise CheckpointError(f"cannot write {path}: {reason(error)}") from error

    def write(self, timesteps: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Add samples, plain values, each under its own keys beside `timesteps`."""
        if not samples:
            return
        lines = [json.dumps({"timesteps": timesteps, **sample}, ensure_ascii=False) for sample in samples]
        try:
            with open(self.path, "ab") as file:
                file.write(("\n".join(lines) + "\n").encode("utf-8", "replace"))
        except OSError as error:
            if self._warn is not None:
                what = "disk full" if is_disk_full(error) else reason(error)
                self._warn(f"cannot write {self.path}: {what}; training continues without samples")
                self._warn = None


def _step(line: bytes) -> float:
    """The timesteps of a line; infinite where it is none, or was cut off."""
    try:
        return float(json.loads(line)["timesteps"]) if line.endswith(b"\n") else float("inf")
    except (ValueError, LookupError, TypeError):
        return float("inf")
