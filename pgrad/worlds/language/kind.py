"""Telling prompts from environments."""

from pathlib import Path
from typing import Any

from pgrad.worlds.language.files import READERS
from pgrad.worlds.language.reasoning import PREFIX
from pgrad.worlds.language.task import Task
from pgrad.worlds.language.tasks import TASKS


def is_language(world: Any) -> bool:
    """Whether prompts are meant: a task or its name, a file of prompts, a list, a data set."""
    if isinstance(world, Path):
        return True
    if isinstance(world, str):
        return names_task(world) or Path(world).suffix in READERS
    return isinstance(world, Task | list) or type(world).__module__.partition(".")[0] == "datasets"


def names_task(world: Any) -> bool:
    """Whether it is the name of a task."""
    return isinstance(world, str) and (world in TASKS or world.startswith(PREFIX))
