"""A user's own `gymnasium.vector.VectorEnv` as a world."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, Tuple
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from pgrad.data.tree import Tree, leaves, map_tree
from pgrad.environments.actions import Actions, to_batch, to_rows
from pgrad.environments.answers import STEP, answered, bad_reset, nonfinite
from pgrad.environments.create import error_line
from pgrad.environments.history import environment_seeds
from pgrad.environments.masks import KEY, choices
from pgrad.environments.spaces import (
    Array,
    MismatchError,
    check_action_space,
    check_observation_space,
    declared,
    describe,
    fit,
)
from pgrad.errors import UsageError, WorldError
from pgrad.worlds.buffers import on_device, zeros
from pgrad.worlds.gym.between import Given
from pgrad.worlds.gym.metadata import autoreset_mode, name_of
from pgrad.worlds.protocol import Step

Mask = NDArray[np.bool_]

NOT_CONTINUED = "this run can be loaded, not continued"
"""What becomes of a run in a world whose state cannot be saved."""

_NUMBER = Box(-np.inf, np.inf, ())
_FLAG = Discrete(2)


class VectorWorld:
    """The environments of a vector environment: a `World`, whichever way it resets.

    NEXT_STEP is what a world does. With DISABLED and SAME_STEP an environment is reset through
    `options={"reset_mask": mask}` after its true last observation (`final_obs`) has been shown. Since a
    vector environment only steps all of its environments at once, this costs one wasted step and one further
    reset for each episode.

    For the same reason it cannot leave some of them alone. Where `active` is false the world shows the same
    observation, but the environment goes on unseen: it cannot be made active again before `reset`.
    Exact state is not possible: `state_dict` and `load_state_dict` raise WorldError.
    """

    def __init__(
        self, env: VectorEnv, *, seed: int = 0, device: torch.device | str = "cpu", name: str = ""
    ) -> None:
        """Raises UsageError where the metadata do not say how `env` resets, or a space is not supported."""
        self.name = name or name_of(env)
        self.n_envs = env.num_envs
        self.device = torch.device(device)
        self.observation_space = declared(env, "single_observation_space", self.name)
        self.action_space = declared(env, "single_action_space", self.name)
        check_observation_space(self.observation_space, self.name)
        check_action_space(self.action_space, self.name)
        self._env, self._mode = env, autoreset_mode(env, self.name)
        self._given, self._actions = Given(self.action_space, self.name), Actions(self.action_space)
        self._seed: int | None = environment_seeds(seed, 1)[0]
        self._begun = False
        tensors = zeros(self.observation_space, self.n_envs)
        flags = torch.zeros(3, self.n_envs, dtype=torch.bool)
        self._view = Step(tensors, torch.zeros(self.n_envs), flags[0], flags[1])
        self._ended_view = flags[2]
        self.ended = self._ended_view.to(self.device, copy=True)
        self._obs = map_tree(lambda x: x.numpy(), tensors)
        self._leaves: list[Array] = list(leaves(self._obs))
        self._reward = self._view.reward.numpy()
        self._terminated, self._truncated, self._ended = flags.numpy()
        self._done = np.zeros(self.n_envs, np.bool_)  # what the vector environment said last, shown or not
        self._unseen = np.zeros(self.n_envs, np.bool_)  # stepped without being active
        self._length = np.zeros(self.n_envs, np.int64)  # steps of the episode
        self._everyone = np.ones(self.n_envs, np.bool_)

    def reset(self, group: int = 1) -> Tree:
        """Start a new episode in every environment; see `World.reset`."""
        if group > 1:
            raise UsageError(
                f"{self.name} is a vector environment of its own, whose environments cannot be made to start "
                "alike: give an id or a factory"
            )
        self._show(self._reset(seed=self._seed), self._everyone)
        self._seed, self._begun = None, True  # a second reset goes on with the random numbers
        for array in (self._reward, self._ended, self._done, self._unseen, self._length):
            array.fill(0)
        self._require_finite(None)
        return self._shown().obs

    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        """Step every environment once; see `World.step`."""
        if not self._begun:
            raise WorldError(f"{self.name}: reset must be called before step")
        shown = self._everyone if active is None else active.cpu().numpy()
        late = shown & self._unseen
        if np.count_nonzero(late):
            i = int(np.flatnonzero(late)[0])
            raise WorldError(
                f"{self.name}: environment {i} went on while it was not active, reset comes first"
            )
        if active is not None:
            self._unseen |= ~shown
        over = shown & self._ended
        live = shown & ~over
        self._length[live] += 1
        self._length[over] = 0
        try:
            arrays = self._actions.arrays(self._given(action), live)
            self._advance(to_batch(self.action_space, arrays), shown, over, live)
        except MismatchError as error:
            where = f"{self.name}" if error.row is None else self._where(error.row)
            raise WorldError(f"{where}: {error}") from None
        self._require_finite(arrays)
        return self._shown()

    def _advance(self, action: Any, shown: Mask, over: Mask, live: Mask) -> None:
        """One step; environments that are `over` show a first observation, `live` ones their answer."""
        if self._mode is AutoresetMode.DISABLED and self._done.any():
            self._reset(options={"reset_mask": self._done.copy()})
        answer = self._call("step", action)
        if not isinstance(answer, tuple) or len(answer) != 5:
            raise MismatchError(f"{STEP}, it returned {answered(answer)}")
        obs, reward, info = answer[0], self._fit(_NUMBER, answer[1], "reward"), answer[4]
        terminated = self._flags(answer[2], "terminated")
        truncated = self._flags(answer[3], "truncated") & ~terminated
        done = terminated | truncated
        if self._mode is AutoresetMode.NEXT_STEP:
            self._require_next_step(over, done, live, info)
            self._show(obs, shown)
        else:
            self._show(obs, live)
            if self._mode is AutoresetMode.SAME_STEP:
                self._show_final(info, live & done)
            if over.any():
                first = self._reset(options={"reset_mask": over.copy()})
                self._require_masked_reset(obs, first, over)
                self._show(first, over)
                done &= ~over
        self._done[:] = done
        self._reward[:] = np.where(live, reward, 0.0)
        self._terminated[:], self._truncated[:] = terminated & live, truncated & live
        self._ended[shown] = (done & live)[shown]

    def _reset(self, **arguments: Any) -> Any:
        answer = self._call("reset", **arguments)
        if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], dict):
            raise WorldError(f"{self.name}: {bad_reset(answer)}")
        if KEY in answer[1] and choices(self.action_space):
            raise WorldError(f"{self.name}: action masks need an id or a factory, not a vector environment")
        return answer[0]

    def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        try:
            return getattr(self._env, method)(*arguments, **named)
        except Exception as error:
            raise WorldError(f"{self.name}: {method} raised {error_line(error)}") from error

    def _fit(self, space: Space[Any], value: Any, path: str) -> Array:
        return fit(space, value, path, (self.n_envs,))

    def _flags(self, value: Any, path: str) -> Mask:
        if isinstance(value, np.ndarray) and value.dtype == np.bool_ and value.shape == (self.n_envs,):
            return value
        return self._fit(_FLAG, value, path).astype(np.bool_)

    def _show(self, obs: Any, mask: Mask) -> None:
        for path, space, values, buffer in _walk(self.observation_space, obs, self._obs, "observation"):
            wide = mask.reshape(-1, *[1] * (buffer.ndim - 1))
            np.copyto(buffer, self._fit(space, values, path), where=wide)

    def _show_final(self, info: dict[str, Any], mask: Mask) -> None:
        if not mask.any():
            return
        final = info.get("final_obs")
        if final is None:
            raise WorldError(f"{self.name}: resets in the same step, but gives no 'final_obs': use NEXT_STEP")
        for i in np.flatnonzero(mask).tolist():
            for path, space, value, buffer in _walk(self.observation_space, final[i], self._obs, "final_obs"):
                buffer[i] = fit(space, value, path)

    def _require_next_step(self, over: Mask, done: Mask, live: Mask, info: dict[str, Any]) -> None:
        if np.count_nonzero(over & done) or ("final_obs" in info and (live & done).any()):
            i = int(np.flatnonzero((over | live) & done)[0])
            raise WorldError(f"{self._where(i)}: its metadata say NEXT_STEP, but it did not reset that way")

    def _require_masked_reset(self, before: Any, after: Any, mask: Mask) -> None:
        for path, space, values, old in _walk(self.observation_space, after, before, "observation"):
            if not np.array_equal(self._fit(space, values, path)[~mask], self._fit(space, old, path)[~mask]):
                raise WorldError(f"{self.name}: reset ignores options['reset_mask']: use NEXT_STEP")

    def _require_finite(self, arrays: list[Array] | None) -> None:
        found = nonfinite(self.observation_space, self._leaves, self._reward)
        if found is None:
            return
        i, what = found
        if arrays is None or not self._length[i]:
            raise WorldError(f"{self.name}, environment {i}: on reset, {what}")
        action = describe(to_rows(self.action_space, arrays)[i])
        raise WorldError(f"{self._where(i)}: {what} (action {action})")

    def state_dict(self) -> dict[str, Any]:
        """Raises WorldError."""
        raise WorldError(
            f"{self.name}: the exact state of a vector environment is out of reach: give an id or a factory"
        )

    def load_state_dict(self, state: dict[str, Any]) -> Tree:
        """Raises WorldError."""
        self.state_dict()

    def render(self) -> Any:
        """An RGB picture of environment 0, uint8 [H, W, 3]."""
        pictures = self._call("render")
        if not isinstance(pictures, tuple | list) or not isinstance(pictures[0], np.ndarray):
            raise WorldError(f"{self.name}: render returned {describe(pictures)}, not pictures")
        return pictures[0].astype(np.uint8)

    def close(self) -> None:
        """Close the vector environment."""
        self._env.close()

    def _shown(self) -> Step:
        self.ended = self._ended_view.to(self.device, copy=True)
        return self._view if self.device.type == "cpu" else on_device(self._view, self.device)

    def _where(self, i: int) -> str:
        return f"{self.name}, environment {i}, step {self._length[i]} of its episode"


def _walk(space: Space[Any], value: Any, other: Any, path: str) -> Iterator[tuple[str, Space[Any], Any, Any]]:
    """The parts of `value` (batched or single) with their space and the matching part of `other`."""
    if isinstance(space, Dict):
        if not isinstance(value, dict) or value.keys() != space.spaces.keys():
            raise MismatchError(f"{path} is {describe(value)}, the space declares keys {list(space.spaces)}")
        for key, part in space.spaces.items():
            yield from _walk(part, value[key], other[key], f"{path}[{key!r}]")
    elif isinstance(space, Tuple):
        if not isinstance(value, tuple) or len(value) != len(space.spaces):
            raise MismatchError(f"{path} is {describe(value)}, the space declares {len(space.spaces)} parts")
        for k, part in enumerate(space.spaces):
            yield from _walk(part, value[k], other[k], f"{path}[{k}]")
    else:
        yield path, space, value, other
