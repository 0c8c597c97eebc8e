"""Tasks on strings of symbols: parity, copy, reverse, sort."""

import string
from collections.abc import Callable
from itertools import accumulate
from random import Random

from pgrad.errors import UsageError
from pgrad.worlds.language.task import Instance, Task, exactly, share


def parity(sizes: tuple[int, int] = (4, 8), larger: tuple[int, int] = (9, 12), chain: float = 1.0) -> Task:
    """Whether the number of ones is odd: "0110=" → "0".

    chain: the share of solutions that reason, writing the parities of the first 1, 2, … bits: "0100". The
        last one is the answer, so a completion of bits is right where its last bit is, reasoned or not.

    Raises UsageError for a share outside [0, 1].

    Source: Tsilivis et al. 2025, arXiv 2510.11495 (there of 50 bits, and −1 for 1).
    """
    share(chain)

    def draw(rng: Random, size: int) -> Instance:
        bits = [rng.randrange(2) for _ in range(size)]
        running = "".join(str(ones % 2) for ones in accumulate(bits))
        reasons = rng.random() < chain
        text = "".join(map(str, bits))
        solution = running if reasons else running[-1]
        return Instance(f"{text}=", running[-1], solution, size, text, {"reasons": reasons})

    def check(completion: str, instance: Instance) -> bool:
        return completion.endswith(instance.answer) and not completion.strip("01")

    return Task("parity", "01=", sizes, larger, draw, check, larger[1] if chain else 1)


def copy(
    sizes: tuple[int, int] = (2, 5), larger: tuple[int, int] = (6, 8), letters: str = "abcdefgh"
) -> Task:
    """The same again: "cab=" → "cab". Raises UsageError for fewer than two letters."""
    return _rewritten("copy", sizes, larger, _letters(letters), lambda text: text)


def reverse(
    sizes: tuple[int, int] = (2, 5), larger: tuple[int, int] = (6, 8), letters: str = "abcdefgh"
) -> Task:
    """From the last to the first: "cab=" → "bac". Raises UsageError for fewer than two letters."""
    return _rewritten("reverse", sizes, larger, _letters(letters), lambda text: text[::-1])


def sort(sizes: tuple[int, int] = (2, 5), larger: tuple[int, int] = (6, 8)) -> Task:
    """Digits from the least to the greatest: "3140=" → "0134"."""
    return _rewritten("sort", sizes, larger, string.digits, _sorted, key=_sorted)


def _sorted(text: str) -> str:
    return "".join(sorted(text))


def _letters(letters: str) -> str:
    distinct = "".join(dict.fromkeys(letters))
    if len(distinct) < 2 or "=" in distinct or any(map(str.isspace, distinct)):
        raise UsageError(f"letters are two or more characters, no white space and no '=', got {letters!r}")
    return distinct


def _rewritten(
    name: str,
    sizes: tuple[int, int],
    larger: tuple[int, int],
    letters: str,
    rewrite: Callable[[str], str],
    key: Callable[[str], str] = lambda text: text,
) -> Task:
    def draw(rng: Random, size: int) -> Instance:
        text = "".join(rng.choice(letters) for _ in range(size))
        answer = rewrite(text)
        return Instance(f"{text}=", answer, answer, size, key(text))

    return Task(name, letters + "=", sizes, larger, draw, exactly, larger[1])
