"""What all pictures share: colours and lines that everybody can tell apart, and how a picture is written."""

from pathlib import Path
from typing import Any

from pgrad.errors import UsageError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito's palette, told apart by every kind of colour vision."""

DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
"""Lines told apart without any colour."""

UNDATED: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}
"""What makes the bytes the same every time, by suffix."""


def save(figure: Any, path: Path) -> Path:
    """Write a picture, the same bytes every time; its kind is that of its suffix. Raises UsageError."""
    kinds = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix[1:].lower() not in kinds:
        raise UsageError(f"cannot draw a picture named {path}: end it with one of .{', .'.join(kinds)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata=UNDATED.get(path.suffix.lower()))
    except OSError as error:
        raise UsageError(f"cannot write the picture {path}: {error.strerror or error}") from error
    return path
