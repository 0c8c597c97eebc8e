"""EnvPool's environments: many in one process, stepped by threads of C++ (Weng et al. 2022)."""

import os
import warnings
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv

from pgrad.environments.history import environment_seeds
from pgrad.environments.spaces import Array
from pgrad.errors import UsageError
from pgrad.extras import extra, nearest

PREFIX = "envpool:"
"""What the name of a world begins with whose rest is a task of EnvPool."""

OURS = ("num_envs", "batch_size", "num_threads", "seed", "env_seed", "max_num_players", "render_mode")
"""Arguments of EnvPool that `kwargs` may not set."""


def is_envpool(world: Any) -> bool:
    """Whether this names a task of EnvPool, whose state cannot be saved."""
    return isinstance(world, str) and world.startswith(PREFIX)


class EnvPool(VectorEnv):
    """A task of EnvPool as a vector environment that resets on the next step, its actions looked at first.

    EnvPool itself ends the process on a batch of another length, takes actions outside their space or of
    another kind, and never answers in a forked process. Environment i draws from the i-th child of the seed,
    whatever the number of environments and threads. Its spaces are those of Gymnasium's environments: actions
    are float32, and bounds that are only the limits of a float32 are no bounds.

    An episode that the task ends in the very step in which its time is up says only that its time was up.
    """

    def __init__(self, task: str, n_envs: int, seed: int, threads: int, kwargs: dict[str, Any]) -> None:
        """Raises UsageError for an unknown task or argument, a task of several players, a missing package."""
        module: Any = extra("envpool", "envpool")
        tasks = module.list_all_envs()
        if task not in tasks:
            near = nearest(task, tasks, 3) or "envpool.list_all_envs() tells all that there are"
            raise UsageError(f"EnvPool has no {task!r}: {near}")
        if taken := sorted(set(kwargs) & set(OURS)):
            raise UsageError(
                f"{PREFIX}{task}: {taken[0]} cannot be set (n_envs, workers and seed are its own)"
            )
        seeds = environment_seeds(seed, n_envs)
        mine = {"num_envs": n_envs, "num_threads": threads, "seed": seeds[0], "env_seed": seeds}
        try:
            self._pool: Any = module.make_gymnasium(task, **mine, **kwargs)
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            text = " ".join(str(error).split())[:200]
            raise UsageError(f"{PREFIX}{task} cannot be made with {kwargs}: {text}") from error
        if self._pool.config["max_num_players"] != 1:
            raise UsageError(f"{PREFIX}{task} has several players")
        self.num_envs = n_envs
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*precision lowered", UserWarning)  # of EnvPool's own boxes
            self.single_observation_space = _without_limits(self._pool.observation_space)
            self.single_action_space = _single_precision(self._pool.action_space)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self._process = os.getpid()
        self._rows = np.arange(n_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begin all episodes anew; the seed was given when the environments were made."""
        self._require_own_process()
        obs, info = self._pool.reset()
        return obs, self._in_order(info)

    def step(self, actions: Array) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step of every environment."""
        self._require_own_process()
        if len(actions) != self.num_envs:
            raise ValueError(f"{self.num_envs} actions are needed, got {len(actions)}")
        obs, reward, terminated, truncated, info = self._pool.step(actions)
        return obs, reward, terminated, truncated, self._in_order(info)

    def render(self) -> Any:
        """Raises NotImplementedError: without a display, drawing would end the process."""
        raise NotImplementedError("EnvPool draws no pictures here: record Gymnasium's environment instead")

    def close_extras(self, **_: Any) -> None:
        """End the threads."""
        self._pool.close()

    def _require_own_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("EnvPool does not answer in a forked process: make the world there")

    def _in_order(self, info: dict[str, Any]) -> dict[str, Any]:
        if np.count_nonzero(info["env_id"] != self._rows):
            raise RuntimeError(f"EnvPool answered for environments {info['env_id']}")
        return {}


def _without_limits(space: Space[Any]) -> Space[Any]:
    if isinstance(space, gymnasium.spaces.Dict):
        return gymnasium.spaces.Dict({key: _without_limits(part) for key, part in space.spaces.items()})
    if not isinstance(space, Box) or space.dtype.kind != "f":
        return space
    limits = np.finfo(np.float32)
    low, high = space.low.copy(), space.high.copy()
    low[(low == limits.tiny) | (low <= limits.min)] = -np.inf
    high[high >= limits.max] = np.inf
    return Box(low, high, dtype=space.dtype.type)


def _single_precision(space: Space[Any]) -> Space[Any]:
    if not isinstance(space, Box) or space.dtype != np.float64:
        return space
    return Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
