"""The tasks by name."""

import inspect
from collections.abc import Callable
from typing import Any

from pgrad.errors import UsageError
from pgrad.extras import did_you_mean
from pgrad.worlds.language.arithmetic import addition, countdown, modular_addition
from pgrad.worlds.language.reasoning import PREFIX, reasoning_task
from pgrad.worlds.language.sequences import copy, parity, reverse, sort
from pgrad.worlds.language.task import Task

TASKS: dict[str, Callable[..., Task]] = {
    "parity": parity,
    "copy": copy,
    "reverse": reverse,
    "sort": sort,
    "addition": addition,
    "modular-addition": modular_addition,
    "countdown": countdown,
}
"""What makes a task, by its name; the arguments are its options, each with a default."""


def make_task(name: str, **options: Any) -> Task:
    """The task of this name, or "reasoning-gym:NAME", with options other than the defaults.

    Raises UsageError for another name, an option that the task does not have, or a value it does not take.
    """
    if name.startswith(PREFIX):
        return reasoning_task(name.removeprefix(PREFIX), **options)
    if name not in TASKS:
        raise UsageError(f"unknown task {name!r}{did_you_mean(name, [*TASKS, PREFIX + 'NAME'])}")
    allowed = inspect.signature(TASKS[name]).parameters
    for option in options:
        if option not in allowed:
            raise UsageError(f"{name} has no option {option!r}{did_you_mean(option, allowed)}")
    try:
        return TASKS[name](**options)
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{name} cannot take {options}: {error}") from error
