"""Where metrics go: metrics.csv always, TensorBoard and Weights & Biases when asked."""

import contextlib
import csv
import io
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pgrad.errors import CheckpointError, UsageError
from pgrad.training.disk.files import is_disk_full, reason, write_atomic

STEP = "time/total_timesteps"
FIRST = (STEP, "time/iterations", "time/time_elapsed", "time/fps")


class Sink(Protocol):
    """What takes the metrics of an iteration."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics after `step` timesteps."""
        ...

    def close(self) -> None:
        """Write what is still to be written."""
        ...


class MetricsLog:
    """metrics.csv: a row per iteration, a column per metric, numbers in full precision, missing ones empty.

    Every row is in the file when `write` returns, and a row that a crash cut off is dropped when the file
    is opened. A new metric gets a new column at the right (the file is replaced, atomically). A full disk
    does not stop a training: `warn` is told once, and the rows wait in memory until there is space.
    """

    def __init__(self, path: Path, warn: Callable[[str], object] = warnings.warn) -> None:
        self.path = path
        self._warn = warn
        self._warned = False
        self._waiting: list[dict[str, float]] = []
        self._file: io.FileIO | None = None
        columns, rows = _read_rows(path) if path.exists() else (list(FIRST), [])
        self._start(columns, rows)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a row; `step` is its time/total_timesteps."""
        self._waiting.append({**metrics, STEP: step})
        try:
            self._write_waiting()
            self._waiting.clear()
        except OSError as error:
            if not self._warned:
                self._warned = True
                problem = f"cannot write {self.path}: {_problem(error)}"
                self._warn(f"{problem}; training continues, its rows wait in memory")

    def truncate_after(self, total_timesteps: int) -> None:
        """Drop the rows after a checkpoint: the run that continues from it writes them again."""
        columns, rows = _read_rows(self.path)
        step = columns.index(STEP)
        self._start(columns, [row for row in rows if float(row[step]) <= total_timesteps])

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _start(self, columns: list[str], rows: list[list[str]]) -> None:
        try:
            self._replace(columns, rows)
        except OSError as error:
            raise CheckpointError(f"cannot write {self.path}: {_problem(error)}") from error

    def _write_waiting(self) -> None:
        new = list(dict.fromkeys(key for row in self._waiting for key in row if key not in self._columns))
        columns = self._columns + new
        rows = [[_cell(row.get(key)) for key in columns] for row in self._waiting]
        if new:
            earlier = [row + [""] * len(new) for row in _read_rows(self.path)[1]]
            self._replace(columns, earlier + rows)
        elif self._file is not None:
            _append(self._file, _to_csv(rows))

    def _replace(self, columns: list[str], rows: list[list[str]]) -> None:
        write_atomic(self.path, _to_csv([columns, *rows]))
        self.close()
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        self._columns = columns


def read(path: Path) -> dict[str, list[float]]:
    """The columns of a metrics.csv by name, missing numbers as NaN. Raises CheckpointError."""
    columns, rows = _read_rows(path)
    return {key: [float(row[i] or "nan") for row in rows] for i, key in enumerate(columns)}


class TensorBoardLog:
    """Scalars for TensorBoard in `folder`. Raises UsageError where TensorBoard is not installed.

    On resume, `purge_step` (the checkpoint's timesteps + 1) hides what was logged after the checkpoint.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError("TensorBoard is not installed: pip install 'pgrad[tensorboard]'") from error
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge_step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics at `step`."""
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Write what is still to be written."""
        self._writer.close()


class WandbLog:
    """Metrics for Weights & Biases, its files in `folder`. Raises UsageError where wandb is missing."""

    def __init__(self, folder: Path, project: str, name: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UsageError("Weights & Biases is not installed: pip install 'pgrad[wandb]'") from error
        folder.mkdir(parents=True, exist_ok=True)  # else wandb takes a temporary one
        self._run: Any = wandb.init(dir=str(folder), project=project, name=name, config=dict(config))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics at `step`."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the upload."""
        self._run.finish()


def _read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header and the rows; a last line without its end was cut off and does not count."""
    try:
        text = path.read_bytes().decode()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {reason(error)}") from error
    complete = text[: text.rfind("\n") + 1]
    columns, *rows = list(csv.reader(io.StringIO(complete))) or [list(FIRST)]
    if STEP not in columns or any(len(row) != len(columns) for row in rows):
        raise CheckpointError(f"{path} is not a metrics file of pgrad, or it is damaged")
    return columns, rows


def _to_csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _append(file: io.FileIO, data: bytes) -> None:
    """Append all of `data`, or nothing and raise OSError."""
    end = os.fstat(file.fileno()).st_size
    try:
        while data:
            data = data[file.write(data) :]
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(end)
        raise


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if type(value) is int else repr(float(value))


def _problem(error: OSError) -> str:
    return "disk full" if is_disk_full(error) else reason(error)
