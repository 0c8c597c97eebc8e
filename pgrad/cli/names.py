"""Names as people write them: other spellings, other libraries' names, and what was probably meant."""

import ast
import re
from collections.abc import Iterable
from typing import Any

from pgrad.errors import UsageError
from pgrad.extras import did_you_mean

ALIASES = {
    "num-envs": "n-envs",
    "num-steps": "n-steps",
    "num-epochs": "n-epochs",
    "update-epochs": "n-epochs",
    "num-episodes": "n-episodes",
    "n-timesteps": "total-timesteps",
    "clip-coef": "clip-range",
    "epsilon": "clip-range",
    "epsilon-high": "clip-range-high",
    "num-iterations": "n-epochs",
    "reward-funcs": "reward",
    "lr": "learning-rate",
    "norm-adv": "normalize-advantage",
    "no-norm-adv": "no-normalize-advantage",
    "capture-video": "video",
    "env-kwargs": "world-kwargs",
}
"""What other libraries call an option: what it is called here."""

ELSEWHERE = {"num-minibatches": "--batch-size", "track": "--wandb PROJECT", "cuda": "--device"}
"""Options of other libraries whose values mean something else: what there is here instead."""

ANNEAL = {"anneal-lr": "linear", "no-anneal-lr": "constant"}
BARE = {"lora": "16"}
"""Options of a number that may stand alone: what is then meant."""

WORLD = ("env", "env-id", "world")


def translate(args: Iterable[str]) -> list[str]:
    """Replace the names of options by those used here; `--env NAME` becomes the positional world,
    and `--lora` alone gets its usual number.
    """
    out: list[str] = []
    world: list[str] = []
    left = list(args)[::-1]
    while left:
        arg = left.pop()
        if not arg.startswith("--") or arg == "--":
            out.append(arg)
            continue
        name, equals, value = arg[2:].partition("=")
        name = name.replace("_", "-").lower()
        if name in ANNEAL and not equals:
            out += ["--learning-rate-schedule", ANNEAL[name]]
        elif name in WORLD:
            world.append(value if equals else left.pop() if left else "")
        else:
            out.append(f"--{ALIASES.get(name, name)}{equals}{value}")
        if name in BARE and not equals and not (left and _is_number(left[-1])):
            out.append(BARE[name])
    return world + out


def choose(name: str, allowed: Iterable[str], what: str, more: str = "") -> str:
    """The one of `allowed` that is meant by `name`: case, "-" and "_" do not matter.

    Raises UsageError with the nearest one and all that there are, or with `more` in their place.
    """
    plain = {plain_name(one): one for one in allowed}
    if plain_name(name) in plain:
        return plain[plain_name(name)]
    raise UsageError(f"unknown {what} {name!r}{did_you_mean(name, plain.values(), more)}")


def whole(text: str) -> int:
    """A whole number, also as 1e6 or 1_000_000. Raises ValueError."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        number = 0.5
    if not number.is_integer():  # neither are NaN and infinity
        raise ValueError(f"{text!r} is not a whole number")
    return int(number)


def require_positive(name: str, number: int) -> None:
    """Raise UsageError unless there is at least one."""
    if number < 1:
        raise UsageError(f"{name} must be a whole number ≥ 1, got {number}")


def pairs(texts: Iterable[str]) -> dict[str, Any]:
    """key=value pairs; a value is a Python literal, true, false, or else a string. Raises UsageError."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"--world-kwargs takes key=value pairs, such as gravity=-9.8, got {text!r}")
        found[key] = _literal(value)
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def plain_name(name: str) -> str:
    """Without case, hyphens, underscores and spaces, which nobody means."""
    return re.sub(r"[-_ ]", "", name).lower()


def _literal(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
