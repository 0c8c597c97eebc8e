"""`pgrad resume DIR`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from pgrad.algorithms import ALGORITHMS
from pgrad.cli.finish import Folder, Output, finish
from pgrad.cli.parse import parse
from pgrad.cli.several import finish_several, shown_of
from pgrad.cli.text import Text
from pgrad.errors import UsageError
from pgrad.models import AgentSpec
from pgrad.models.language.spec import LanguageSpec
from pgrad.run import resume
from pgrad.run.config import RunOptions
from pgrad.run.seeds import resume_seeds
from pgrad.run.seeds_folder import holds_seeds

KEPT = "cannot be changed: a run keeps its settings; with others train a new one, --init-from DIR"
"""Said of an option that only a new run has."""


@dataclass(frozen=True, kw_only=True)
class Resume:
    """Continue a run from its latest checkpoint, bit for bit as if it had never stopped."""

    run_dir: Annotated[Positional[str], arg(metavar="DIR", help_behavior_hint="(required)")] = ""
    """the folder of the run, or of several seeds: all that are unfinished"""
    total_timesteps: int | None = None
    """train up to this many steps in all; none is what the run was started with"""
    checkpoint: str = "latest"
    """latest, best (by the return during training), or a checkpoint's name, such as 000000102400, or path"""
    workers: int | None = None
    """processes that step the environments from now on, which changes no number; none: as before"""
    output: OmitArgPrefixes[Output]


def run(args: list[str]) -> int:
    """Continue, and say how it went and where everything is."""
    settings = [RunOptions, Folder, AgentSpec, LanguageSpec, Text, *ALGORITHMS.values()]
    given: Resume = parse(Resume, "resume", args, elsewhere=(KEPT, settings))
    if not given.run_dir:
        raise UsageError("resume which run? For example: pgrad resume runs/ppo/CartPole-v1-seed0")
    if holds_seeds(given.run_dir):
        if given.checkpoint != "latest":
            raise UsageError("a checkpoint is of one seed: resume that one, DIR/seed0")
        if given.workers is not None:
            raise UsageError("several seeds train in a process each: leave out --workers")
        found = resume_seeds(given.run_dir, given.total_timesteps, shown=shown_of(given.output))
        return finish_several(found, given.output)
    result = resume(
        given.run_dir,
        given.total_timesteps,
        checkpoint=given.checkpoint,
        workers=given.workers,
        tensorboard=given.output.tensorboard,
        wandb=given.output.wandb,
        progress=not given.output.quiet,
    )
    if not result.history and not given.output.quiet:
        asked = f"{result.config.options.total_timesteps:,} were asked for"
        done = f"{result.timesteps:,} steps are done, {asked}"
        print(f"the run is complete: {done}; --total-timesteps trains it further")
    finish(result, given.output)
    return 0
