"""What `train` and `resume` have in common: where their output goes, and what they say at the end."""

import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, arg

from pgrad.cli.waiting import waiting
from pgrad.errors import PgradError
from pgrad.run import Run
from pgrad.run.language import NO_REWARD, cannot_be_judged
from pgrad.run.seeds import evaluated
from pgrad.training.disk.checkpoint import latest_checkpoint
from pgrad.training.disk.rundir import RunDir
from pgrad.worlds.gym.envpool import is_envpool
from pgrad.worlds.language.kind import is_language


@dataclass(frozen=True)
class Folder:
    """Where the run is written, and what its world is made with."""

    run_dir: str = "auto"
    """a new folder for the run; auto makes runs/ALGORITHM/WORLD-seedSEED, numbered where there is one"""
    overwrite: FlagCreatePairsOff[bool] = False
    """delete the run that is in the folder"""
    world_kwargs: Annotated[tuple[str, ...], arg(metavar="KEY=VALUE ...", help_behavior_hint="")] = ()
    """arguments for the environment, such as gravity=-5 continuous=True; for a tensor world its numbers"""


@dataclass(frozen=True)
class Output:
    """What is shown and written besides the run."""

    final_eval_episodes: int = 20
    """episodes of the evaluation at the end, in fresh worlds; 0 for none"""
    video: FlagCreatePairsOff[bool] = False
    """record a video of one episode at the end"""
    tensorboard: FlagCreatePairsOff[bool] = False
    """log to TensorBoard too, in the folder of the run"""
    wandb: Annotated[str | None, arg(metavar="PROJECT")] = None
    """log to this Weights & Biases project too"""
    quiet: FlagCreatePairsOff[bool] = False
    """print nothing but errors (and evaluate nothing at the end)"""


def finish(run: Run, output: Output) -> None:
    """Evaluate, record, and say where everything is and what can be done next."""
    assert run.path is not None
    if not output.quiet:
        directory = RunDir(run.path)
        print(f"\nrun            {run.path}")
        print(f"curve          {directory.plots / 'learning_curve.png'}")
        print(f"checkpoint     {latest_checkpoint(directory.checkpoints)}")
        if known := _held_out(run):
            print(f"held out       {known}")
        if output.final_eval_episodes:
            with _safe_already(run), _behind("evaluation     "):
                print(evaluated(run, output.final_eval_episodes)[1])
    if output.video:
        with _safe_already(run), waiting("recording a video"):
            recording = run.record()
        if not output.quiet:
            print(f"video          {recording.path}")
    if not output.quiet:
        path = shlex.quote(str(run.path))
        more = 2 * max(run.timesteps, run.config.options.total_timesteps)
        print(f"\nnext           pgrad play {path}")
        if is_language(run.config.world):
            print(f"               pgrad chat {path}")
            print(f"               pgrad export {path} FOLDER")
        if evaluate := _next_evaluation(run):
            print(f"               pgrad eval {path} {evaluate}")
        if not is_envpool(run.config.world):  # whose state cannot be saved
            print(f"               pgrad resume {path} --total-timesteps {more}")


@contextmanager
def _safe_already(run: Run) -> Iterator[None]:
    """Say where Ctrl-C ends what comes after training that the run is not lost."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nstopped after training; the run itself is saved in {run.path}", file=sys.stderr)
        raise


@contextmanager
def _behind(label: str) -> Iterator[None]:
    """Print a label, and behind it what is printed inside; warnings and errors on lines of their own."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def on_its_own(*args: Any, **kwargs: Any) -> None:
            print(flush=True)
            show(*args, **kwargs)
            print(label, end="", flush=True)

        warnings.showwarning = on_its_own
        print(label, end="", flush=True)
        try:
            yield
        except PgradError:
            print(flush=True)
            raise


def _next_evaluation(run: Run) -> str:
    """How the run can be evaluated; empty where nothing judges it."""
    missing = cannot_be_judged(run.config) if is_language(run.config.world) else ""
    if missing == NO_REWARD:
        return ""
    return f"{'--split train ' if missing else ''}--episodes 100"


def _held_out(run: Run) -> str:
    """How well an imitation knows what it did not learn from; empty for other runs."""
    last = run.history[-1] if run.history else {}
    known = {key.removeprefix("held_out/"): x for key, x in last.items() if key.startswith("held_out/")}
    return ", ".join(f"{name.replace('_', '-')} {x:.3f}" for name, x in known.items())
