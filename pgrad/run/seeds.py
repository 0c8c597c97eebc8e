"""One configuration with several seeds, side by side: a run directory each, in one folder."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgrad.algorithms import ALGORITHMS
from pgrad.errors import UsageError
from pgrad.report.plots import TRAINING
from pgrad.run.assemble import make_training
from pgrad.run.config import CUSTOM, RunConfig
from pgrad.run.result import Run
from pgrad.run.scoreboard import Scoreboard
from pgrad.run.seeds_folder import can_go_on, draw, new_folder, read_seeds, seed_folder, write
from pgrad.run.side_by_side import Job, Outcome, Tell, at_once, side_by_side
from pgrad.run.start import resume, train
from pgrad.run.threads import threads_for
from pgrad.run.warm import begin_with
from pgrad.training.disk.checkpoint import checkpoints, steps_of
from pgrad.training.disk.log import read
from pgrad.training.signals import StopOnSignal
from pgrad.training.versions import cores
from pgrad.worlds.gym.vector import NOT_CONTINUED
from pgrad.worlds.language.kind import is_language


@dataclass(frozen=True)
class Shown:
    """What is logged and shown beside the runs: as in `train`."""

    episodes: int = 20
    """episodes of the evaluation at the end of each; 0 for none"""
    tensorboard: bool = False
    wandb: str | None = None
    progress: bool = True


@dataclass(frozen=True)
class Seeds:
    """What several seeds came to."""

    path: Path
    seeds: tuple[int, ...]
    outcomes: dict[int, Outcome]
    """by seed; those that a signal did not let begin are missing"""
    signal: int | None = None
    """what stopped them"""

    @property
    def results(self) -> dict[int, dict[str, Any]]:
        """What each seed that came to its end returned: `return`, `evaluation`, `text`, `timesteps`."""
        return {seed: found.value for seed, found in self.outcomes.items() if found.state == "done"}

    @property
    def values(self) -> dict[int, float]:
        """One number of each: the mean return of its evaluation, or else of its last training episodes."""
        return {
            seed: float(value)
            for seed, row in self.results.items()
            if (value := row["return"] if row["evaluation"] is None else row["evaluation"]) is not None
        }


def train_seeds(
    config: RunConfig,
    seeds: Sequence[int],
    folder: str | Path = "auto",
    *,
    overwrite: bool = False,
    limit: int = 0,
    shown: Shown | None = None,
) -> Seeds:
    """Train with every seed at the same time, each as `train` would alone, in folder/seedSEED.

    folder: "auto" makes runs/ALGORITHM/WORLD-seeds, numbered where there is one. limit: how many at the same
    time; 0 as many as the cores are for. The first Ctrl-C lets all of them save. Why a seed fails is said on
    stderr when it does. Raises UsageError for what no seed could be trained with, before anything is written.
    """
    record = config.to_json()
    own = CUSTOM in (record["world"], record["agent"], record.get("reward"))
    if own or config.algorithm_name not in ALGORITHMS:
        raise UsageError(
            "several seeds need an algorithm, a world and an agent that other processes can make"
        )
    if len(set(seeds)) < len(seeds) or not seeds or min(seeds) < 0:
        raise UsageError(f"seeds must be different whole numbers ≥ 0, got {' '.join(map(str, seeds))}")
    config = _tried(config)
    path = new_folder(config, folder, overwrite)
    write(path, config, seeds)
    return _run(path, config, seeds, None, limit, shown or Shown())


def resume_seeds(
    folder: str | Path, total_timesteps: int | None = None, *, limit: int = 0, shown: Shown | None = None
) -> Seeds:
    """Continue all that `train_seeds` began in `folder`, those too that had no checkpoint yet.

    Raises CheckpointError for a folder that is damaged, UsageError where one that was begun cannot go on.
    """
    path = Path(folder)
    config, seeds = read_seeds(path)
    if not can_go_on(path) and any(checkpoints(seed_folder(path, seed) / "checkpoints") for seed in seeds):
        raise UsageError(f"{path}: the state of {config.world_name} cannot be saved: {NOT_CONTINUED}")
    if total_timesteps is not None:
        config = config.with_options(total_timesteps=total_timesteps)
        write(path, config, seeds)
    return _run(path, config, seeds, total_timesteps, limit, shown or Shown())


def _run(
    path: Path,
    config: RunConfig,
    seeds: Sequence[int],
    total_timesteps: int | None,
    limit: int,
    shown: Shown,
) -> Seeds:
    record, total = config.to_json(), config.options.total_timesteps
    jobs = [
        Job(f"seed {seed}", total, _one, (record, seed, str(seed_folder(path, seed)), total_timesteps, shown))
        for seed in seeds
    ]
    title = f"{config.algorithm_name} · {config.world_name} · {len(seeds)} seeds"
    before = [steps_of(seed_folder(path, seed) / "checkpoints") for seed in seeds]
    names = [job.name for job in jobs]
    board = Scoreboard(names, [total] * len(jobs), title, before=before, enabled=shown.progress)
    found: dict[int, Outcome] = {}
    with StopOnSignal() as signals, board:
        for k, outcome in side_by_side(jobs, limit or at_once(len(jobs), cores()), board, signals):
            found[seeds[k]] = outcome
            if outcome.state == "failed":
                print(f"{outcome.name} failed: {outcome.error}", file=sys.stderr, flush=True)
    draw(path, config, seeds)
    return Seeds(path, tuple(seeds), found, signals.requested)


def _one(
    tell: Tell, record: dict[str, Any], seed: int, folder: str, total_timesteps: int | None, shown: Shown
) -> dict[str, Any]:
    """Train one seed, or go on with it; what its process does."""
    path = Path(folder)
    logs: dict[str, Any] = {"tensorboard": shown.tensorboard, "wandb": shown.wandb, "progress": False}
    if checkpoints(path / "checkpoints"):
        run = resume(path, total_timesteps, callback=tell, **logs)
    else:
        config = RunConfig.from_json(record, None, None, None)
        run = train(
            config.algorithm,
            config.world,
            **dataclasses.asdict(config.options) | {"seed": seed},
            agent=config.agent,
            world_kwargs=config.world_kwargs,
            reward=config.reward,
            run_dir=path,
            overwrite=(path / "config.json").exists(),  # it was stopped before there was anything to continue
            callback=tell,
            **logs,
        )
    returns = [x for x in read(path / "metrics.csv").get(TRAINING, ()) if not math.isnan(x)]
    mean, text = evaluated(run, shown.episodes)
    last = returns[-1] if returns else None
    return {"timesteps": run.timesteps, "return": last, "evaluation": mean, "text": text}


def evaluated(run: Run, episodes: int) -> tuple[float | None, str]:
    """The mean return of whole episodes, and the evaluation as text; prompts need not have been set aside."""
    if not episodes:
        return None, ""
    try:
        found = run.evaluate(episodes)
    except UsageError as error:
        if not is_language(run.config.world):
            raise
        return None, f"none: {error}"
    return found.mean, str(found)


def _tried(config: RunConfig) -> RunConfig:
    """The configuration, once it is known that it can begin; with one thread where all cores were usual."""
    options, training = config.options, make_training(config.with_options(workers=0))
    try:
        if options.init_from is not None:
            begin_with(training.agent, config.agent, options.init_from)
        large = threads_for(config, training.agent.observation_space) > 1
    finally:
        training.world.close()
    return config.with_options(threads=1) if large and not options.threads else config
