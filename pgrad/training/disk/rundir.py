"""A run directory: everything one run writes, in one folder that no other run writes into."""

import contextlib
import json
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pgrad.errors import CheckpointError, PgradError, UsageError
from pgrad.extras import nearest
from pgrad.training.disk.checkpoint import checkpoints
from pgrad.training.disk.files import is_disk_full, reason, write_atomic
from pgrad.training.disk.lock import Lock, acquire

FORMAT, VERSION = "pgrad run", 1
CONFIG = "config.json"
FILES = ("command.txt", "versions.json", "metrics.csv", "completions.jsonl")
SHOWN = 5  # runs that are named where a folder of runs is no run
FOLDERS = ("checkpoints", "best", "videos", "plots", "tensorboard", "wandb")


@dataclass(frozen=True)
class RunDir:
    """The folder of one run. In a `with` statement, the end releases its lock.

    It holds config.json (the resolved configuration), command.txt, versions.json, metrics.csv, checkpoints/,
    best/, videos/, plots/, of a language model completions.jsonl, and `lock` while a process trains in it.
    """

    path: Path
    lock: Lock | None = None

    @classmethod
    def create(cls, path: Path, overwrite: bool = False) -> Self:
        """Make a run directory and lock it. `overwrite` removes what an earlier run wrote there, no more.

        A run that ended before there was anything to keep makes room for another without that. Raises
        UsageError where the folder already holds a run or something else, CheckpointError if it is in use.
        """
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            _require_ours(path)
            run = cls(path, acquire(path / "lock"))
            try:
                if not (overwrite or run.is_empty):
                    first = "resume it" if run.has_checkpoint else "it ended before its first checkpoint"
                    raise UsageError(
                        f"{path} already holds a run: {first}, choose another run directory, or delete it "
                        "with overwrite=True (--overwrite)"
                    )
                run._lay_out()
            except BaseException:
                run.release()
                raise
        except OSError as error:
            raise UsageError(f"cannot create the run directory {path}: {_problem(error)}") from error
        return run

    @classmethod
    def default(cls, base: Path, name: str) -> Self:
        """Make and lock `base/name`, or `base/name-2`, `base/name-3`, ... where that exists.

        Characters that do not belong into a file's name become "-": "ALE/Pong-v5-seed1" is one folder.
        """
        name = folder_name(name)
        number = 1
        while True:
            path = Path(base) / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                number += 1
            except OSError as error:
                raise UsageError(f"cannot create the run directory {path}: {_problem(error)}") from error
            else:
                return cls.create(path)

    @classmethod
    def open(cls, path: Path, *, locked: bool = True) -> Self:
        """An existing run directory; locked to continue the run, not locked to read it.

        Raises CheckpointError where it is missing, foreign, damaged or in use.
        """
        run = cls(Path(path))
        run.config()
        return cls(run.path, acquire(run.path / "lock")) if locked else run

    @property
    def note(self) -> str:
        """What to tell about how the directory was opened (a dead process's lock was taken over), or ""."""
        return self.lock.note if self.lock else ""

    @property
    def checkpoints(self) -> Path:
        """The folder for `save_checkpoint`, the latest few."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The folder for `save_checkpoint(..., keep=1)` of the best agent so far."""
        return self.path / "best"

    @property
    def videos(self) -> Path:
        """The folder for videos."""
        return self.path / "videos"

    @property
    def plots(self) -> Path:
        """The folder for plots."""
        return self.path / "plots"

    @property
    def tensorboard(self) -> Path:
        """The folder for TensorBoard's files, made when asked for."""
        return self.path / "tensorboard"

    @property
    def metrics(self) -> Path:
        """The file for `MetricsLog`."""
        return self.path / "metrics.csv"

    @property
    def completions(self) -> Path:
        """The file for `SampleLog`."""
        return self.path / "completions.jsonl"

    def config(self) -> dict[str, Any]:
        """The configuration that `write_config` wrote. Raises CheckpointError."""
        file = self.path / CONFIG
        try:
            content = json.loads(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CheckpointError(_no_run(self.path)) from error
        except OSError as error:
            raise CheckpointError(f"cannot read {file}: {reason(error)}") from error
        except ValueError as error:
            raise CheckpointError(f"{file} is damaged: it is not JSON") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise CheckpointError(
                f"{self.path} is not a pgrad run directory: its {CONFIG} is of another format"
            )
        if content.get("version") != VERSION:
            versions = f"format version {content.get('version')}, this one reads version {VERSION}"
            raise CheckpointError(
                f"{self.path} was written by a newer pgrad ({versions}): upgrade pgrad to read it"
            )
        config: dict[str, Any] = content["config"]
        return config

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the resolved configuration: JSON values (tuples become lists), keys sorted."""
        _write_json(self.path / CONFIG, {"format": FORMAT, "version": VERSION, "config": config})

    def write_versions(self, versions: Mapping[str, str | None]) -> None:
        """Write what the run is made with, from `versions()`."""
        _write_json(self.path / "versions.json", versions)

    def add_command(self, arguments: Sequence[str]) -> None:
        """Add the command that started or continued the run to command.txt, quoted for a shell."""
        try:
            with open(self.path / "command.txt", "a", encoding="utf-8") as file:
                file.write(shlex.join(arguments) + "\n")
        except OSError as error:
            raise CheckpointError(f"cannot write {self.path / 'command.txt'}: {_problem(error)}") from error

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a state to go on from or to load."""
        return bool(checkpoints(self.checkpoints) or checkpoints(self.best))

    @property
    def is_empty(self) -> bool:
        """Whether nothing came of the run, or there is none: no checkpoint, and no row of metrics."""
        rows = self.metrics.is_file() and self.metrics.read_bytes().count(b"\n") > 1
        return not (rows or self.has_checkpoint)

    def release(self) -> None:
        """Let other processes use the directory."""
        if self.lock:
            self.lock.release()

    def discard(self) -> None:
        """Remove what the run wrote, if nothing came of it."""
        with contextlib.suppress(OSError):  # what cannot be removed stays
            if self.is_empty:
                self._clear()
                (self.path / CONFIG).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def _lay_out(self) -> None:
        """Begin with empty folders, and with config.json: by that file a folder is known as a run's."""
        self._clear()
        self.write_config({})
        for folder in (self.checkpoints, self.best, self.videos, self.plots):
            folder.mkdir()

    def _clear(self) -> None:
        """Remove what an earlier run left, config.json aside."""
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)
        for name in FOLDERS:
            folder = self.path / name
            if folder.is_symlink():
                folder.unlink()  # and leave alone what it points to
            elif folder.exists():
                shutil.rmtree(folder)


