"""Prompts from wherever they are kept: lists, files, data sets."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pgrad.errors import UsageError
from pgrad.extras import nearest
from pgrad.worlds.language.files import read_rows

Content = str | list[dict[str, str]]
"""A text, or a conversation: messages of {"role": …, "content": …}."""

_MEANT = ("question", "problem", "input", "instruction", "query", "text", "messages", "conversations")
MESSAGES = "messages"
"""The column of whole conversations, the last answer among them."""

_TAKEN = ("prompts", "completions", "completion_ids")  # what rewards are called with


@dataclass(frozen=True)
class Prompt:
    """One thing to answer. Which one it is, its `index` says, never its content."""

    content: Content
    index: int
    columns: Mapping[str, Any] = field(default_factory=dict)  # what rewards are given besides


@dataclass(frozen=True)
class Prompts:
    """Prompts with the same columns, all texts or all conversations."""

    rows: tuple[Prompt, ...]
    columns: tuple[str, ...]
    conversational: bool

    @cached_property  # asked before every round
    def fingerprint(self) -> str:
        """A hash of the contents and their order: the same where an order of rows means the same."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(json.dumps(row.content).encode() + b"\n")
        return digest.hexdigest()


def load_prompts(source: Any, column: str = "prompt") -> Prompts:
    """Read prompts.

    source: a list of texts, of conversations (lists of {"role", "content"}) or of dicts with a column
        `column`; the path of a .jsonl, .json, .csv or .parquet file of such rows; or a `datasets.Dataset`.
        The other columns go to the rewards; where a row lacks one that others have, it is None there. Rows
        with `messages` in its place are conversations, whose last answer becomes the column `completion`.

    Raises UsageError that names the file, the row (the first is 0) and what is wrong with it: no such column,
    a prompt that is empty, missing or NaN, a conversation that ends with the assistant, texts among
    conversations.
    """
    rows = _rows(source)
    try:
        return _prompts(rows, column)
    except UsageError as error:
        if isinstance(source, str | Path):
            raise UsageError(f"{source}: {error}") from None
        raise


def _prompts(rows: list[Any], column: str) -> Prompts:
    """The prompts in the rows of a source."""
    if not rows:
        raise UsageError("there are no prompts")
    if not isinstance(rows[0], dict):
        rows = [{column: row} for row in rows]
    if column not in rows[0] and MESSAGES in rows[0]:
        rows = [_answered(row, column) for row in rows]
    names: dict[str, None] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UsageError(f"row {number} is a {type(row).__name__}, the first row has columns")
        if column not in row:
            raise UsageError(_missing(column, row, number))
        names.update(dict.fromkeys(map(str, row)))
    del names[column]
    if taken := [name for name in names if name in _TAKEN]:
        raise UsageError(f"a column cannot be called {taken[0]!r}: rewards are given the {taken[0]} under it")
    conversational = not isinstance(rows[0][column], str)
    found = []
    for number, row in enumerate(rows):
        content = _content(row[column], number)
        if isinstance(content, str) == conversational:
            raise UsageError(f"row {number} is a {_kind(content)} and row 0 is not: all must be of one kind")
        found.append(Prompt(content, number, {name: row.get(name) for name in names}))
    return Prompts(tuple(found), tuple(names), conversational)


def _rows(source: Any) -> list[Any]:
    if isinstance(source, str | Path):
        return read_rows(Path(source).expanduser())
    if isinstance(source, Mapping):
        parts = ", ".join(map(str, source))
        raise UsageError(f"got several sets of prompts, or one of columns: choose one of {parts}")
    if hasattr(source, "column_names") and not hasattr(source, "__len__"):
        raise UsageError("a streamed data set has no length: give a datasets.Dataset, or a list of its rows")
    if not isinstance(source, Sequence) and not hasattr(source, "column_names"):
        raise UsageError(
            f"prompts are a list, the path of a file or a datasets.Dataset, got a {type(source).__name__}"
        )
    return list(source)


def _answered(row: Any, column: str) -> Any:
    """A row of messages as one with a prompt, and a completion if the assistant speaks last."""
    said = row.get(MESSAGES) if isinstance(row, dict) else None
    if not isinstance(said, list | tuple) or not said:
        return row
    rest = {name: x for name, x in row.items() if name != MESSAGES}
    if not (isinstance(said[-1], Mapping) and said[-1].get("role") == "assistant"):
        return {**rest, column: said}
    return {**rest, column: said[:-1], "completion": said[-1].get("content")}


def _missing(column: str, row: Mapping[str, Any], number: int) -> str:
    names = [str(name) for name in row]
    if {"role", "content"} <= set(names):
        return f"row {number} is a message: give a list of conversations, each a list of messages"
    likely = [name for name in names if name.lower() in _MEANT]
    near = nearest(column, names) or (nearest(likely[0], likely) if likely else "")
    hint = f": {near}" if near else ""
    there = f"(there are: {', '.join(names) or 'none'})"
    return f"row {number} has no column {column!r}{hint} {there}; choose one with column (--column NAME)"


def _content(value: Any, number: int) -> Content:
    if isinstance(value, str):
        if not value.strip():
            raise UsageError(f"the prompt of row {number} is empty")
        return value
    if not isinstance(value, list | tuple):
        what = "missing" if value is None or value != value else f"a {type(value).__name__}: {value!r}"
        hint = "; for environments give one factory, and n_envs" if callable(value) else ""
        raise UsageError(f"the prompt of row {number} is {what}, not a text or a conversation{hint}")
    if not value:
        raise UsageError(f"the conversation of row {number} is empty")
    for message in value:
        if not isinstance(message, Mapping) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            raise UsageError(
                f'row {number} is no conversation: a message is {{"role": …, "content": …}}, both texts, '
                f"got {message!r}"
            )
    if value[-1]["role"] == "assistant":
        raise UsageError(f"the conversation of row {number} ends with the assistant: nothing is left to say")
    return [dict(message) for message in value]


def _kind(content: Content) -> str:
    return "text" if isinstance(content, str) else "conversation"
