"""Reward functions by what is written on the command line."""

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from pgrad.errors import UsageError
from pgrad.extras import did_you_mean
from pgrad.worlds.language.builtin import BUILTIN
from pgrad.worlds.language.isolated import TIMEOUT
from pgrad.worlds.language.rewards import Reward


def load_reward(spec: str, max_completion_length: int = 1, timeout: float = TIMEOUT) -> Reward:
    """ "file.py:function", the user's own code, which runs; or one of ours: "exact-match", "math",
    "math:COLUMN",
    "regex:PATTERN", "length:CACHE" (of the last `max_completion_length` tokens). After `timeout` seconds the
    process of one that has one is stopped.

    The file finds what lies beside it, as a script does. Raises UsageError for a missing file, one that
    cannot be imported (with the line), no such function (with the nearest), and another name.
    """
    path, name = split_reward(spec)
    if not path:
        builtin, _, argument = spec.partition(":")
        if builtin not in BUILTIN:
            allowed = [*BUILTIN, "FILE.py:FUNCTION"]
            raise UsageError(f"unknown reward {spec!r}{did_you_mean(builtin, allowed)}")
        return BUILTIN[builtin](argument, max_completion_length, timeout)
    module = _module(Path(path).expanduser())
    functions = [key for key, value in vars(module).items() if _is_own(value, module)]
    if not name:
        there = ", ".join(functions) or "none"
        raise UsageError(f"which function of {path}? write {path}:NAME (there are: {there})")
    function = getattr(module, name, None)
    if function is None:
        raise UsageError(f"{path} has no function {name!r}{did_you_mean(name, functions)}")
    if not callable(function):
        raise UsageError(f"{name} of {path} is a {type(function).__name__}, not a function")
    return function


def split_reward(spec: str) -> tuple[str, str]:
    """The file and the function that a spec names; of one of ours no file."""
    path, colon, name = spec.rpartition(":")
    if not colon and spec.endswith(".py"):
        path, name = spec, ""
    return (path, name) if path.endswith(".py") else ("", spec)


def _module(path: Path) -> ModuleType:
    if not path.is_file():
        beside = [other.name for other in sorted(path.parent.glob("*.py"))]
        raise UsageError(f"there is no file {path}{did_you_mean(path.name, beside)}")
    name = f"pgrad_reward_{path.stem}"
    file = str(path.resolve())
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    folder = str(Path(file).parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that nothing there hides what is installed
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == file]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else "?")
        raise UsageError(
            f"{path}, line {line}, cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return module


def _is_own(value: Any, module: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", "") == module.__name__
