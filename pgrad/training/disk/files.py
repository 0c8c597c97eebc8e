"""Files written so that a crash, a power cut or a full disk leaves the old content or the new, never half."""

import errno
import os
from pathlib import Path

from pgrad.errors import UsageError


def write_atomic(path: Path, data: bytes) -> None:
    """Replace the content of `path` in one step: written beside it, forced to the disk, renamed into place.

    Raises OSError; `path` then keeps its old content.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    force_to_disk(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, unless it is there. Raises UsageError where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot create the folder {path}: {reason(error)}") from error


def force_to_disk(path: Path) -> None:
    """Force a file, or the names in a folder, out of the operating system's cache."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that the disk, or the user's share of it, is full.

    safetensors raises its own error type, which only says so in its text.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(f"(os error {code})" in str(error) for code in (errno.ENOSPC, errno.EDQUOT))


def reason(error: BaseException) -> str:
    """An operating system's error in words, without the number and the path that the message names anyway."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def size(n_bytes: float) -> str:
    """A number of bytes for people: '12 MB', '3.4 kB'."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} {unit}" if n_bytes >= 10 or unit == "bytes" else f"{n_bytes:.1f} {unit}"
