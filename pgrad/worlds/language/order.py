"""In which order prompts come: lists that are shuffled again and again, and tasks without end."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from pgrad.errors import WorldError
from pgrad.worlds.language.prompts import Prompt, Prompts
from pgrad.worlds.language.task import Instance, Task

TASK_COLUMNS = ("answer", "solution", "size", "metadata")


class Shuffled:
    """All prompts in a random order, then all in another one.

    The order of epoch e is a function of (seed, e) alone, so epoch and cursor are the whole state.
    """

    def __init__(self, prompts: Prompts, seed: int) -> None:
        self.rows = prompts.rows
        self._prompts, self._seed = prompts, seed
        self._epoch, self._cursor = 0, 0
        self._order = self._shuffle()

    def next(self, n: int) -> list[Prompt]:
        """The next n prompts."""
        found = []
        for _ in range(n):
            if self._cursor == len(self._order):
                self._epoch, self._cursor = self._epoch + 1, 0
                self._order = self._shuffle()
            found.append(self.rows[self._order[self._cursor]])
            self._cursor += 1
        return found

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "prompts": self._prompts.fingerprint,
            "seed": self._seed,
            "epoch": self._epoch,
            "cursor": self._cursor,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there. Raises WorldError where it is of other prompts."""
        _same(state, self._prompts.fingerprint)
        self._seed, self._epoch, self._cursor = (int(state[key]) for key in ("seed", "epoch", "cursor"))
        self._order = self._shuffle()

    def _shuffle(self) -> list[int]:
        seed = int(np.random.SeedSequence((self._seed, self._epoch)).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(self.rows), generator=generator).tolist()


class Endless:
    """The problems of a task, one after the other: number i is a function of (seed, i) alone."""

    rows: tuple[Prompt, ...] = ()  # there is no end of them

    def __init__(self, task: Task, seed: int) -> None:
        self._task, self._seed, self._cursor = task, seed, 0
        self._fingerprint = _fingerprint(task)

    def next(self, n: int) -> list[Prompt]:
        """The next n problems."""
        numbers = range(self._cursor, self._cursor + n)
        self._cursor += n
        return [posed(self._task.instance("train", self._seed, number), number) for number in numbers]

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"prompts": self._fingerprint, "seed": self._seed, "cursor": self._cursor}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there. Raises WorldError where it is of another task, or one with other options."""
        _same(state, self._fingerprint)
        self._seed, self._cursor = int(state["seed"]), int(state["cursor"])


def posed(instance: Instance, number: int) -> Prompt:
    """A problem as a prompt, with the columns that its verifier needs."""
    columns = {name: getattr(instance, name) for name in TASK_COLUMNS}
    return Prompt(instance.prompt, number, columns)


def verifier(task: Task) -> Callable[..., list[float]]:
    """The task's own reward function: 1 for a right answer, else 0."""

    def verify(completions: list[Any], prompts: list[Any], **columns: list[Any]) -> list[float]:
        rewards = []
        rows = zip(completions, prompts, *(columns[name] for name in TASK_COLUMNS), strict=True)
        for completion, prompt, answer, solution, size, metadata in rows:
            asked = Instance(prompt, answer, solution, size, "", metadata)
            rewards.append(task.verify(completion, asked))
        return rewards

    verify.__name__ = task.name
    return verify


def _fingerprint(task: Task) -> str:
    drawn = [(one.prompt, one.solution) for one in task.instances("train", 16, 0)]
    return hashlib.sha256(repr((task.name, task.sizes, drawn)).encode()).hexdigest()


def _same(state: Mapping[str, Any], own: str) -> None:
    if state.get("prompts") != own:
        raise WorldError("this state is of other prompts, or of a task with other options")
