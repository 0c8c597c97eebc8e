"""How the running episodes of environments began and what was done in them: all of their state."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Space

from pgrad.environments.actions import action_buffers, to_rows
from pgrad.environments.replay import ActionLog, begin, from_json, random_state, set_random_state, to_json
from pgrad.environments.spaces import Array
from pgrad.errors import WorldError

Seeds = Sequence[int]


def environment_seeds(seed: int, n_envs: int) -> list[int]:
    """One independent seed below 2³¹ for each environment, the same however many there are after it."""
    return [int(s.generate_state(1)[0] >> 1) for s in np.random.SeedSequence(seed).spawn(n_envs)]


class History:
    """The running episodes of B environments: where their random numbers were, and the actions since."""

    def __init__(self, envs: Sequence[gymnasium.Env], seeds: Seeds, action_space: Space[Any]) -> None:
        self._envs, self._space, self.seeds = envs, action_space, list(seeds)
        self.log = ActionLog(action_buffers(action_space, len(envs)))
        # Where the random numbers were when the episode began; None: it began with the environment's seed.
        self._origin: list[dict[str, Any] | None] = [None] * len(envs)

    def begin(self, i: int, seeded: bool) -> Any:
        """What the reset of environment i returns, with its seed or where its random numbers are."""
        env = self._envs[i]
        self._origin[i] = None if seeded else random_state(env)
        answer = begin(env, self.seeds[i] if seeded else None)
        self.log.begin(i)
        return answer

    def align(self, first: int, n: int) -> None:
        """Put the random numbers of n environments where those of the first of them are."""
        alike = random_state(self._envs[first])
        for i in range(first, first + n):
            set_random_state(self._envs[i], alike)

    def state_dict(self) -> dict[str, Any]:
        """Everything, as arrays and JSON; `length` is −1 where an episode had more actions than are kept."""
        episodes = [self.log.actions(i) for i in range(len(self._envs))]
        kept = [episode for episode in episodes if episode is not None]
        parts = [np.concatenate(part) for part in zip(*kept, strict=True)]
        return {
            "seed": list(self.seeds),
            "origin": [to_json(origin) for origin in self._origin],
            "random": [to_json(random_state(env)) for env in self._envs],
            "length": np.array([-1 if e is None else len(e[0]) for e in episodes]),
            "action": {str(k): part for k, part in enumerate(parts)},
        }

    def load_state_dict(self, state: dict[str, Any], who: Callable[[int], str]) -> list[list[Array]]:
        """Put it back; returns the actions of each episode, which are to be played again.

        Raises WorldError where those of an episode were not kept; `who` names the environment.
        """
        parts, episodes = list(state["action"].values()), []
        stops = np.cumsum(np.maximum(state["length"], 0))
        for i, stop in enumerate(stops):
            if state["length"][i] < 0:
                raise WorldError(f"{who(i)}: its episode was too long for its actions to be kept")
            rows = slice(stop - int(state["length"][i]), stop)
            episodes.append([part[rows] for part in parts])
        self.seeds = list(state["seed"])
        self._origin = [from_json(origin) for origin in state["origin"]]
        self.log = ActionLog(action_buffers(self._space, len(self._envs)), episodes)
        return episodes

    def play(self, i: int, episode: list[Array]) -> tuple[Any, Any, bool]:
        """Begin the episode of environment i as it began, act as then: observation, info, whether over."""
        env, origin, over = self._envs[i], self._origin[i], False
        obs, info = begin(env, self.seeds[i])
        if origin is not None:
            set_random_state(env, origin)
            obs, info = begin(env)
        for action in to_rows(self._space, episode):
            obs, _, terminated, truncated, info = env.step(action)
            over = bool(terminated or truncated)
        return obs, info, over

    def require_arrival(self, i: int, state: dict[str, Any], same: bool, who: Callable[[int], str]) -> None:
        """Raise WorldError unless environment i shows the `same`, its random numbers where they were."""
        if not same or to_json(random_state(self._envs[i])) != state["random"][i]:
            raise WorldError(
                f"{who(i)}: its state cannot be restored exactly: its episode of {self.log.length(i)} "
                f"actions, played again, leads elsewhere (has it random numbers other than np_random, "
                f"does it remember earlier episodes, or is its simulator of another version?)"
            )


def require_same_world(state: dict[str, Any], name: str, n_envs: int) -> None:
    """Raise WorldError for the state of another world or number of environments."""
    if state.get("name") != name or len(state.get("seed", ())) != n_envs:
        theirs = f"{len(state.get('seed', ()))} × {state.get('name')}"
        raise WorldError(f"the state is of {theirs}, this world is {n_envs} × {name}")


def require_same_spaces(name: str, theirs: dict[str, list[Array]], mine: dict[str, list[Array]]) -> None:
    """Raise WorldError where arrays of a state are of other shapes or kinds than those of a world."""
    for key, arrays in mine.items():
        if [(x.shape[1:], x.dtype) for x in theirs[key]] != [(x.shape[1:], x.dtype) for x in arrays]:
            raise WorldError(f"{name}: the {key} space is not the one of the state")
