"""Packages that only some of pgrad needs, imported when they are used and missed in one line; near names."""

import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from pgrad.errors import UsageError

BEGINNING = 3
"""Letters that are enough to be the beginning of a name."""


def extra(module: str, name: str = "language") -> Any:
    """The module, imported now. Raises UsageError that says how to install it, as a part of pgrad[`name`]."""
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        missing = package.replace("_", "-")
        raise UsageError(f"{missing} is not installed: pip install 'pgrad[{name}]'") from error


def nearest(name: str, allowed: Iterable[str], n: int = 1, *, before: str = "") -> str:
    """'did you mean X?' where one of `allowed` is near to `name`, else ''; each is written after `before`.

    Up to `n` of them, as 'X or Y'; where none is alike, the shortest that begin with `name`. Case does not
    count, nor which of "-" and "_" it is.
    """
    alike = {one.lower().replace("_", "-"): one for one in allowed}
    plain = name.lower().replace("_", "-")
    near = difflib.get_close_matches(plain, alike, n=n, cutoff=0.65)
    if not near and len(plain) >= BEGINNING:
        near = sorted((one for one in alike if one.startswith(plain)), key=len)[:n]
    return f"did you mean {' or '.join(before + alike[one] for one in near)}?" if near else ""


def did_you_mean(name: str, allowed: Iterable[str], more: str = "") -> str:
    """The end of a message: ': ' and what `nearest` says, if anything, then `more`, or else all there are."""
    names = list(allowed)
    near = nearest(name, names)
    return (f": {near}" if near else "") + f" ({more or 'there are: ' + (', '.join(names) or 'none')})"
