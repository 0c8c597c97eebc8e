"""Reward functions that come with pgrad, in the signature of everybody's (see `Reward`)."""

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pgrad.errors import UsageError
from pgrad.worlds.language.isolated import TIMEOUT, Isolated

_HERE = Path(__file__).parent


def text_of(completion: Any) -> str:
    """The text of a completion, of a conversation too."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def exact_match(completions: list[Any], answer: list[Any], **_: Any) -> list[float | None]:
    """1 where the completion is the column "answer", white space around both aside, else 0; None where the
    column is None."""
    return [
        None if right is None else float(text_of(one).strip() == str(right).strip())
        for one, right in zip(completions, answer, strict=True)
    ]


def regex(pattern: str, timeout: float = TIMEOUT) -> Isolated:
    """1 where the whole completion matches the pattern, white space around it aside, else 0.

    Raises UsageError for what is not a regular expression.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{pattern!r} is not a regular expression: {error}") from None
    return Isolated(_HERE / "patterns.py", "regex", timeout=timeout, pattern=pattern)


class Overlong:
    """What a completion of many tokens costs: with L_max the most there may be and L_cache the last of them,

        R(y) = 0                                   |y| ≤ L_max − L_cache
               (L_max − L_cache − |y|) / L_cache   L_max − L_cache < |y| ≤ L_max
               −1                                  L_max < |y|

    Tokens are counted as sampled, the EOS among them.

    Raises UsageError unless 0 < L_cache ≤ L_max.

    Source: Yu et al. 2025 (DAPO), arXiv 2503.14476, Eq. 13.
    """

    __name__ = "length"

    def __init__(self, max_completion_length: int, cache: int) -> None:
        if not 0 < cache <= max_completion_length:
            raise UsageError(
                f"length:CACHE must be between 1 and max_completion_length ({max_completion_length}), "
                f"got {cache}"
            )
        self._free, self._cache = max_completion_length - cache, cache

    def __call__(self, completion_ids: list[list[int]], **_: Any) -> list[float]:
        """The cost of every completion."""
        over = [max(0, len(ids) - self._free) for ids in completion_ids]
        return [-min(1.0, extra / self._cache) for extra in over]


class Mathematics:
    """1 where the completion ends in an answer that equals a column mathematically, else 0; None where the
    column cannot be read. Judged by math-verify in a process of its own.

    Of the column counts what stands after the last "####", as GSM8K has it; all of it where there is none.

    Raises UsageError where math-verify is not installed.
    """

    __name__ = "math"

    def __init__(self, column: str = "answer", timeout: float = TIMEOUT) -> None:
        if find_spec("math_verify") is None:
            raise UsageError("math-verify is not installed: pip install 'pgrad[language]'")
        self.columns = (column,)
        self._isolated = Isolated(_HERE / "mathematics.py", "math", timeout=timeout)

    def __call__(self, completions: list[Any], **columns: Any) -> Any:
        """1, 0 or None for every completion."""
        gold = [None if one is None else _final(str(one)) for one in columns[self.columns[0]]]
        return self._isolated(None, completions, gold=gold)

    def close(self) -> None:
        """End the process."""
        self._isolated.close()


def _final(answer: str) -> str:
    return answer.rpartition("####")[2].strip()


BUILTIN: dict[str, Callable[[str, int, float], Callable[..., Any]]] = {
    "exact-match": lambda *_: exact_match,
    "regex": lambda pattern, _, timeout: regex(pattern, timeout),
    "length": lambda cache, longest, _: Overlong(longest, _whole(cache)),
    "math": lambda column, _, timeout: Mathematics(column or "answer", timeout),
}
"""By the name in "NAME" or "NAME:ARGUMENT": what makes it of the argument, max_completion_length, seconds."""


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"length:CACHE takes a whole number of tokens, got {text!r}") from None
