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


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """'did you mean X? ' where one of `allowed` is near to `name`, else ''; then all that there are."""
    names = list(allowed)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}(there are: {', '.join(names) or 'none'})"
