"""Gymnasium environments, stepped one after the other in this process."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pgrad.data.masked import Masked
from pgrad.data.tree import Tree, leaves, map_tree
from pgrad.errors import UsageError, WorldError
from pgrad.worlds.gym.actions import action_buffers, to_arrays, to_rows
from pgrad.worlds.gym.answers import NOTHING, RESET, nonfinite, require_flags, reset_problem, step_problem
from pgrad.worlds.gym.atari import LIFE_LOST, loses_lives
from pgrad.worlds.gym.create import Recipe, create, error_line
from pgrad.worlds.gym.masks import KEY, ActionMasks
from pgrad.worlds.gym.replay import ActionLog, begin, from_json, random_state, set_random_state, to_json
from pgrad.worlds.protocol import Step
from pgrad.worlds.spaces import (
    Array,
    MismatchError,
    check_action_space,
    check_observation_space,
    describe,
    number,
    on_device,
    writer,
    zeros,
)


def environment_seeds(seed: int, n_envs: int) -> list[int]:
    """One independent seed below 2³¹ for each environment, the same however many there are after it."""
    return [int(s.generate_state(1)[0] >> 1) for s in np.random.SeedSequence(seed).spawn(n_envs)]


class GymnasiumWorld:
    """B environments of one kind: a `World` (see `protocol.py`).

    Observations are written into buffers that are allocated once. Every value that an environment returns is
    checked: WorldError names the environment, the step of its episode, what was declared and what came.

    The state is exact for environments that draw their random numbers from `np_random`, as Gymnasium asks,
    and keep nothing else from one episode to the next: it is how each episode began and the actions since.
    `load_state_dict` plays them again and compares the observation bit by bit.
    """

    def __init__(
        self, recipe: Recipe, seeds: Sequence[int], *, device: torch.device | str = "cpu", first: int = 0
    ) -> None:
        """One environment for each seed; `first` is the number of the first one in messages."""
        self.n_envs = len(seeds)
        self.device = torch.device(device)
        self._first, self._seeds = first, list(seeds)
        self._envs = [create(recipe) for _ in seeds]
        one = self._envs[0]
        self.name = one.spec.id if one.spec is not None else type(one.unwrapped).__name__
        self.observation_space, self.action_space = one.observation_space, one.action_space
        check_observation_space(self.observation_space, self.name)
        check_action_space(self.action_space, self.name)
        for i, env in enumerate(self._envs):
            if (env.observation_space, env.action_space) != (self.observation_space, self.action_space):
                raise UsageError(f"{self._who(i)} has other spaces than environment {first}")

        tensors = zeros(self.observation_space, self.n_envs)
        flags = torch.zeros(3, self.n_envs, dtype=torch.bool)
        reward = torch.zeros(self.n_envs)
        self._view = Step(tensors, reward, flags[0], flags[1])
        buffers = map_tree(lambda x: x.numpy(), tensors)
        self._obs = list(leaves(buffers))
        self._write = writer(self.observation_space, buffers)
        self._reward, self._reward64 = reward.numpy(), torch.zeros(self.n_envs, dtype=torch.float64)
        self._rewards = self._reward64.numpy()
        self._floats = [leaf for leaf in (self._reward, *self._obs) if leaf.dtype == np.float32]
        self._terminated, self._truncated, self._ended = flags.numpy()
        self._ended_view = flags[2]
        self.ended = self._ended_view.to(self.device, copy=True)
        self._over = [False] * self.n_envs  # the same as _ended, quicker to look at one by one
        self._all = range(self.n_envs)

        self._steps = [env.step for env in self._envs]
        self._masks = ActionMasks(self._envs)
        self._lives = loses_lives(one)
        self._log = ActionLog(action_buffers(self.action_space, self.n_envs))
        # Where the random numbers were when the episode began; None: it began with the environment's seed.
        self._origin: list[dict[str, Any] | None] = [None] * self.n_envs
        self._begun = False  # whether every environment has been reset
        self._checked = False  # whether a whole answer has been looked at

    def reset(self, group: int = 1) -> Tree:
        """Start a new episode in every environment; see `World.reset`."""
        if group == 1 or not self._begun:
            for i in self._all:
                self._restart(i, seeded=not self._begun)
            self._begun = True
        for first in self._all[::group] if group > 1 else ():
            alike = random_state(self._envs[first])
            for i in range(first, first + group):
                set_random_state(self._envs[i], alike)
                self._restart(i)
        self._reward.fill(0.0)
        self._require_finite(None)
        return self._shown().obs

    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        """Step every environment once; see `World.step`. Raises WorldError for what breaks the contract."""
        if not self._begun:
            raise WorldError(f"{self.name}: reset must be called before step")
        which: Sequence[int] = self._all
        counted = ~self._ended
        if active is not None:
            chosen = active.cpu().numpy()
            which = np.flatnonzero(chosen).tolist()
            counted &= chosen
        try:
            arrays = to_arrays(self.action_space, action, counted)
        except MismatchError as error:
            where = f"{self.name}: " if error.row is None else self._where(error.row, 1)
            raise WorldError(f"{where}{error}") from None
        self._log.append(arrays, counted)
        rows = to_rows(self.action_space, arrays)
        self._play(which, rows)
        self._require_finite(rows)
        return self._shown()

    def _play(self, which: Sequence[int], rows: list[Any]) -> None:
        """One step of each environment in `which`, into the buffers."""
        steps, write, rewards, over = self._steps, self._write, self._rewards, self._over
        masked, lives = self._masks.given, self._lives
        rewards.fill(0.0)
        self._terminated.fill(False)
        self._truncated.fill(False)
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
                rewards[i] = reward if type(reward) is float else number(reward)
                if terminated or truncated:
                    require_flags(terminated, truncated)
                    over[i] = self._ended[i] = True
                    self._terminated[i] = terminated
                    self._truncated[i] = truncated and not terminated
                elif lives and LIFE_LOST in info:
                    self._terminated[i] = True
                if masked or (info and KEY in info):
                    self._masks.read(i, info, over[i])
            if not self._checked and answer is not NOTHING:
                require_flags(answer[2], answer[3])
                self._checked = True
        except WorldError:
            raise
        except Exception as error:
            problem = f"{step_problem(answer, error)} (action {describe(rows[i])})"
            raise WorldError(f"{self._where(i)}{problem}") from error
        self._view.reward.copy_(self._reward64)

    def _restart(self, i: int, seeded: bool = False) -> None:
        env, answer = self._envs[i], NOTHING
        try:
            self._origin[i] = None if seeded else random_state(env)
            answer = begin(env, self._seeds[i] if seeded else None)
            obs, info = answer
            if not isinstance(info, dict):
                raise MismatchError(f"{RESET}, info is {describe(info)}")
            self._write(i, obs)
            if not self._begun:
                self._masks.begin(info)
            if self._masks.given:
                self._masks.read(i, info, over=False)
        except Exception as error:
            raise WorldError(f"{self._who(i)}: {reset_problem(answer, error)}") from error
        self._over[i] = self._ended[i] = False
        self._log.begin(i)

    def _require_finite(self, rows: list[Any] | None) -> None:
        """Find NaN and infinity before anything learns from them."""
        if all(np.count_nonzero(np.isfinite(leaf)) == leaf.size for leaf in self._floats):
            return
        found = nonfinite(self.observation_space, self._obs, self._reward)
        assert found is not None
        i, what = found
        if rows is None or self._log.length(i) == 0:
            raise WorldError(f"{self._who(i)}: on reset, {what}")
        raise WorldError(f"{self._where(i)}{what} (action {describe(rows[i])})")

    def state_dict(self) -> dict[str, Any]:
        """How each episode began, the actions since, and what the environments show now.

        `length` is −1 where an episode had more actions than are kept; such a state cannot be loaded.
        """
        if not self._begun:
            raise WorldError(f"{self.name}: reset must be called before state_dict")
        episodes = [self._log.actions(i) for i in self._all]
        kept = [episode for episode in episodes if episode is not None]
        parts = [np.concatenate(part) for part in zip(*kept, strict=True)]
        return {
            "name": self.name,
            "seed": list(self._seeds),
            "origin": [to_json(origin) for origin in self._origin],
            "random": [to_json(random_state(env)) for env in self._envs],
            "length": torch.tensor([-1 if e is None else len(e[0]) for e in episodes]),
            "action": {str(k): torch.from_numpy(part) for k, part in enumerate(parts)},
            "obs": {str(k): torch.from_numpy(leaf.copy()) for k, leaf in enumerate(self._display)},
            "ended": torch.from_numpy(self._ended.copy()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> Tree:
        """Play the episodes of a state again; returns the current observations.

        Raises WorldError for a state of another world or number of environments, and where an environment
        does not show bit for bit the observation that was saved.
        """
        if state.get("name") != self.name or len(state.get("seed", ())) != self.n_envs:
            theirs = f"{len(state.get('seed', ()))} × {state.get('name')}"
            raise WorldError(f"the state is of {theirs}, this world is {self.n_envs} × {self.name}")
        parts = {key: [x.numpy() for x in state[key].values()] for key in ("action", "obs")}
        self._masks.given |= len(parts["obs"]) > len(self._obs)
        mine = {"action": action_buffers(self.action_space, self.n_envs), "obs": self._display}
        for key, arrays in mine.items():
            if [(x.shape[1:], x.dtype) for x in parts[key]] != [(x.shape[1:], x.dtype) for x in arrays]:
                raise WorldError(f"{self.name}: the {key} space is not the one of the state")
        episodes = []
        stops = np.cumsum(state["length"].clamp(min=0).numpy())
        for i, stop in enumerate(stops):
            if state["length"][i] < 0:
                raise WorldError(f"{self._who(i)}: its episode was too long for its actions to be kept")
            rows = slice(stop - int(state["length"][i]), stop)
            episodes.append([part[rows] for part in parts["action"]])
        self._seeds = list(state["seed"])
        self._origin = [from_json(origin) for origin in state["origin"]]
        self._log = ActionLog(mine["action"], episodes)
        for i, episode in enumerate(episodes):
            self._replay(i, episode)
            same = all(
                leaf[i].tobytes() == saved[i].tobytes()
                for leaf, saved in zip(self._display, parts["obs"], strict=True)
            )
            same &= self._ended[i] == bool(state["ended"][i])
            if not same or to_json(random_state(self._envs[i])) != state["random"][i]:
                raise WorldError(
                    f"{self._who(i)}: its state cannot be restored exactly: its episode of {len(episode[0])} "
                    f"actions, played again, leads elsewhere (has it random numbers other than np_random, "
                    f"does it remember earlier episodes, or is its simulator of another version?)"
                )
        self._begun = True
        self._reward.fill(0.0)
        return self._shown().obs

    def _replay(self, i: int, episode: list[Array]) -> None:
        env, origin = self._envs[i], self._origin[i]
        terminated = truncated = False
        try:
            obs, info = begin(env, self._seeds[i])
            if origin is not None:
                set_random_state(env, origin)
                obs, info = begin(env)
            for action in to_rows(self.action_space, episode):
                obs, _, terminated, truncated, info = env.step(action)
            self._write(i, obs)
            if self._masks.given:
                self._masks.read(i, info, bool(terminated or truncated))
        except Exception as error:
            raise WorldError(
                f"{self._who(i)}: playing its episode again raised {error_line(error)}"
            ) from error
        self._over[i] = self._ended[i] = bool(terminated or truncated)

    def render(self) -> Any:
        """An RGB picture of environment 0, uint8 [H, W, 3]."""
        if self._envs[0].render_mode is None:
            raise WorldError(
                f"{self.name} draws no pictures: make it with render=True (a factory: render_mode)"
            )
        try:
            picture = self._envs[0].render()
        except Exception as error:
            raise WorldError(f"{self._who(0)}: render raised {error_line(error)}") from error
        if not isinstance(picture, np.ndarray) or picture.ndim != 3:
            raise WorldError(f"{self._who(0)}: render returned {describe(picture)}, not a picture")
        return picture.astype(np.uint8)

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs:
            env.close()

    @property
    def _display(self) -> list[Array]:
        """All that the environments show: observations, and masks where there are any."""
        return [*self._obs, self._masks.rows] if self._masks.given else self._obs

    def _shown(self) -> Step:
        if self._masks.given and not isinstance(self._view.obs, Masked):
            self._view = self._view._replace(obs=Masked(self._view.obs, self._masks.allowed))
        self.ended = self._ended_view.clone().to(self.device)
        return self._view if self.device.type == "cpu" else on_device(self._view, self.device)

    def _who(self, i: int) -> str:
        return f"{self.name}, environment {self._first + i}"

    def _where(self, i: int, ahead: int = 0) -> str:
        return f"{self._who(i)}, step {self._log.length(i) + ahead} of its episode: "
