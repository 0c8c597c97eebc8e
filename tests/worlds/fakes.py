"""Fake Gymnasium environments whose every number can be told in advance."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from pgrad.worlds.protocol import World
from tests.worlds.tools import sampler

TERMINATED, TRUNCATED, BOTH = "terminated", "truncated", "both"


class CountingEnv(gymnasium.Env[np.ndarray, int]):
    """Episodes of given lengths and endings, in turn; every observation says where it is from.

    Observation: a random number drawn at reset, the episode, the step in it, the last action (−1 at first).
    Reward of step t of episode e, counted from 1 and 0: 1000·e + 10·t + action.
    `shuffled`: the number of an episode is drawn at reset, so that nothing is remembered from the one before.
    """

    observation_space = spaces.Box(-1.0, 1e6, (4,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(
        self,
        lengths: Sequence[int] = (3, 1, 5),
        endings: Sequence[str] = (TERMINATED, TRUNCATED, BOTH),
        shuffled: bool = False,
    ) -> None:
        self.lengths, self.endings, self.shuffled = tuple(lengths), tuple(endings), shuffled
        self.episode = -1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.t, self.action = self.episode + 1, 0, -1
        self.tag = int(self.np_random.integers(1_000_000))
        if self.shuffled:
            self.episode = int(self.np_random.integers(len(self.lengths) * len(self.endings)))
        return self._obs(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        length = self.lengths[self.episode % len(self.lengths)]
        assert self.action_space.contains(action), f"action {action!r} {type(action)}"
        assert self.t < length, "stepped after the end of an episode"
        self.t, self.action = self.t + 1, int(action)
        over = self.t == length
        ending = self.endings[self.episode % len(self.endings)]
        reward = 1000.0 * self.episode + 10.0 * self.t + self.action
        return self._obs(), reward, over and ending != TRUNCATED, over and ending != TERMINATED, {}

    def _obs(self) -> np.ndarray:
        return np.array([self.tag, self.episode, self.t, self.action], dtype=np.float32)


class StructuredEnv(gymnasium.Env[dict[str, Any], dict[str, Any]]):
    """Nested spaces; an observation shows the last action as it arrived. Episodes last six steps."""

    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (3, 8, 8), np.uint8),
            "pair": spaces.Tuple(
                (spaces.MultiDiscrete([4, 3]), spaces.Box(-np.inf, np.inf, (2,), np.float64))
            ),
            "place": spaces.Discrete(7),
        }
    )
    action_space = spaces.Dict(
        {
            "choice": spaces.Discrete(3, start=1),
            "move": spaces.Tuple((spaces.Box(-1.0, 0.5, (2,), np.float32), spaces.MultiBinary(3))),
            "switches": spaces.MultiDiscrete([4, 3]),
        }
    )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        self.image = self.np_random.integers(0, 256, (3, 8, 8), dtype=np.uint8)
        return self._obs(np.zeros(2), np.zeros(2, np.int64)), {}

    def step(self, action: dict[str, Any]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"action {action!r}"
        self.t += 1
        move, buttons = action["move"]
        reward = float(action["choice"] + 10 * buttons.sum())
        return self._obs(move.astype(np.float64), action["switches"]), reward, self.t == 6, False, {}

    def _obs(self, move: np.ndarray, switches: np.ndarray) -> dict[str, Any]:
        return {"image": self.image, "pair": (switches, move), "place": np.int64(self.t)}


def counting_env(
    lengths: Sequence[int], endings: Sequence[str], limit: int | None = None, shuffled: bool = False
) -> gymnasium.Env[Any, Any]:
    """A CountingEnv, under Gymnasium's TimeLimit where there is a `limit`."""
    env = CountingEnv(lengths, endings, shuffled)
    return env if limit is None else TimeLimit(env, limit)


def counting_factory(
    lengths: Sequence[int], endings: Sequence[str], limit: int | None = None, shuffled: bool = False
) -> partial[gymnasium.Env[Any, Any]]:
    """The same as a factory that a worker process can be sent."""
    return partial(counting_env, tuple(lengths), tuple(endings), limit, shuffled)


def check_counting(
    world: World,
    lengths: Sequence[int],
    endings: Sequence[str],
    limit: int | None = None,
    *,
    steps: int = 60,
    in_turn: bool = True,
) -> None:
    """Hold every row, return and length of a new world of CountingEnvs (not shuffled) against the truth.

    `in_turn` false: the world may reset more than once between two episodes, so that some are never seen.
    """
    obs = world.reset().clone()
    actions = sampler(world, 0)
    B = world.n_envs
    episode, length, total, acted, over = [0] * B, [0] * B, [0.0] * B, [0] * B, [False] * B
    finished = 0
    assert obs[:, 1:].tolist() == [[0, 0, -1]] * B
    for _ in range(steps):
        action, before = actions(), obs
        step = world.step(action)
        obs = step.obs.clone()
        for i in range(B):
            shown, reward = obs[i].tolist(), step.reward[i].item()
            flags = (bool(step.terminated[i]), bool(step.truncated[i]))
            if over[i]:
                following = episode[i] + 1 if in_turn else max(episode[i] + 1, int(shown[1]))
                episode[i], length[i], total[i], acted[i], over[i] = following, 0, 0.0, 0, False
                assert shown[1:] == [following, 0, -1], f"a reset row shows {shown}"
                assert (reward, flags) == (0.0, (False, False)), f"a reset row has {reward}, {flags}"
                continue
            e, a = episode[i], int(action[i])
            t = length[i] = length[i] + 1
            total[i], acted[i] = total[i] + reward, acted[i] + a
            ending = endings[e % len(endings)] if t == lengths[e % len(lengths)] else ""
            terminated = ending in (TERMINATED, BOTH)
            truncated = not terminated and (ending == TRUNCATED or t == limit)
            assert shown == [before[i, 0].item(), e, t, a], f"step {t} of episode {e} shows {shown}"
            assert reward == 1000 * e + 10 * t + a, f"step {t} of episode {e} has reward {reward}"
            assert flags == (terminated, truncated), f"step {t} of episode {e} has flags {flags}"
            if any(flags):
                assert t == min(lengths[e % len(lengths)], limit or t), f"episode {e} had {t} steps"
                assert total[i] == 1000 * e * t + 5 * t * (t + 1) + acted[i], f"episode {e}: {total[i]}"
                over[i], finished = True, finished + 1
        assert world.ended.tolist() == over, "`ended` is not what ended"
    assert finished > 2 * B, "too few episodes to tell"
