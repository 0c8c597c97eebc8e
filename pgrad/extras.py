"""Packages that only some of pgrad needs, imported when they are used and missed in one line; near names."""

import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from pgrad.errors import UsageError


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

    Up to `n` of them, as 'X or Y'. Case does not count, nor which of "-" and "_" it is.
    """
    alike = {one.lower().replace("_", "-"): one for one in allowed}
    near = difflib.get_close_matches(name.lower().replace("_", "-"), alike, n=n, cutoff=0.65)
    return f"did you mean {' or '.join(before + alike[one] for one in near)}?" if near else ""


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """What `nearest` says, then all that there are."""
    names = list(allowed)
    return f"{nearest(name, names)} (there are: {', '.join(names) or 'none'})".lstrip()
