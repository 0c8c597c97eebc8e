"""Rows from a file: JSON Lines, JSON, CSV or Parquet."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pgrad.errors import UsageError
from pgrad.extras import extra


def read_rows(path: Path) -> list[Any]:
    """What the file lists: dicts, or texts. Raises UsageError where it cannot be read, naming the line."""
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*") if p.suffix in READERS)
        there = f"; there are {', '.join(beside[:8])}" if beside else ""
        raise UsageError(f"there is no file {path}{there}")
    if path.suffix not in READERS:
        raise UsageError(f"{path} is none of the files that are read: {', '.join(READERS)}")
    try:
        return READERS[path.suffix](path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def _jsonl(path: Path) -> list[Any]:
    rows = []
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except ValueError as error:
                    raise UsageError(f"{path}, line {number} is not JSON: {error}") from None
    return rows


def _json(path: Path) -> list[Any]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        hint = "; is it JSON Lines? then name it .jsonl" if error.msg == "Extra data" else ""
        raise UsageError(f"{path} is not JSON: {error}{hint}") from None
    if not isinstance(rows, list):
        raise UsageError(f"{path} must hold a list of prompts or of rows, it holds a {type(rows).__name__}")
    return rows


def _csv(path: Path) -> list[Any]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        rows: list[Any] = []
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise UsageError(
                        f"{path}, line {reader.line_num} does not have the {len(reader.fieldnames or ())} "
                        f"columns of its first line"
                    )
                rows.append(row)
        except csv.Error as error:
            raise UsageError(f"{path}, line {reader.line_num} is not CSV: {error}") from None
    return rows


def _parquet(path: Path) -> list[Any]:
    parquet = extra("pyarrow.parquet")
    try:
        return parquet.read_table(path).to_pylist()
    except extra("pyarrow").ArrowException as error:
        raise UsageError(f"{path} is not Parquet: {str(error).splitlines()[0]}") from None


READERS: dict[str, Callable[[Path], list[Any]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
"""What reads a file, by the end of its name."""
