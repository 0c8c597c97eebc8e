"""Rows of the table of estimators."""

import math
from dataclasses import dataclass

from torch import Tensor

from pgrad.lab.estimate import Estimates, cosine

Numbers = dict[str, float | list[float]]


@dataclass(frozen=True)
class Row:
    """An estimator and its numbers; a list holds one number for each state."""

    name: str
    numbers: Numbers


@dataclass(frozen=True)
class Group:
    """Estimators of the same thing, the least noisy first."""

    title: str
    note: str
    rows: tuple[Row, ...]


def sorted_group(title: str, note: str, rows: list[Row], by: str = "at equal length") -> Group:
    """The rows sorted by one of their numbers (of a list by its length as a vector), NaN last."""

    def key(row: Row) -> float:
        number = row.numbers[by]
        size = math.hypot(*(x for x in number if x == x)) if isinstance(number, list) else number
        return size if size == size else math.inf

    return Group(title, note, tuple(sorted(rows, key=key)))


def row_of(name: str, found: Estimates, truth: Tensor) -> Row:
    """How far the mean of an estimate is from a gradient, in which direction, and how noisy it is."""
    mean, variance = found.mean, found.variance
    scale = float(mean @ truth / truth.square().sum())
    numbers: Numbers = {
        "bias": float((mean - truth).norm() / truth.norm()),
        "cosine": cosine(mean, truth),
        "scale": scale,
        "variance": variance,
        "at equal length": variance / scale**2 if scale else math.nan,
    }
    return Row(name, numbers)
