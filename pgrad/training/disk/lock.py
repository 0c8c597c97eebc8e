"""A lock file that says who holds it, and that a crash cannot leave behind for ever."""

import contextlib
import datetime
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgrad.errors import CheckpointError
from pgrad.training.disk.files import is_disk_full, reason

try:
    import fcntl
except ImportError:  # Windows: the process id in the file has to do
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds. `note` says from whom it was taken over, or is empty."""

    path: Path
    descriptor: int
    pid: int
    note: str = ""

    def release(self) -> None:
        """Remove the lock file; in a child process that inherited the lock, do nothing."""
        if os.getpid() == self.pid:
            with contextlib.suppress(OSError):
                self.path.unlink()
            with contextlib.suppress(OSError):
                os.close(self.descriptor)


def acquire(path: Path) -> Lock:
    """Take the lock `path` for this process, or raise CheckpointError that says who has it.

    The kernel's lock on the file decides: it ends with its process, and holds between containers. Where a
    file system has none, and for other hosts, the process id in the file does. What a dead process left
    is taken over.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise CheckpointError(f"cannot lock {path.parent}: {reason(error)}") from error
        try:
            free = _lock_in_kernel(descriptor)
            if free and not _same_file(descriptor, path):  # its owner released it after it was opened here
                os.close(descriptor)
                continue
            owner = _read(descriptor, path)
            if not free or (owner is not None and _alive(owner)):
                raise CheckpointError(_in_use(path, owner))
            _write(descriptor)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                problem = "disk full" if is_disk_full(error) else reason(error)
                raise CheckpointError(f"cannot lock {path.parent}: {problem}") from error
            raise
        note = (
            ""
            if owner is None
            else "took over the lock of pid {pid} of {since}, which is not running any more"
        )
        return Lock(path, descriptor, os.getpid(), note.format(**owner or {}))


def _lock_in_kernel(descriptor: int) -> bool:
    """False if another process, or this one through another descriptor, has the file locked."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
    return True


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _read(descriptor: int, path: Path) -> dict[str, Any] | None:
    """Who holds the lock according to the file; None if it is empty."""
    text = os.pread(descriptor, 4096, 0)
    if not text:
        return None
    try:
        owner = json.loads(text)
        return {"pid": int(owner["pid"])} | {key: owner[key] for key in ("host", "since", "born")}
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not a lock of pgrad: delete it if no run uses {path.parent}"
        ) from error


def _write(descriptor: int) -> None:
    since = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "born": _born(os.getpid())}
    os.ftruncate(descriptor, 0)
    try:
        os.pwrite(descriptor, (json.dumps(owner) + "\n").encode(), 0)
        os.fsync(descriptor)
    except BaseException:
        os.ftruncate(descriptor, 0)  # an empty file has no owner
        raise


def _alive(owner: dict[str, Any]) -> bool:
    """Whether the process that wrote the file still runs, as far as this one can tell (if not: yes)."""
    if owner["host"] != socket.gethostname() or os.name == "nt":
        return True
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    born = _born(owner["pid"])
    return born is None or owner["born"] is None or born == owner["born"]


def _born(pid: int) -> str | None:
    """What tells a process from a later one of the same pid (Linux: its start, in ticks); None if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "dead" if fields[0] in "ZX" else fields[19]  # proc(5): state and starttime are fields 3 and 22


def _in_use(path: Path, owner: dict[str, Any] | None) -> str:
    if owner is None:
        return f"{path.parent} is in use by another process"
    message = f"{path.parent} is in use by pid {owner['pid']} on {owner['host']} since {owner['since']}"
    if owner["host"] != socket.gethostname():
        message += f" (if that run has died, delete {path})"
    return message
