"""Recordings that Minari holds (minari.farama.org), as recordings of pgrad."""

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Tuple

from pgrad.environments.masks import KEY
from pgrad.environments.spaces import Array, MismatchError, fit
from pgrad.errors import UsageError
from pgrad.training.disk.demonstrations import Recording
from pgrad.worlds.protocol import World

PREFIX = "minari:"


def load_minari(dataset: str, world: World) -> Recording:
    """The episodes of a dataset that is on this machine, as `world` would show them.

    Raises UsageError where Minari or the dataset is missing, has action masks, or does not fit the spaces of
    `world`.
    """
    if find_spec("minari") is None:
        raise UsageError(f"{PREFIX}{dataset} needs Minari: pip install 'pgrad[minari]'")
    minari = import_module("minari")
    try:
        found = minari.load_dataset(dataset)
    except (FileNotFoundError, ValueError, KeyError) as error:
        line = " ".join(str(error).split())
        raise UsageError(f"no Minari dataset {dataset!r} here: minari download {dataset} ({line})") from error
    try:
        episodes = list(found.iterate_episodes())
    except Exception as error:  # of whatever library reads that kind of file
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"{PREFIX}{dataset} cannot be read: {line}") from error
    if any(KEY in (episode.infos or {}) for episode in episodes):
        raise UsageError(
            f"{PREFIX}{dataset} has action masks (infos[{KEY!r}]), which are not read from Minari: record "
            "with pgrad play RUN --record FILE"
        )
    try:
        parts = [_episode(episode, world) for episode in episodes]
    except (MismatchError, KeyError, IndexError) as error:
        raise UsageError(f"{PREFIX}{dataset} does not fit {world.name}: {error}") from error
    columns = [torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True)]
    n_obs = len(parts[0]) - len(list(_leaves(world.action_space))) - 4
    reward, terminated, done, mask = columns[-4:]
    facts = {"logp": torch.zeros_like(reward), "reward": reward, "terminated": terminated}
    lengths = [len(episode.rewards) for episode in episodes]
    return Recording(
        tuple(columns[:n_obs]),
        None,
        tuple(columns[n_obs:-4]),
        facts | {"done": done, "mask": mask},
        {"lengths": lengths, "source": f"{PREFIX}{dataset}"},
        f"{PREFIX}{dataset} of {sum(lengths)} decisions",
    )


def _episode(episode: Any, world: World) -> list[Array]:
    """Leaves of observations and of actions, reward, terminated, done, mask, each [length + 1, ...]."""
    n = len(episode.rewards)

    def longer(x: Array, last: Any) -> Array:
        return np.concatenate([x, np.full_like(x[:1], last)])

    obs = [
        fit(s, x, "observation", (n + 1,)) for s, x in _pairs(world.observation_space, episode.observations)
    ]
    action = []
    for space, value in _pairs(world.action_space, episode.actions):
        x = fit(space, value, "action", (n,))
        x = x.astype(np.float32 if isinstance(space, Box) else np.int64)
        action.append(longer(x.reshape(n, -1) if space.shape else x, 0))
    terminated = np.asarray(episode.terminations, np.bool_)
    done = terminated | np.asarray(episode.truncations, np.bool_)
    done[-1] = True
    reward = np.asarray(episode.rewards, np.float32)
    mask = longer(np.ones(n, np.float32), 0.0)
    return [*obs, *action, longer(reward, 0.0), longer(terminated, False), longer(done, True), mask]


def _leaves(space: Space[Any]) -> Iterator[Space[Any]]:
    if isinstance(space, Dict | Tuple):
        for part in space.spaces.values() if isinstance(space, Dict) else space.spaces:
            yield from _leaves(part)
    else:
        yield space


def _pairs(space: Space[Any], value: Any) -> Iterator[tuple[Space[Any], Any]]:
    if isinstance(space, Dict):
        for key, part in space.spaces.items():
            yield from _pairs(part, value[key])
    elif isinstance(space, Tuple):
        for part, one in zip(space.spaces, value, strict=True):
            yield from _pairs(part, one)
    else:
        yield space, value
