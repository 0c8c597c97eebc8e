"""Arithmetic as text, read exactly: what a model wrote is never given to `eval`."""

import re
from fractions import Fraction

_LONGEST = 200  # characters; what is longer is no answer, and bounds the depth and the size of the numbers
_TOKEN = re.compile(r"\s*([0-9]{1,9}|[-+*/()])")


def evaluate(text: str) -> tuple[Fraction, list[int]] | None:
    """The exact value of + - * / and parentheses over whole numbers, and the numbers in it, as written.

    None for whatever is not such an expression, divides by zero or is longer than 200 characters. Products
    and quotients before sums and differences, both from the left; no signs before numbers. Never raises.
    """
    if len(text) > _LONGEST:
        return None
    tokens, place = [], 0
    text = text.strip()
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            return None
        tokens.append(found[1])
        place = found.end()
    tokens.reverse()  # the next one is the last
    try:
        value = _sum(tokens)
    except (IndexError, ValueError, ZeroDivisionError):
        return None
    used = [int(number) for number in re.findall(r"[0-9]+", text)]
    return None if tokens else (value, used)


def _sum(tokens: list[str]) -> Fraction:
    value = _product(tokens)
    while tokens and tokens[-1] in "+-":
        plus = tokens.pop() == "+"
        term = _product(tokens)
        value = value + term if plus else value - term
    return value


def _product(tokens: list[str]) -> Fraction:
    value = _factor(tokens)
    while tokens and tokens[-1] in "*/":
        times = tokens.pop() == "*"
        factor = _factor(tokens)
        value = value * factor if times else value / factor
    return value


def _factor(tokens: list[str]) -> Fraction:
    token = tokens.pop()
    if token != "(":
        return Fraction(int(token))  # ValueError for an operator
    value = _sum(tokens)
    if tokens.pop() != ")":
        raise ValueError
    return value
