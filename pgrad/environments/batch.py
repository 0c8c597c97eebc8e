"""Environments that are stepped one after the other in one process."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgrad.environments.actions import Actions, action_buffers
from pgrad.environments.answers import (
    NOTHING,
    bad_reset,
    nonfinite,
    require_flags,
    reset_problem,
    step_problem,
)
from pgrad.environments.atari import LIFE_LOST, loses_lives
from pgrad.environments.create import Recipe, create_alike, error_line, name_of
from pgrad.environments.history import History, require_same_spaces, require_same_world
from pgrad.environments.masks import KEY, ActionMasks
from pgrad.environments.picture import picture
from pgrad.environments.spaces import Array, MismatchError, buffers, describe, flat, number, staging, writer
from pgrad.environments.staged import Staged
from pgrad.errors import WorldError


class Environments:
    """B environments of one kind: what a `GymnasiumWorld` is made of (see `worlds/protocol.py`), in arrays.

    What they show is in buffers that are allocated once: `shown` (the observations, nested as their space),
    `obs` (the same, flat), `reward`, `flags` (terminated, truncated, ended), `masks.rows`. Every value that
    an environment returns is checked: WorldError names the environment, the step of its episode, what was
    declared and what came.

    The state is exact for environments that draw their random numbers from `np_random`, as Gymnasium asks,
    and keep nothing else from one episode to the next: it is how each episode began and the actions since.
    `load_state_dict` plays them again and compares the observation bit by bit.
    """

    def __init__(self, recipe: Recipe, seeds: Sequence[int], *, first: int = 0) -> None:
        """One environment for each seed; `first` is the number of the first one in messages."""
        self.n_envs = len(seeds)
        self._first = first
        self._envs = create_alike(recipe, self.n_envs, first)
        one = self._envs[0]
        self.name = name_of(one)
        self.observation_space, self.action_space = one.observation_space, one.action_space

        self.shown = buffers(self.observation_space, self.n_envs)
        self.obs = flat(self.shown)
        self.reward = np.zeros(self.n_envs, np.float32)
        self.flags = np.zeros((3, self.n_envs), np.bool_)
        staged = staging(self.observation_space, self.shown)
        self._write = writer(self.observation_space, staged)
        self._rewards = np.zeros(self.n_envs)
        self._staged = Staged((self.reward, *self.obs), (self._rewards, *flat(staged)))
        self._ends, (self._terminated, self._truncated, self._ended) = self.flags[:2], self.flags
        self.over = [False] * self.n_envs  # the same as `_ended`, quicker to look at one by one
        self._all, self._everyone = range(self.n_envs), np.ones(self.n_envs, np.bool_)

        self._steps = [env.step for env in self._envs]
        self._actions = Actions(self.action_space)
        self.masks = ActionMasks(self._envs)
        self._lives = loses_lives(one)
        self._history = History(self._envs, seeds, self.action_space)
        self._begun = False  # whether every environment has been reset
        self._checked = False  # whether a whole answer has been looked at

    def reset(self, group: int = 1) -> None:
        """Start a new episode in every environment; see `World.reset`."""
        if group == 1 or not self._begun:
            for i in self._all:
                self._restart(i, seeded=not self._begun)
            self._begun = True
        if group > 1:
            for first in self._all[::group]:
                self._history.align(first, group)
            for i in self._all:
                self._restart(i)
        self._ends.fill(False)
        self._rewards.fill(0.0)
        self._staged.show()
        self._require_finite(None)

    def step(self, given: Sequence[Array], active: NDArray[np.bool_] | None = None) -> None:
        """Step every environment once, with actions as sampled, one array for each part of their space.

        See `World.step`. Raises WorldError for what breaks the contract.
        """
        if not self._begun:
            raise WorldError(f"{self.name}: reset must be called before step")
        which: Sequence[int] = self._all
        counted = ~self._ended if True in self.over else self._everyone
        if active is not None:
            which = np.flatnonzero(active).tolist()
            counted = counted & active
        try:
            arrays = self._actions.arrays(given, counted)
        except MismatchError as error:
            where = f"{self.name}: " if error.row is None else self._where(error.row, 1)
            raise WorldError(f"{where}{error}") from None
        self._history.log.append(arrays, counted)
        rows = self._actions.rows(arrays)
        self._play(which, rows)
        if not self._staged.show_usual():
            self._staged.show()
            self._require_finite(rows)

    def _play(self, which: Sequence[int], rows: list[Any]) -> None:
        """One step of each environment in `which`, into the buffers."""
        steps, write, rewards, over = self._steps, self._write, self._rewards, self.over
        masked, lives = self.masks.given, self._lives
        rewards.fill(0.0)
        self._ends.fill(False)
        i, answer = 0, NOTHING
        try:
            for i in which:
                if over[i]:
                    self._restart(i)
                    continue
                answer = NOTHING
                answer = steps[i](rows[i])
                obs, reward, terminated, truncated, info = answer
                write(i, obs)
                rewards[i] = reward if isinstance(reward, float) else number(reward)
                if terminated or truncated:
                    require_flags(terminated, truncated)
                    over[i] = self._ended[i] = True
                    self._terminated[i] = terminated
                    self._truncated[i] = truncated and not terminated
                elif lives and LIFE_LOST in info:
                    self._terminated[i] = True
                if masked or (info and KEY in info):
                    self.masks.read(i, info, over[i])
            if not self._checked and answer is not NOTHING:
                require_flags(answer[2], answer[3])
                self._checked = True
        except WorldError:
            raise
        except Exception as error:
            problem = f"{step_problem(answer, error)} (action {describe(rows[i])})"
            raise WorldError(f"{self._where(i)}{problem}") from error

    def _restart(self, i: int, seeded: bool = False) -> None:
        answer = NOTHING
        try:
            answer = self._history.begin(i, seeded)
            obs, info = answer
            if not isinstance(info, dict):
                raise MismatchError(bad_reset(answer))
            self._write(i, obs)
            if not self._begun:
                self.masks.begin(info)
            if self.masks.given:
                self.masks.read(i, info, over=False)
        except Exception as error:
            raise WorldError(f"{self._who(i)}: {reset_problem(answer, error)}") from error
        self.over[i] = self._ended[i] = False

    def _require_finite(self, rows: list[Any] | None) -> None:
        """Find NaN and infinity before anything learns from them."""
        found = nonfinite(self.observation_space, self.obs, self.reward)
        if found is None:
            return
        i, what = found
        if rows is None or self._history.log.length(i) == 0:
            raise WorldError(f"{self._who(i)}: on reset, {what}")
        raise WorldError(f"{self._where(i)}{what} (action {describe(rows[i])})")

    def state_dict(self) -> dict[str, Any]:
        """How each episode began, the actions since, and what the environments show now: arrays and JSON.

        `length` is −1 where an episode had more actions than are kept; such a state cannot be loaded.
        """
        if not self._begun:
            raise WorldError(f"{self.name}: reset must be called before state_dict")
        return {
            "name": self.name,
            **self._history.state_dict(),
            "obs": {str(k): leaf.copy() for k, leaf in enumerate(self._display)},
            "ended": self._ended.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Play the episodes of a state again.

        Raises WorldError for a state of another world or number of environments, and where an environment
        does not show bit for bit the observation that was saved.
        """
        require_same_world(state, self.name, self.n_envs)
        parts = {key: list(state[key].values()) for key in ("action", "obs")}
        self.masks.given |= len(parts["obs"]) > len(self.obs)
        mine = {"action": action_buffers(self.action_space, self.n_envs), "obs": self._display}
        require_same_spaces(self.name, parts, mine)
        self._ends.fill(False)
        self._rewards.fill(0.0)
        for i, episode in enumerate(self._history.load_state_dict(state, self._who)):
            self._replay(i, episode)
            same = all(
                leaf[i].tobytes() == saved[i].tobytes()
                for leaf, saved in zip(self._display, parts["obs"], strict=True)
            )
            same &= self._ended[i] == bool(state["ended"][i])
            self._history.require_arrival(i, state, same, self._who)
        self._begun = True

    def _replay(self, i: int, episode: list[Array]) -> None:
        try:
            obs, info, over = self._history.play(i, episode)
            self._write(i, obs)
            if self.masks.given:
                self.masks.read(i, info, over)
        except Exception as error:
            raise WorldError(
                f"{self._who(i)}: playing its episode again raised {error_line(error)}"
            ) from error
        self.over[i] = self._ended[i] = over
        self._staged.show()

    def render(self) -> Any:
        """An RGB picture of environment 0, uint8 [H, W, 3]."""
        return picture(self._envs[0], self.name, self._who(0))

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs:
            env.close()

    @property
    def _display(self) -> list[Array]:
        """All that the environments show: observations, and masks where there are any."""
        return [*self.obs, self.masks.rows] if self.masks.given else self.obs

    def _who(self, i: int) -> str:
        return f"{self.name}, environment {self._first + i}"

    def _where(self, i: int, ahead: int = 0) -> str:
        return f"{self._who(i)}, step {self._history.log.length(i) + ahead} of its episode: "
