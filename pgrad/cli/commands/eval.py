"""`pgrad eval DIR`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from pgrad.cli.names import require_positive
from pgrad.cli.parse import parse
from pgrad.cli.several import say_mean
from pgrad.cli.waiting import waiting
from pgrad.errors import CheckpointError, UsageError
from pgrad.report.evaluate import Evaluation
from pgrad.run import Run, load
from pgrad.run.config import RunConfig
from pgrad.run.seeds_folder import holds_seeds, read_seeds, seed_folder

SPLITS = {"held_out": "", "train": " · prompts trained on", "larger": " · larger problems"}
"""Which prompts, as the report calls them."""


@dataclass(frozen=True)
class Eval:
    """Evaluate the agent of a run in fresh worlds; the same command gives the same numbers."""

    run_dir: Annotated[Positional[str], arg(metavar="DIR", help_behavior_hint="(required)")] = ""
    """the folder of the run, or of several seeds: each of them, then their mean"""
    episodes: int = 100
    """whole episodes to run"""
    stochastic: FlagCreatePairsOff[bool] = False
    """sample actions, as in training; otherwise the mode of the policy acts"""
    checkpoint: str = "latest"
    """latest, best (by the return during training), or a checkpoint's name, such as 000000102400, or path"""
    seed: int | None = None
    """what the worlds and the sampling draw from; none: derived from the seed of the run"""
    n_envs: int = 8
    """environments side by side"""
    split: Literal["held_out", "train", "larger"] = "held_out"
    """which prompts: those held out, those trained on, or of a task larger ones than were ever trained on"""

    def __post_init__(self) -> None:
        require_positive("episodes", self.episodes)
        require_positive("n_envs", self.n_envs)


def run(args: list[str]) -> int:
    """Evaluate, and print the record."""
    given: Eval = parse(Eval, "eval", args)
    if not given.run_dir:
        raise UsageError("evaluate which run? For example: pgrad eval runs/ppo/CartPole-v1-seed0")
    if holds_seeds(given.run_dir):
        return _several(given)
    loaded = load(given.run_dir, given.checkpoint)
    print(f"{_what(loaded.config, given)}, {loaded.timesteps:,} steps", flush=True)
    print(_evaluated(loaded, given))
    return 0


def _several(given: Eval) -> int:
    """Every seed in turn, then all of them; 2 where one cannot be read."""
    if Path(given.checkpoint).name != given.checkpoint:
        raise UsageError("the path of a checkpoint is of one seed: evaluate that one, DIR/seed0")
    path = Path(given.run_dir)
    config, seeds = read_seeds(path)
    print(f"{_what(config, given)}, {len(seeds)} seeds", flush=True)
    means = []
    for seed in seeds:
        try:
            loaded = load(seed_folder(path, seed), given.checkpoint)
        except CheckpointError as error:
            print(f"pgrad: error: seed {seed}: {error}", file=sys.stderr)
            continue
        result = _evaluated(loaded, given)
        print(f"{f'seed {seed}':<15}{result}, {loaded.timesteps:,} steps", flush=True)
        means.append(result.mean)
    if means:
        say_mean(means)
    return 0 if len(means) == len(seeds) else CheckpointError.exit_code


def _evaluated(loaded: Run, given: Eval) -> Evaluation:
    with waiting(f"{given.episodes:,} episodes"):
        return loaded.evaluate(
            given.episodes, not given.stochastic, seed=given.seed, n_envs=given.n_envs, split=given.split
        )


def _what(config: RunConfig, given: Eval) -> str:
    agent = given.checkpoint if given.checkpoint in ("latest", "best") else "chosen"
    return f"{config.algorithm_name} · {config.world_name}{SPLITS[given.split]} · {agent} agent"
