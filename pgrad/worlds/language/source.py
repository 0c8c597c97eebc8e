"""Where prompts come from, whatever names them."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pgrad.errors import UsageError
from pgrad.extras import did_you_mean
from pgrad.worlds.language.files import READERS
from pgrad.worlds.language.order import TASK_COLUMNS, Endless, Shuffled, posed, verifier
from pgrad.worlds.language.prompts import Prompt, Prompts, load_prompts
from pgrad.worlds.language.reasoning import PREFIX
from pgrad.worlds.language.task import Task
from pgrad.worlds.language.tasks import TASKS, make_task

_ASIDE = 0  # the seed of what is set aside: the same rows in every run, so that runs can be compared
_ENOUGH = 256  # problems of a task that an evaluation takes if nobody says


@dataclass(frozen=True)
class Source:
    """Prompts to train on and others to evaluate on."""

    name: str
    order: Shuffled | Endless
    rows: tuple[Prompt, ...]  # those of `order`, then those to evaluate on; none of an endless task
    held_out: Callable[[int, str], list[Prompt]]  # (n, split)
    columns: tuple[str, ...]
    conversational: bool
    alphabet: str  # every character of a prompt and of a demonstration
    longest: int  # characters of the longest solution; 0 where nobody knows
    verifier: Callable[..., list[float]] | None


def with_options(source: Any, options: Mapping[str, Any]) -> Task:
    """The task of this name, with these options. Raises UsageError where it is not the name of a task."""
    if not isinstance(source, str) or not _names_task(source):
        raise UsageError(f"options are for tasks that are given by name: leave out {', '.join(options)}")
    return make_task(source, **options)


def find_source(source: Any, *, seed: int, column: str, held_out: Any, n_prompts: int) -> Source:
    """The source that is meant: see `LanguageWorld`. Raises UsageError."""
    if isinstance(source, str) and _names_task(source):
        source = make_task(source)
    if isinstance(source, Task):
        if not isinstance(held_out, int) or held_out:
            raise UsageError(f"{source.name} has its own held-out problems: leave out held_out")
        return _of_task(source, seed, n_prompts)
    if n_prompts:
        raise UsageError("n_prompts is for tasks: prompts from elsewhere are as many as there are")
    prompts = load_prompts(source, column)
    aside: tuple[Prompt, ...] = ()
    if not isinstance(held_out, int):
        others = load_prompts(held_out, column)
        if others.conversational != prompts.conversational:
            raise UsageError("held-out prompts must be conversations or texts as the others are")
        aside = others.rows
        if missing := [name for name in prompts.columns if name not in others.columns]:
            raise UsageError(f"held-out prompts have no column {missing[0]!r}")
    elif held_out:
        prompts, aside = _split(prompts, held_out)
    rows = (*prompts.rows, *aside)

    def evaluate(n: int, split: str) -> list[Prompt]:
        if split == "train":
            return list(prompts.rows[:n] if n else prompts.rows)
        if split != "held_out":
            raise UsageError(f"prompts have two splits to evaluate on, held_out and train, got {split!r}")
        if not aside:
            raise UsageError(
                "no prompts were set aside to evaluate on: give held_out (--held-out-prompts N), or ask "
                "those trained on (--split train)"
            )
        if n > len(aside):
            raise UsageError(f"{len(aside)} prompts were set aside to evaluate on, not {n}")
        return list(aside[:n] if n else aside)

    return Source(
        name=Path(source).name if isinstance(source, str | Path) else "prompts",
        order=Shuffled(prompts, seed),
        rows=rows,
        held_out=evaluate,
        columns=prompts.columns,
        conversational=prompts.conversational,
        alphabet=_alphabet(rows),
        longest=0,
        verifier=None,
    )


def _names_task(name: str) -> bool:
    if name in TASKS or name.startswith(PREFIX):
        return True
    if Path(name).suffix in READERS or Path(name).expanduser().exists():
        return False
    allowed = [*TASKS, PREFIX + "NAME", *(f"FILE{suffix}" for suffix in READERS)]
    raise UsageError(f"{name!r} is no task and no file of prompts{did_you_mean(name, allowed)}")


def _of_task(task: Task, seed: int, n_prompts: int) -> Source:
    order: Shuffled | Endless = Endless(task, seed)
    rows: tuple[Prompt, ...] = ()
    if n_prompts:
        drawn = task.instances("train", n_prompts, _ASIDE)
        rows = tuple(posed(one, number) for number, one in enumerate(drawn))
        order = Shuffled(Prompts(rows, TASK_COLUMNS, conversational=False), seed)

    def evaluate(n: int, split: str) -> list[Prompt]:
        drawn = task.instances(split, n or _ENOUGH, _ASIDE)
        return [posed(one, number) for number, one in enumerate(drawn)]

    return Source(
        name=task.name,
        order=order,
        rows=rows,
        held_out=evaluate,
        columns=TASK_COLUMNS,
        conversational=False,
        alphabet=task.alphabet,
        longest=task.longest,
        verifier=verifier(task),
    )


def _split(prompts: Prompts, n: int) -> tuple[Prompts, tuple[Prompt, ...]]:
    if not 0 < n < len(prompts.rows):
        raise UsageError(f"held_out must leave some of the {len(prompts.rows)} prompts to train on, got {n}")
    order = torch.randperm(len(prompts.rows), generator=torch.Generator().manual_seed(_ASIDE)).tolist()
    chosen = set(order[:n])
    rows = tuple(row for row in prompts.rows if row.index not in chosen)
    aside = tuple(row for row in prompts.rows if row.index in chosen)
    return dataclasses.replace(prompts, rows=rows), aside


def _alphabet(rows: tuple[Prompt, ...]) -> str:
    characters: set[str] = set()
    for row in rows:
        said = [row.content] if isinstance(row.content, str) else [one["content"] for one in row.content]
        texts = [*said, *(row.columns.get(name) for name in ("solution", "completion", "answer"))]
        characters.update(*(text for text in texts if isinstance(text, str)))
    return "".join(sorted(characters))
