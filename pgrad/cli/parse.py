"""From a dataclass to options with help, and from arguments to the dataclass: tyro, with our numbers."""

import contextlib
import dataclasses
import difflib
import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from pgrad.cli.names import ALIASES, translate, whole
from pgrad.errors import PgradError, UsageError

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
        str_from_instance=lambda x: [str(x)],
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
    what: Any, command: str, args: Sequence[str], description: str | None = None, default: Any = None
) -> Any:
    """An instance of the dataclass `what` from the arguments after `pgrad command`.

    What is not given is as in `default`, an instance, or else as the dataclass has it.

    Raises UsageError for an unknown option (with the nearest one) and for what the dataclasses refuse. After
    help, and after saying which value cannot be read, raises SystemExit (0 or 2).
    """
    spoken = io.StringIO()
    try:
        with contextlib.redirect_stderr(spoken):
            found, unknown = tyro.cli(
                what,
                prog=f"pgrad {command}",
                args=translate(args),
                description=description,
                registry=_REGISTRY,
                default=tyro.MISSING_NONPROP if default is None else default,
                return_unknown_args=True,
            )
    except SystemExit as end:
        raise_own(end)
        print(spoken.getvalue(), end="", file=sys.stderr)
        raise
    if unknown:
        options = dict(_options(found))
        known = [*options, *(f"no-{name}" for name, value in options.items() if isinstance(value, bool))]
        known += [alias for alias, name in ALIASES.items() if name in known]
        asked = next((arg for arg in args if translate([arg])[:1] == unknown[:1]), unknown[0])
        raise UsageError(_unknown(asked, known, command))
    return found


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


def _unknown(given: str, known: list[str], command: str) -> str:
    help_text = f"(pgrad {command} --help shows all)"
    if not given.startswith("-"):
        return f"unexpected argument {given!r} {help_text}"
    name = given.partition("=")[0]
    near = difflib.get_close_matches(name.lstrip("-"), known, n=1, cutoff=0.6)
    return f"unknown option {name}" + (f": did you mean --{near[0]}? " if near else " ") + help_text
