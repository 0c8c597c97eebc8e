"""What training and resuming share: a training that is closed in the end, carried out in a run directory."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgrad.errors import UsageError
from pgrad.run.assemble import make_training
from pgrad.run.conduct import conduct
from pgrad.run.config import RunConfig
from pgrad.run.files import FILES, digests
from pgrad.run.fresh import exists
from pgrad.run.language_agent import kept_alphabet
from pgrad.run.result import Run
from pgrad.run.seeds_folder import holds_seeds
from pgrad.run.sinks import open_sinks, require_installed
from pgrad.run.telling import Callback
from pgrad.training.disk.rundir import RunDir, folder_name
from pgrad.training.loop import Training
from pgrad.training.versions import versions


@dataclass(frozen=True)
class Watching:
    """Who looks on while a run trains. Raises UsageError where a package for it is missing."""

    tensorboard: bool = False
    wandb: str | None = None  # the project
    progress: bool | None = None  # a live table; None for one on a terminal
    callback: Callback | None = None

    def __post_init__(self) -> None:
        require_installed(self.tensorboard, self.wandb)
        if self.callback is not None and not callable(self.callback):
            raise UsageError(f"callback must be a function of a row of metrics, got {self.callback!r}")

    @property
    def shown(self) -> bool:
        """Whether the live table is shown."""
        return sys.stdout.isatty() if self.progress is None else self.progress


@contextmanager
def made(config: RunConfig) -> Iterator[Training]:
    """A training in its first state; what it made itself is closed in the end."""
    training = make_training(config)
    try:
        yield training
    finally:
        if not exists(config.world):
            training.world.close()


def carry_out(config: RunConfig, training: Training, directory: RunDir, watching: Watching) -> Run:
    """Train on in a run directory, whose configuration becomes this one."""
    kept = {FILES: digests(config), **config.own, **kept_alphabet(training.agent, config.agent)}
    directory.write_config({**config.to_json(), **kept})
    directory.add_command(sys.argv)
    directory.write_versions(versions())
    files = open_sinks(config, directory, training.timesteps, watching.tensorboard, watching.wandb)
    with files as sinks:
        rows = conduct(config, training, directory, sinks, watching.shown, watching.callback)
    return Run(config, training.agent, training.timesteps, directory.path, rows)


def carry_out_unwritten(config: RunConfig, training: Training, watching: Watching) -> Run:
    """Train without a run directory. Raises UsageError for what writes into one."""
    if watching.tensorboard or watching.wandb:
        raise UsageError("tensorboard and wandb write into a run directory: give run_dir")
    rows = conduct(config, training, None, [], watching.shown, watching.callback)
    return Run(config, training.agent, training.timesteps, None, rows)


@contextmanager
def new_directory(config: RunConfig, run_dir: str | Path, overwrite: bool) -> Iterator[RunDir]:
    """The folder of a new run: the one that is named, or with "auto" one of its own.

    Nothing of it stays where an error ends the run before there is anything to keep.
    """
    directory = _created(config, run_dir, overwrite)
    try:
        with directory:
            try:
                yield directory
            except BaseException:
                directory.discard()
                raise
    finally:
        with suppress(OSError):  # there is something in it
            directory.path.rmdir()


def as_folder(run_dir: Any) -> Path:
    """The path of a run directory. Raises UsageError for anything else, such as the run itself."""
    if isinstance(run_dir, str | os.PathLike):
        return Path(run_dir)
    how = ": give its path, run.path" if isinstance(run_dir, Run) else ""
    raise UsageError(f"run_dir must be the path of a run directory, got {run_dir!r}{how}")


def _created(config: RunConfig, run_dir: str | Path, overwrite: bool) -> RunDir:
    if run_dir != "auto":
        run_dir = as_folder(run_dir)
        if holds_seeds(run_dir):
            raise UsageError(
                f"{run_dir} holds runs of several seeds: go on with them (pgrad resume {run_dir}), or choose "
                "another run directory"
            )
        return RunDir.create(run_dir, overwrite)
    base = Path("runs") / config.algorithm_name
    name = folder_name(f"{config.world_name}-seed{config.options.seed}")
    return RunDir.create(base / name, overwrite) if overwrite else RunDir.default(base, name)
