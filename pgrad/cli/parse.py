"""From a dataclass to options with help, and from arguments to the dataclass: tyro, with our numbers."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from pgrad.algorithms.usual import both
from pgrad.cli.names import ALIASES, ELSEWHERE, translate, whole
from pgrad.cli.unread import one_line
from pgrad.errors import PgradError, UsageError
from pgrad.extras import nearest

_REGISTRY = ConstructorRegistry()


@_REGISTRY.primitive_rule
def _integers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
    """Whole numbers, also as 1e6."""
    if info.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda args: whole(args[0]),
        is_instance=lambda x: isinstance(x, int) and not isinstance(x, bool),
        str_from_instance=lambda x: both(x).split(),
    )


@_REGISTRY.primitive_rule
def _numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[float] | None:
    """Numbers; a default that is another on text is told with both."""
    if info.type is not float:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT",
        instance_from_str=lambda args: float(args[0]),
        is_instance=lambda x: isinstance(x, int | float) and not isinstance(x, bool),
        str_from_instance=lambda x: both(x).split(),
    )


@_REGISTRY.primitive_rule
def _nothing(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[None] | None:
    """None, written in either case."""
    if info.type is not type(None):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="none",
        choices=("none", "None"),
        instance_from_str=lambda args: None,
        is_instance=lambda x: x is None,
        str_from_instance=lambda x: ["none"],
    )


def parse(
    what: Any,
    command: str,
    args: Sequence[str],
    description: str | None = None,
    default: Any = None,
    elsewhere: tuple[str, Sequence[type]] = ("", ()),
) -> Any:
    """An instance of the dataclass `what` from the arguments after `pgrad command`.

    What is not given is as in `default`, an instance, or else as the dataclass has it. `elsewhere`: what is
    said of an unknown option that one of these dataclasses has.

    Raises UsageError for an unknown option (with the nearest one), for one by two names or without a value,
    for a value that cannot be read and for what the dataclasses refuse; SystemExit after help.
    """
    _require_once(args)
    spoken, more, given = io.StringIO(), f"(pgrad {command} --help shows all)", translate(args)
    if {"-h", "--help"} & set(given):
        given = ["--help"]  # tyro leaves positional arguments that are given out of its help
    try:
        with contextlib.redirect_stderr(spoken):
            found, unknown = tyro.cli(
                what,
                prog=f"pgrad {command}",
                args=given,
                description=description,
                registry=_REGISTRY,
                default=tyro.MISSING_NONPROP if default is None else default,
                return_unknown_args=True,
            )
    except SystemExit as end:
        try:
            raise_own(end)
        except UsageError as error:
            raise UsageError(_as_options(str(error), given)) from error
        if end.code:
            raise UsageError(one_line(spoken.getvalue(), given, more)) from None
        raise
    options = dict(_options(found))
    if unknown:
        asked = next((arg for arg in args if translate([arg])[:1] == unknown[:1]), unknown[0])
        name, (why, others) = unknown[0].partition("=")[0].lstrip("-").removeprefix("no-"), elsewhere
        if any(
            name == field.name.replace("_", "-") for other in others for field in dataclasses.fields(other)
        ):
            raise UsageError(f"{asked.partition('=')[0]} {why}")
        raise UsageError(f"{_unknown(asked, options, unknown, args)} {more}")
    if empty := next((name for name, value in options.items() if value == () and f"--{name}" in given), ""):
        raise UsageError(f"--{empty} needs a value {more}")
    return found


def _as_options(text: str, given: Sequence[str]) -> str:
    """What a dataclass says of its fields, of those that were given with the names of their options."""
    options = {arg.partition("=")[0] for arg in given}

    def option(found: re.Match[str]) -> str:
        name = f"--{found[1].replace('_', '-')}"
        return f"{name if name in options else found[1]} must"

    return re.sub(r"(?<![-\w])([a-z]\w*) must\b", option, text)


def raise_own(error: BaseException) -> None:
    """Raise the PgradError that an exception was raised in answer to, if there is one."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, PgradError):
        raise cause
    if cause is not None:
        raise_own(cause)


def _options(found: Any) -> Iterator[tuple[str, Any]]:
    """The options of a dataclass, and of the dataclasses in it, with their values."""
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        if dataclasses.is_dataclass(value):
            yield from _options(value)
        else:
            yield field.name.replace("_", "-"), value


def _require_once(args: Sequence[str]) -> None:
    """Raise UsageError for an option that is given by two of its names."""
    said: dict[str, str] = {}
    for arg in args:
        name = arg.partition("=")[0].replace("_", "-").lower()
        if name.startswith("--") and (first := said.setdefault(translate([name])[0], name)) != name:
            raise UsageError(f"{first} and {name} are the same option: give one of them")


def _unknown(given: str, options: Mapping[str, Any], unknown: Sequence[str], args: Sequence[str]) -> str:
    """What is said of an argument that nothing takes: of a flag's value, of an option with a near one."""
    flags = [name for name, value in options.items() if isinstance(value, bool)]
    pairs = [*pairwise(args), *((name, value) for name, _, value in (arg.partition("=") for arg in args))]
    for flag, value in pairs:
        name = translate([flag])[0].removeprefix("--").removeprefix("no-")
        if value == given and flag.startswith("--") and name in flags:
            return f"{flag} takes no value, got {given!r}"
    if not given.startswith("-"):
        return f"unexpected argument {given!r}"
    known = [name for name in (*options, *(f"no-{flag}" for flag in flags)) if f"--{name}" not in unknown]
    aliases = [alias for alias, meant in ALIASES.items() if meant in known]
    spelled = given.partition("=")[0]
    name = spelled.lstrip("-")
    near = nearest(name, known, before="--") or nearest(name, aliases, before="--")
    other = ELSEWHERE.get(name.replace("_", "-").lower(), "")
    if other.partition(" ")[0].removeprefix("--") in known:
        near = f"did you mean {other}?"
    return f"unknown option {spelled}" + (f": {near}" if near else "")
