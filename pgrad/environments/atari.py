"""Atari games as the field plays them (Mnih et al. 2015; Machado et al. 2018).

Up to 30 no-ops at the start, each action for 4 frames of which the last two are merged by their maximum,
84×84 grey pixels, 4 of them stacked, FIRE where a game waits for it. A lost life is an end to learn from
(`terminated`) but no end of the episode: returns are those of whole games, in raw points, in training as in
evaluation. Agents learn from the sign of the reward unless told otherwise. Whether actions stick is the id's:
with probability 0.25 per frame in ALE/…-v5, never in …NoFrameskip-v4.
"""

from importlib import import_module
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import AtariPreprocessing, TimeLimit

FRAMES = 4
"""Observations in a stack, and frames for which an action is repeated."""
LIFE_LOST = "life_lost"
"""In `info` where a life was lost and the game goes on."""

OPTIONS = ("noop_max", "frame_skip", "screen_size", "episodic_life")
"""What `kwargs` may set; `preprocess=False` leaves the game as it is."""


def is_atari(source: Any) -> bool:
    """Whether this is a registered Atari game."""
    return isinstance(source, EnvSpec) and str(source.entry_point).startswith("ale_py")


def is_preprocessed(source: Any, kwargs: dict[str, Any]) -> bool:
    """Whether this is an Atari game that is shown as the field does: a picture, and not asked for raw."""
    return (
        is_atari(source)
        and {**source.kwargs, **kwargs}.get("obs_type") != "ram"
        and not any({**source.kwargs, **kwargs}.get(name) for name in ("sound_obs", "continuous"))
        and bool(kwargs.get("preprocess", True))
    )


def make_atari(spec: EnvSpec, kwargs: dict[str, Any]) -> gymnasium.Env:
    """The game, preprocessed where `is_preprocessed`. `kwargs` are those of the emulator and `OPTIONS`."""
    ale_py = import_module("ale_py")
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # it greets otherwise, in every process
    if not is_preprocessed(spec, kwargs):
        return gymnasium.make(spec, **{key: x for key, x in kwargs.items() if key != "preprocess"})
    options = {key: kwargs[key] for key in OPTIONS if key in kwargs}
    episodic = bool(options.pop("episodic_life", True))
    emulator = {key: x for key, x in kwargs.items() if key not in (*OPTIONS, "preprocess")}
    if "frameskip" in kwargs:  # the emulator's name for it
        options.setdefault("frame_skip", kwargs["frameskip"])
    limit = emulator.pop("max_episode_steps", None)  # in actions, not in frames
    env: gymnasium.Env = gymnasium.make(spec, **{**emulator, "frameskip": 1, "obs_type": "grayscale"})
    game = Game(AtariPreprocessing(env, **{"frame_skip": FRAMES, **options}), episodic)
    return game if limit is None else TimeLimit(game, limit)


class Game(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Presses FIRE where the game waits for it, and says where a life was lost."""

    def __init__(self, env: gymnasium.Env, episodic: bool) -> None:
        super().__init__(env)
        meanings = env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]
        self._fires = len(meanings) > 2 and meanings[1] == "FIRE"
        self._episodic = episodic
        self._lives = 0
        self.metadata = {**env.metadata, "render_fps": 60 / getattr(env, "frame_skip", 1)}

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """A new game, begun."""
        obs, info = self.env.reset(**arguments)
        if self._fires:
            obs, _, terminated, truncated, info = self.env.step(1)
            if terminated or truncated:
                obs, info = self.env.reset(**arguments)
        self._lives = info["lives"]
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One action; where it costs a life the next ball, wave or round is begun."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        lost = 0 < info["lives"] < self._lives and not (terminated or truncated)
        if lost and self._fires:
            obs, more, terminated, truncated, info = self.env.step(1)
            reward = float(reward) + float(more)
        self._lives = info["lives"]
        return (
            obs,
            reward,
            terminated,
            truncated,
            {**info, LIFE_LOST: True} if lost and self._episodic else info,
        )


def loses_lives(env: gymnasium.Env) -> bool:
    """Whether `info` may say that a life was lost."""
    layer: Any = env
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, Game):
            return True
        layer = layer.env
    return False
