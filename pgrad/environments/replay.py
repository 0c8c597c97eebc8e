"""What makes the state of an environment exact: how its episode began and the actions since.

An environment has no state that could be copied reliably (`copy.deepcopy` silently rebuilds a fresh MuJoCo or
Atari one), but with its random numbers where they were it plays the same episode again.
"""

import base64
import sys
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pgrad.environments.spaces import Array

LOG_BYTES = 1 << 28
"""An episode with more actions than fit into 256 MiB, all environments together, cannot be restored."""


class ActionLog:
    """The actions of the running episodes of B environments, as they were given to them."""

    def __init__(self, parts: Sequence[Array], episodes: Sequence[Sequence[Array]] | None = None) -> None:
        """An empty log, or one of running `episodes`: for each environment the actions of each part.

        `parts`: one array [B, ...] for each part of the action space, for shapes and dtypes.
        """
        n_envs = len(parts[0])
        self._row = 0 if episodes is None else max(len(episode[0]) for episode in episodes)
        capacity = max(64, self._row)
        self._parts = [np.zeros((capacity, *part.shape), part.dtype) for part in parts]
        self._used = np.zeros(
            (capacity, n_envs), np.bool_
        )  # a step of the environment, not a reset or a pause
        self._start = np.zeros(n_envs, np.int64)
        self._lost = np.zeros(n_envs, np.bool_)
        for i, episode in enumerate(episodes or ()):
            self._used[: len(episode[0]), i] = True
            for mine, actions in zip(self._parts, episode, strict=True):
                mine[: len(actions), i] = actions

    def append(self, arrays: Sequence[Array], used: NDArray[np.bool_]) -> None:
        """Add one action for each environment where `used` [B]."""
        if self._row == len(self._used):
            self._make_room()
        for part, array in zip(self._parts, arrays, strict=True):
            part[self._row] = array
        self._used[self._row] = used
        self._row += 1

    def begin(self, i: int) -> None:
        """Environment i begins an episode."""
        self._start[i] = self._row
        self._lost[i] = False

    def length(self, i: int) -> int:
        """How many actions environment i has taken in its episode, as far as they are kept."""
        return int(np.count_nonzero(self._used[self._start[i] : self._row, i]))

    def actions(self, i: int) -> list[Array] | None:
        """The actions of environment i in its episode, [length, ...] for each part; None if too many."""
        if self._lost[i]:
            return None
        rows = slice(self._start[i], self._row)
        used = self._used[rows, i]
        return [part[rows, i][used] for part in self._parts]

    def _make_room(self) -> None:
        size = self._used[0].nbytes + sum(part[0].nbytes for part in self._parts)
        while True:
            first = int(self._start[~self._lost].min(initial=self._row))
            kept = self._row - first
            if 2 * kept * size <= LOG_BYTES or kept == 0:
                break
            oldest = (self._start == first) & ~self._lost
            self._lost |= oldest
        capacity = max(64, 2 * kept)
        for k, part in enumerate((self._used, *self._parts)):
            grown = np.zeros((capacity, *part.shape[1:]), part.dtype)
            grown[:kept] = part[first : self._row]
            if k == 0:
                self._used = grown
            else:
                self._parts[k - 1] = grown
        self._start = np.maximum(self._start - first, 0)
        self._row = kept


def begin(env: gymnasium.Env, seed: int | None = None) -> Any:
    """What `env.reset` returns, for an episode that depends on the random numbers alone."""
    inner: Any = env.unwrapped
    if any(kind.__module__ == "gymnasium.envs.box2d.bipedal_walker" for kind in type(inner).__mro__):
        # It keeps its physics, with traces of old contacts, from one episode to the next. So did LunarLander
        # until Gymnasium's issue 728; this is the same remedy.
        inner._destroy()
        inner.world = type(inner.world)()
    return env.reset() if seed is None else env.reset(seed=seed)


def random_state(env: gymnasium.Env) -> dict[str, Any]:
    """Where the random numbers of `env` are: those of `np_random`, and of the Atari emulator if it is one."""
    state: dict[str, Any] = {"numpy": env.unwrapped.np_random.bit_generator.state}
    if _is_atari(env):
        state["ale"] = env.unwrapped.clone_state(include_rng=True).serialize()  # type: ignore[attr-defined]
    return state


def set_random_state(env: gymnasium.Env, state: dict[str, Any]) -> None:
    """Put the random numbers of `env` where `random_state` found them."""
    numpy_state = state["numpy"]
    if env.unwrapped.np_random.bit_generator.state["bit_generator"] != numpy_state["bit_generator"]:
        kind = getattr(np.random, numpy_state["bit_generator"])
        env.unwrapped.np_random = np.random.Generator(kind())
    env.unwrapped.np_random.bit_generator.state = numpy_state
    if _is_atari(env):
        restored = sys.modules["ale_py"].ALEState(state["ale"])
        env.unwrapped.restore_state(restored)  # type: ignore[attr-defined]


def _is_atari(env: gymnasium.Env) -> bool:
    return type(env.unwrapped).__module__.startswith("ale_py.")


def to_json(value: Any) -> Any:
    """A nested state as plain JSON values: arrays and bytes become tagged dicts."""
    if isinstance(value, dict):
        return {key: to_json(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return value.item() if isinstance(value, np.generic) else value


def from_json(value: Any) -> Any:
    """The inverse of `to_json`."""
    if not isinstance(value, dict):
        return value
    if value.keys() == {"array", "dtype"}:
        return np.array(value["array"], value["dtype"])
    if value.keys() == {"base64"}:
        return base64.b64decode(value["base64"])
    return {key: from_json(part) for key, part in value.items()}


def merge(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One state of many environments from the states of consecutive groups of them."""
    return {
        "name": states[0]["name"],
        **{key: [x for state in states for x in state[key]] for key in ("seed", "origin", "random")},
        **{key: np.concatenate([state[key] for state in states]) for key in ("length", "ended")},
        **{
            key: {k: np.concatenate([state[key][k] for state in states]) for k in states[0][key]}
            for key in ("action", "obs")
        },
    }


def split(state: dict[str, Any], groups: Sequence[slice]) -> list[dict[str, Any]]:
    """The inverse of `merge`: one state for each group of environments."""
    stops = [0, *np.maximum(state["length"], 0).cumsum().tolist()]
    return [
        {
            "name": state["name"],
            **{key: state[key][group] for key in ("seed", "origin", "random", "length", "ended")},
            "action": {k: x[stops[group.start] : stops[group.stop]] for k, x in state["action"].items()},
            "obs": {k: x[group] for k, x in state["obs"].items()},
        }
        for group in groups
    ]
