"""What changed between the configuration a run was started with and the one it is resumed with."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ABSENT = "(not set)"


def config_difference(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The settings that differ, sorted, as (dotted key, saved, given); ABSENT where one side lacks the key.

    Both are compared as JSON would keep them (a tuple equals a list), NaN equals NaN, and True is not 1.
    """
    before, after = dict(_settings(_as_json(saved))), dict(_settings(_as_json(given)))
    both = [
        (key, before.get(key, ABSENT), after.get(key, ABSENT)) for key in sorted(before.keys() | after.keys())
    ]
    return [(key, old, new) for key, old, new in both if not _equal(old, new)]


def difference_text(
    run: Path, differences: list[tuple[str, Any, Any]], rows: int = 15, width: int = 28
) -> str:
    """The differences for people: a table (at most `rows` rows, values cut at `width`) and what to do."""
    shown = [(key, _short(old, width), _short(new, width)) for key, old, new in differences[:rows]]
    table = [("setting", "saved", "given"), *shown]
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    lines = [
        "  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table
    ]
    if len(differences) > rows:
        lines.append(f"  and {len(differences) - rows} more")
    head = f"{run} was started with another configuration:"
    return "\n".join([head, *lines, "Leave these out to continue the run as it was, or start a new run."])


def _settings(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _equal(old: Any, new: Any) -> bool:
    if isinstance(old, bool) is not isinstance(new, bool):
        return False
    return old == new or (old != old and new != new)  # NaN alone differs from itself


def _short(value: Any, width: int) -> str:
    text = value if value is ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= width else text[: width - 3] + "..."
