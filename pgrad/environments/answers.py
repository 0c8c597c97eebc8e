"""What is wrong with what an environment answered, in words."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import Space

from pgrad.environments.create import error_line
from pgrad.environments.spaces import Array, MismatchError, describe, space_leaves

RESET = "reset must return (observation, info)"
NOTHING: Any = object()
"""The answer of a call that raised instead."""
STEP = "step must return (observation, reward, terminated, truncated, info)"


def require_flags(terminated: Any, truncated: Any) -> None:
    """Raise MismatchError unless both say yes or no."""
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool | np.bool_ | int | np.integer):
            raise MismatchError(f"{name} is {describe(flag)}, a {type(flag).__name__}, not a bool")


def reset_problem(answer: Any, error: Exception) -> str:
    """Why `reset` failed: `answer` is what it returned, NOTHING if it raised `error`."""
    if isinstance(error, MismatchError):
        return f"on reset, {error}"
    if answer is NOTHING:
        hint = "; it must take the arguments seed and options" if "unexpected keyword" in str(error) else ""
        return f"reset raised {error_line(error)}{hint}"
    return bad_reset(answer)


def bad_reset(answer: Any) -> str:
    """What `reset` must return, and what it did."""
    if isinstance(answer, tuple) and len(answer) == 2 and not isinstance(answer[1], dict):
        return f"{RESET}, info is {describe(answer[1])}"
    old = "" if answer is None or isinstance(answer, tuple) else ", an observation alone: the old Gym API?"
    return f"{RESET}, it returned {answered(answer)}{old}"


def step_problem(answer: Any, error: Exception) -> str:
    """Why `step` failed: `answer` is what it returned, NOTHING if it raised `error`."""
    if isinstance(error, MismatchError):
        return str(error)
    if answer is NOTHING:
        old = "to unpack (expected 5, got 4)" in str(error)  # met first by one of Gymnasium's wrappers
        return f"step raised {error_line(error)}" + (f": the old Gym API? {STEP}" if old else "")
    if not isinstance(answer, tuple) or len(answer) != 5:
        return f"{STEP}, it returned {answered(answer)}"
    return error_line(error)


def nonfinite(space: Space[Any], obs: Sequence[Array], reward: Array) -> tuple[int, str] | None:
    """The first environment whose observation or reward is NaN or infinite, and what it is."""
    floats = [leaf for leaf in (reward, *obs) if leaf.dtype.kind == "f"]
    if all(math.isfinite(np.vdot(leaf, leaf)) for leaf in floats):  # the quickest look, right where it is yes
        return None
    paths = [path for path, _ in space_leaves(space, "observation")]
    for path, leaf in zip(("reward", *paths), (reward, *obs), strict=True):
        wrong = np.argwhere(~np.isfinite(leaf))
        if len(wrong):
            i, *place = wrong[0].tolist()
            return i, f"{path}{place or ''} is {leaf[tuple(wrong[0])]}"
    return None


def answered(answer: Any) -> str:
    """What a call returned, in a few words."""
    if not isinstance(answer, tuple):
        return describe(answer)
    old = ": the old Gym API?" if len(answer) == 4 else ""
    return f"{len(answer)} values ({', '.join(type(part).__name__ for part in answer)}){old}"
