"""Tensor worlds with other numbers: their dynamics' fields, as someone types them."""

import dataclasses
import math
from typing import Any, get_type_hints

import torch
from gymnasium.spaces import Discrete

from pgrad.errors import UsageError
from pgrad.extras import did_you_mean
from pgrad.worlds.tensors.tensor import Dynamics

OWN = ("name", "noise", "continuous")
"""Fields that say which world it is, and are not for setting."""
KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number ≥ 1",
    float: "a finite number",
    int | None: "a whole number ≥ 1, or None",
}
"""Types of fields that can be set."""


def with_settings(dynamics: Dynamics, given: dict[str, Any]) -> Dynamics:
    """The same dynamics with other numbers, `given` by the names of its fields.

    Raises UsageError for names that are none (with the nearest), for values of another kind, and where the
    world does not work with them.
    """
    if not given:
        return dynamics
    hints = settings(dynamics)
    values = {name: _value(dynamics.name, name, value, hints) for name, value in given.items()}
    pairs = " ".join(f"{name}={value}" for name, value in given.items())
    try:
        made: Dynamics = dataclasses.replace(dynamics, **values)  # type: ignore[type-var]
        sound = _try(made)
    except (ArithmeticError, ValueError, AssertionError, RuntimeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{dynamics.name} cannot be made with {pairs}: {why}") from error
    if not sound:
        raise UsageError(f"{dynamics.name} cannot be made with {pairs}: its first step is not finite")
    return made


def settings(dynamics: Dynamics) -> dict[str, Any]:
    """The fields of a dynamics that can be set, with their types; none where it is no dataclass."""
    if not dataclasses.is_dataclass(dynamics):
        return {}
    hints = get_type_hints(type(dynamics))
    names = [field.name for field in dataclasses.fields(dynamics) if field.init and field.name not in OWN]
    return {name: hints[name] for name in names if hints[name] in KINDS}


def _value(world: str, name: str, value: Any, hints: dict[str, Any]) -> Any:
    if name not in hints:
        raise UsageError(f"{world} has no {name!r} to set{did_you_mean(name, hints)}")
    kind = hints[name]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is bool:
        fits = isinstance(value, bool)
    elif kind is float:
        fits = number and math.isfinite(value)
    else:
        fits = (number and isinstance(value, int) and value >= 1) or (value is None and kind is not int)
    if not fits:
        raise UsageError(f"{name} of {world} must be {KINDS[kind]}, got {value!r}")
    return float(value) if kind is float else value


def _try(dynamics: Dynamics) -> bool:
    """Whether there are spaces, and numbers come of a first step."""
    space, _ = dynamics.action_space, dynamics.observation_space  # either may refuse
    noise = torch.full((1, dynamics.noise), 0.5, dtype=torch.float64)
    kind = torch.int64 if isinstance(space, Discrete) else torch.float32
    action = torch.zeros((1, *(space.shape or ())), dtype=kind)
    state, reward, _ = dynamics.step(dynamics.start(noise), action, noise)
    return bool(state.isfinite().all() & reward.isfinite().all())
