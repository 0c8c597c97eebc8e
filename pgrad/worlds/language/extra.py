"""What this folder needs and pgrad does not: asked for when it is used, and missed in one line."""

import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from pgrad.errors import UsageError


def extra(module: str) -> Any:
    """The module, imported now. Raises UsageError that says how to install it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise UsageError(f"{package} is not installed: pip install 'pgrad[language]' ({error})") from None


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """'did you mean X? ' where one of `allowed` is near to `name`, else ''; then all that there are."""
    names = list(allowed)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}(there are: {', '.join(names) or 'none'})"