def folder_name(name: str) -> str:
    """The name with "-" for characters that do not belong into a file's name."""
    return re.sub(r"[^\w.+=-]+", "-", name)


def _require_ours(path: Path) -> None:
    """Raise UsageError unless the folder is empty (a lock aside) or a run directory."""
    if any(entry.name != "lock" for entry in path.iterdir()):
        try:
            RunDir(path).config()
        except PgradError as error:
            raise UsageError(
                f"{path} is not empty and not a pgrad run directory: choose another one (nothing was deleted)"
            ) from error


def _no_run(path: Path) -> str:
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
        near = nearest(path.name, siblings, before=f"{path.parent}/")
        return f"there is no run at {path}" + (f": {near}" if near else "")
    run = path.parent.parent
    if path.parent.name in ("checkpoints", "best") and (run / CONFIG).is_file():
        return f"{path} is a checkpoint, not a run: give the run, {run}, and --checkpoint {path.name}"
    return f"{path} is not a pgrad run directory: it has no {CONFIG}{_runs_in(path)}"


def _runs_in(path: Path) -> str:
    """The runs in a folder and in the folders in it, to be said behind why it is none itself."""
    inside = []
    for file in sorted([*path.glob(f"*/{CONFIG}"), *path.glob(f"*/*/{CONFIG}")]):
        with contextlib.suppress(PgradError):
            RunDir(file.parent).config()
            inside.append(str(file.parent))
    if not inside:
        return ""
    more = f" and {len(inside) - SHOWN} more" if len(inside) > SHOWN else ""
    return f"; the runs in it: {', '.join(inside[:SHOWN])}{more}"


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    try:
        write_atomic(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {_problem(error)}") from error


def _problem(error: OSError) -> str:
    return "disk full" if is_disk_full(error) else reason(error)
