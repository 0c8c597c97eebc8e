"""Tasks on numbers: addition, modular addition, countdown."""

import string
from collections import Counter
from fractions import Fraction
from itertools import accumulate
from random import Random

from pgrad.errors import UsageError
from pgrad.worlds.language.expression import evaluate
from pgrad.worlds.language.task import Instance, Task, exactly, share

_TARGETS = 99  # of countdown


def addition(sizes: tuple[int, int] = (1, 2), larger: tuple[int, int] = (3, 4)) -> Task:
    """Two numbers of at most `size` digits, at least one of just as many: "12+5=" → "17"."""

    def draw(rng: Random, size: int) -> Instance:
        numbers = [rng.randrange(10 ** (size - 1) if size > 1 else 0, 10**size), rng.randrange(10**size)]
        rng.shuffle(numbers)
        a, b = numbers
        answer = str(a + b)
        return Instance(f"{a}+{b}=", answer, answer, size, f"{min(a, b)}+{max(a, b)}")

    return Task("addition", string.digits + "+=", sizes, larger, draw, exactly, larger[1] + 1)


def modular_addition(
    sizes: tuple[int, int] = (2, 4), larger: tuple[int, int] = (5, 6), modulus: int = 7, chain: float = 1.0
) -> Task:
    """The sum of `size` numbers below the modulus, modulo it: for 7, "5+4+1=" → "3".

    chain: the share of solutions that reason, writing the sums of the first 1, 2, … numbers: "5,2,3". What
        stands after the last comma is the answer, reasoned or not. (Without a chain it takes a small model
        very long to learn more than the sums it was trained on.)

    Raises UsageError for a modulus below 2 and a share outside [0, 1].
    """
    if modulus < 2:
        raise UsageError(f"modulus must be at least 2, got {modulus}")
    share(chain)

    def draw(rng: Random, size: int) -> Instance:
        terms = [rng.randrange(modulus) for _ in range(size)]
        sums = [str(total % modulus) for total in accumulate(terms)]
        reasons = rng.random() < chain
        solution = ",".join(sums) if reasons else sums[-1]
        text, key = ("+".join(map(str, some)) for some in (terms, sorted(terms)))
        return Instance(f"{text}=", sums[-1], solution, size, key, {"reasons": reasons})

    def check(completion: str, instance: Instance) -> bool:
        before, _, last = completion.rpartition(",")
        return last == instance.answer and not before.strip(string.digits + ",")

    longest = (larger[1] if chain else 1) * (len(str(modulus - 1)) + 1) - 1
    return Task("modular-addition", string.digits + "+,=", sizes, larger, draw, check, longest)


def countdown(sizes: tuple[int, int] = (2, 3), larger: tuple[int, int] = (4, 4), highest: int = 9) -> Task:
    """Reach a target with every one of `size` numbers, each used once: "3,7,2:13=" → "(3*2)+7".

    Numbers are 1 … `highest`, targets whole and 0 … 99, operators + - * / with parentheses, fractions exact.
    Whatever expression reaches the target is right. Every target can be reached.

    Raises UsageError for a highest number below 2.
    """
    if highest < 2:
        raise UsageError(f"highest must be at least 2, got {highest}")

    def draw(rng: Random, size: int) -> Instance:
        while True:
            numbers = [rng.randint(1, highest) for _ in range(size)]
            text = _expression(rng, numbers)
            value = evaluate(text)
            if value is not None and value[0].denominator == 1 and 0 <= value[0] <= _TARGETS:
                break
        rng.shuffle(numbers)
        target = int(value[0])
        key = ",".join(map(str, sorted(numbers))) + f":{target}"
        given = ",".join(map(str, numbers))
        return Instance(f"{given}:{target}=", text, text, size, key, {"numbers": numbers, "target": target})

    def check(completion: str, instance: Instance) -> bool:
        value = evaluate(completion)
        if value is None:
            return False
        reached, used = value
        given = instance.metadata
        return reached == Fraction(given["target"]) and Counter(used) == Counter(given["numbers"])

    alphabet = string.digits + "+-*/(),:="
    longest = larger[1] * (len(str(highest)) + 1) - 1 + 2 * (larger[1] - 2)
    return Task("countdown", alphabet, sizes, larger, draw, check, longest)


def _expression(rng: Random, numbers: list[int]) -> str:
    """The numbers joined at random places by random operators; a part that is joined again is in
    parentheses."""
    parts = [str(number) for number in numbers]
    while len(parts) > 1:
        left, right = (parts.pop(rng.randrange(len(parts))) for _ in range(2))
        joined = f"{left}{rng.choice('+-*/')}{right}"
        parts.append(f"({joined})" if parts else joined)
    return parts[0]
