"""Worlds of their own, made for one evaluation or recording and closed after it."""

from typing import Any

from gymnasium.vector import VectorEnv

from pgrad.algorithms.validate import as_whole
from pgrad.data import Episodes, Trajectory
from pgrad.errors import UsageError
from pgrad.models import Agent
from pgrad.report.evaluate import Evaluation, eval_mode, evaluate
from pgrad.run.assemble import make_world, require_fit
from pgrad.run.config import RunConfig, RunOptions
from pgrad.run.language import evaluate_language
from pgrad.stopping import Stop, go_on
from pgrad.training.collect import Collector
from pgrad.training.streams import generator
from pgrad.worlds import World
from pgrad.worlds.language.kind import is_language


def evaluate_fresh(
    config: RunConfig,
    agent: Agent,
    *,
    episodes: int,
    deterministic: bool,
    seed: int,
    n_envs: int,
    split: str = "held_out",
    ready: Any = None,
    stop: Stop = go_on,
) -> Evaluation:
    """Evaluate in worlds of their own, made for it and closed after it.

    split: of prompts, which ones. ready: the world that is trained in; prompts are read once.
    """
    episodes = _count(episodes)
    if is_language(config.world):
        asked: dict[str, Any] = {"episodes": episodes, "split": split, "ready": ready, "stop": stop}
        return evaluate_language(config, agent, **asked, deterministic=deterministic, seed=seed)
    if split != "held_out":
        raise UsageError(f"{config.world_name} has no split {split!r}: those are of prompts")
    given = exists(config.world)
    world = make_world(config, n_envs=own_size(config.world) if given else min(episodes, n_envs), seed=seed)
    device = next(agent.parameters()).device
    try:
        require_fit(agent, world)
        noise = generator(seed, device)
        how: dict[str, Any] = {"deterministic": deterministic, "generator": noise, "stop": stop}
        return evaluate(agent, world, episodes=episodes, **how)
    finally:
        if not given:
            world.close()


def episodes_of(
    config: RunConfig, agent: Agent, *, episodes: int, deterministic: bool, seed: int, n_envs: int
) -> Trajectory:
    """Whole episodes in worlds of their own, one per column."""
    episodes = _count(episodes)
    if exists(config.world):
        raise UsageError("a world that was given ready-made cannot be made anew: give another, world=...")
    world = make_world(config, n_envs=min(episodes, n_envs), seed=seed)
    try:
        require_fit(agent, world)
        noise = generator(seed, next(agent.parameters()).device)
        with eval_mode(agent):
            collector = Collector(world, agent, noise, deterministic=deterministic)
            return collector.collect(Episodes(episodes))
    finally:
        world.close()


def _count(episodes: Any) -> int:
    episodes = as_whole(episodes)
    if not isinstance(episodes, int) or episodes < 1:
        raise UsageError(f"episodes must be a whole number ≥ 1, got {episodes!r}")
    return episodes


def exists(world: Any) -> bool:
    """Whether `world` is one that is there already, not a way to make as many as needed."""
    return isinstance(world, VectorEnv) or (not isinstance(world, str) and isinstance(world, World))


def own_size(world: Any) -> int:
    """How many environments a world brings that is there already, or the default."""
    if isinstance(world, VectorEnv):
        return int(world.num_envs)
    return int(world.n_envs) if exists(world) else RunOptions.n_envs
