"""Which actions Gymnasium environments allow: `info["action_mask"]`, or a method `action_masks()`."""

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Space
from gymnasium.spaces import Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from pgrad.environments.spaces import Array, MismatchError, describe

KEY, METHOD = "action_mask", "action_masks"


class ActionMasks:
    """The masks of B environments in one buffer, from where sb3-contrib looks for them.

    `given` becomes true where the environments have the method, or tell a mask when they are first reset.
    """

    def __init__(self, envs: Sequence[gymnasium.Env]) -> None:
        space = envs[0].action_space
        self._space, self._sizes = space, choices(space)
        self.rows: Array = np.ones((len(envs), sum(self._sizes)), np.bool_)
        self._methods = [
            env.get_wrapper_attr(METHOD) if env.has_wrapper_attr(METHOD) else None for env in envs
        ]
        self.given = bool(self._sizes) and callable(self._methods[0])

    def begin(self, info: dict[str, Any]) -> None:
        """Look at what the first reset of an environment told."""
        self.given |= bool(self._sizes) and KEY in info

    def read(self, i: int, info: dict[str, Any], over: bool) -> None:
        """Take what environment i allows now; where its episode is `over` it need not allow anything.

        Raises MismatchError for a mask of another shape or kind, that is missing, or that forbids everything.
        """
        if not self.given:
            raise MismatchError(f"info has an {KEY!r}, on reset it had none")
        method = self._methods[i]
        if not callable(method) and KEY not in info:
            if not over:
                raise MismatchError(f"info has no {KEY!r}, on reset it had one")
            self.rows[i] = True
            return
        row = self._fit(method() if callable(method) else info[KEY])
        blocked = forbidden(self._sizes, row)
        if blocked is not None and not over:
            which = f"every value of choice {blocked}" if len(self._sizes) > 1 else "every action"
            raise MismatchError(f"the action mask forbids {which} of {self._space}")
        self.rows[i] = row if blocked is None else True

    def _fit(self, value: Any) -> Array:
        try:
            parts = [np.ravel(part) for part in value] if isinstance(value, list | tuple) else [value]
            row = np.concatenate(parts) if len(parts) > 1 else np.asarray(parts[0])
        except (TypeError, ValueError):
            raise MismatchError(f"the action mask is {describe(value)}, not an array of bools") from None
        if row.shape != self.rows.shape[1:]:
            n = self.rows.shape[1]
            raise MismatchError(f"the action mask has shape {row.shape}, {self._space} needs ({n},)")
        if row.dtype.kind not in "biuf" or ((row != 0) & (row != 1)).any():
            raise MismatchError(f"the action mask is {describe(row)}, not of bools or of 0 and 1")
        return row.astype(np.bool_)


def choices(space: Space[Any]) -> tuple[int, ...]:
    """How many values each choice of an action space has, as a mask lists them."""
    if isinstance(space, Dict | Tuple):
        parts = space.spaces.values() if isinstance(space, Dict) else space.spaces
        return tuple(n for part in parts for n in choices(part))
    if isinstance(space, Discrete):
        return (int(space.n),)
    if isinstance(space, MultiDiscrete):
        return tuple(space.nvec.reshape(-1).tolist())
    if isinstance(space, MultiBinary):
        return (2,) * math.prod(space.shape)
    return ()


def forbidden(sizes: tuple[int, ...], row: Any) -> int | None:
    """The first choice of a mask [sum(sizes)] of which no value is allowed; None where there is none."""
    start = 0
    for k, n in enumerate(sizes):
        if not row[start : start + n].any():
            return k
        start += n
    return None
