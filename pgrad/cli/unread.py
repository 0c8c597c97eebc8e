"""What could not be read of a command line, in one line: tyro tells it in a box of several."""

import ast
import re
from collections.abc import Sequence
from itertools import takewhile

from pgrad.extras import did_you_mean

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CHOICE = re.compile(r"invalid choice (['\"].*['\"]) for argument '(\S+)'\. Expected one of (\(.*\))")
MISSING = re.compile(r"Missing value for argument '(\S+)'")
VALUE = re.compile(r"Error parsing (--[\w-]+)\S*: ")
FORM = re.compile(r"Argument helptext: --\S+ (.*?)(?= [a-z]|$)")
NUMBERS = re.compile(r"(none\|)?\[?(INT|FLOAT)( .*)?")


def one_line(box: str, args: Sequence[str], more: str) -> str:
    """What is wrong and what is allowed, from tyro's message and the arguments that it is about.

    `more` says where all is told; it follows where the line itself does not.
    """
    said = _plain(box)
    if found := CHOICE.search(said):
        given, option, choices = ast.literal_eval(found[1]), found[2], ast.literal_eval(found[3])
        allowed = [name for name in choices if name != "None"]  # which is none too
        return f"{option} cannot be {given!r}{did_you_mean(given, allowed)}"
    if found := MISSING.search(said):
        return f"{found[1]} needs a value {more}"
    value, form = VALUE.search(said), FORM.search(said)
    if value and form and (wanted := _wanted(form[1])):
        return f"{value[1]} takes {wanted}, got {' '.join(_given(value[1], args))!r} {more}"
    why = said.partition(" Argument helptext:")[0]
    return f"{why.removeprefix('Error parsing ')} {more}"


def _plain(box: str) -> str:
    """The words of a box, without its frame, its rules and where help is."""
    lines = [line.strip("│| ") for line in COLOUR.sub("", box).splitlines() if line[:1] not in "╭╰+"]
    words = " ".join(line for line in lines if line.strip("─-"))
    return words.partition(" For full helptext")[0]


def _wanted(form: str) -> str:
    """In words what help writes as INT, none|FLOAT or [INT [INT ...]]; nothing for what has another name."""
    found = NUMBERS.fullmatch(form)
    if not found:
        return ""
    kind = {"INT": "whole number", "FLOAT": "number"}[found[2]]
    return f"{kind}s" if found[3] else f"a {kind} or none" if found[1] else f"a {kind}"


def _given(option: str, args: Sequence[str]) -> list[str]:
    """The values after an option."""
    for i, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name == option:
            return [value] if equals else list(takewhile(lambda one: not one.startswith("--"), args[i + 1 :]))
    return []
