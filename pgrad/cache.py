"""Where machine code is kept between runs, and how much of it."""

import os
from contextlib import suppress
from pathlib import Path

KEPT = 400
"""Files in the folder; the ones that were not used for longest make room."""


def folder() -> Path:
    """PGRAD_CACHE, or a folder of the user's cache."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgrad"
    return Path(os.environ.get("PGRAD_CACHE") or usual)


def made() -> Path:
    """The folder, which is there afterwards. Raises OSError where it cannot be."""
    home = folder()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    return home


def used(path: Path) -> None:
    """Note that a file was used now."""
    with suppress(OSError):  # in a folder that may only be read
        os.utime(path)


def make_room() -> None:
    """Remove what is more than `KEPT`."""
    ages = {}
    for path in [path for kind in ("pt2", "so") for path in folder().glob(f"*.{kind}")]:
        with suppress(OSError):  # another process makes room too, or may not
            ages[path] = path.stat().st_mtime
    for path in sorted(ages, key=lambda path: ages[path], reverse=True)[KEPT:]:
        with suppress(OSError):
            path.unlink()
