"""Packages of the extra pgrad[language], imported when they are first needed."""

import importlib
from typing import Any

from pgrad.errors import UsageError


def extra(name: str) -> Any:
    """The package `name`. Raises UsageError that says how to install it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != name.split(".")[0]:
            raise
        raise UsageError(f"{name.split('.')[0]} is not installed: pip install 'pgrad[language]'") from error
