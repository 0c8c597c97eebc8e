"""`pgrad eval DIR`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from pgrad.cli.parse import parse
from pgrad.errors import UsageError
from pgrad.run import load

SPLITS = {"held_out": "", "train": " · prompts trained on", "larger": " · larger problems"}
"""Which prompts, as the report calls them."""


@dataclass(frozen=True)
class Eval:
    """Evaluate the agent of a run in fresh worlds; the same command gives the same numbers."""

    run_dir: Annotated[Positional[str], arg(metavar="DIR", help_behavior_hint="(required)")] = ""
    """the folder of the run"""
    episodes: int = 100
    """whole episodes to run"""
    stochastic: FlagCreatePairsOff[bool] = False
    """sample actions, as in training; otherwise the mode of the policy acts"""
    checkpoint: Literal["latest", "best"] = "latest"
    """the last agent, or the one with the best return during training"""
    seed: int | None = None
    """what the worlds and the sampling draw from; none: derived from the seed of the run"""
    n_envs: int = 8
    """environments side by side"""
    split: Literal["held_out", "train", "larger"] = "held_out"
    """which prompts: those held out, those trained on, or of a task larger ones than were ever trained on"""


def run(args: list[str]) -> int:
    """Evaluate, and print the record."""
    given: Eval = parse(Eval, "eval", args)
    if not given.run_dir:
        raise UsageError("evaluate which run? For example: pgrad eval runs/ppo/CartPole-v1-seed0")
    loaded = load(given.run_dir, given.checkpoint)
    result = loaded.evaluate(
        given.episodes, not given.stochastic, seed=given.seed, n_envs=given.n_envs, split=given.split
    )
    what = f"{loaded.config.algorithm_name} · {loaded.config.world_name}"
    what += SPLITS[given.split]
    print(f"{what} · {given.checkpoint} agent, {loaded.timesteps:,} steps")
    print(result)
    return 0
