"""Carrying a run out: what is written, shown, evaluated and saved while it trains, and how it stops."""

import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from pgrad.models.language.spec import LanguageSpec
from pgrad.report.plots import learning_curve
from pgrad.run.config import RunConfig
from pgrad.run.fresh import evaluate_fresh
from pgrad.run.language import opening
from pgrad.run.saver import Saver
from pgrad.run.telling import Callback, Telling
from pgrad.run.threads import torch_threads
from pgrad.stopping import Stop, Stopped
from pgrad.training.alarms import Alarms
from pgrad.training.compiled import Foretold
from pgrad.training.console import Console
from pgrad.training.disk.checkpoint import steps_of
from pgrad.training.disk.log import Sink
from pgrad.training.disk.rundir import RunDir
from pgrad.training.disk.samples import SampleLog
from pgrad.training.loop import Training, run
from pgrad.training.signals import StopOnSignal
from pgrad.training.streams import Seeds
from pgrad.worlds.gym.vector import NOT_CONTINUED, VectorWorld
from pgrad.worlds.language.kind import is_language

ROWS, SAVES = 200, 10
"""How many rows and checkpoints a run writes where nothing else is asked for."""


def conduct(
    config: RunConfig,
    training: Training,
    directory: RunDir | None,
    sinks: list[Sink],
    progress: bool,
    callback: Callback | None,
) -> list[dict[str, float]]:
    """Train until the budget is used, the callback says so, or a signal comes; returns the rows of metrics.

    With a run directory the last state is always saved. The first Ctrl-C, SIGTERM or SIGHUP stops training
    within about a second, in the middle of an iteration too; when its state is saved the program ends as it
    would have at once: KeyboardInterrupt (SystemExit 143, 129).
    """
    options = config.options
    model = f" · {Path(config.agent.model).name}" if isinstance(config.agent, LanguageSpec) else ""
    title = f"{config.algorithm_name} · {config.world_name}{model} · seed {options.seed}"

    with ExitStack() as stack:
        if directory is not None:
            stack.enter_context(_told_what_is_kept(directory, training.world))
        stack.enter_context(torch_threads(config, training.agent.observation_space))
        signals = StopOnSignal()
        if directory is not None:  # else there is nothing to save before the end
            stack.enter_context(signals)
        console = Console(
            options.total_timesteps,
            title,
            enabled=progress,
            start=training.timesteps,
            learning_starts=getattr(config.algorithm, "learning_starts", 0),
        )
        stack.enter_context(console)
        for told in opening(config):
            console.message(told)
        if directory is not None and isinstance(training.world, VectorWorld):
            console.message(f"the state of {training.world.name} cannot be saved: {NOT_CONTINUED}")
        warn = console.message if progress else warnings.warn
        training.learner.machine.tell, training.learner.machine.warn = console.message, warn
        saver = None if directory is None else Saver(config, training, directory, warn)
        log = None if directory is None else SampleLog(directory.completions, training.timesteps, warn)
        told_too = training, console, Alarms(warn)
        telling = Telling(*told_too, sinks=sinks, samples=log, saver=saver, callback=callback)

        def stop() -> None:
            if signals.requested is not None:
                raise Stopped

        foretold = Foretold(
            training.compile_after,
            options.total_timesteps,
            (training.learner.n_updates, training.timesteps),
        )

        def stopped() -> bool:
            console.update(training.timesteps)
            if line := foretold.line(training.learner.n_updates, training.timesteps):
                console.message(line)
            return not telling.wanted or signals.requested is not None

        run(
            training,
            report=telling.report,
            report_every=options.log_every or max(1, options.total_timesteps // ROWS),
            save=lambda: None if saver is None else saver.save(),
            save_every=options.save_every or max(1, options.total_timesteps // SAVES),
            evaluate=lambda: _evaluation(config, training, stop),
            eval_every=options.eval_every,
            stopped=stopped,
            stop=stop,
        )
        if directory is not None and saver is not None:
            if training.begun:
                saver.save_last()
            picture = directory.plots / "learning_curve.png"
            learning_curve(directory.metrics, picture, title=title, texts=is_language(config.world))
    if directory is not None and signals.requested is not None:
        _end_as_asked(training, directory, signals)
    return telling.rows


def _end_as_asked(training: Training, directory: RunDir, signals: StopOnSignal) -> NoReturn:
    """Say where a run stands that a signal stopped, and end the program as the signal would have."""
    on = _continued(directory, training.world)
    how = on if training.begun else "nothing was begun, and nothing is kept"
    print(f"stopped at {training.timesteps:,} steps; {how}", file=sys.stderr)
    if signals.requested == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(signals.exit_code)


@contextmanager
def _told_what_is_kept(directory: RunDir, world: Any) -> Iterator[None]:
    """Say where a run stands that a second Ctrl-C ended before its last state was saved."""
    try:
        yield
    except KeyboardInterrupt:
        kept = steps_of(directory.checkpoints)
        how = _continued(directory, world, f"from {kept:,} steps ") if kept else "nothing was saved"
        print(f"stopped at once; {how}", file=sys.stderr)
        raise


def _continued(directory: RunDir, world: Any, where: str = "") -> str:
    """How a run goes on that was stopped, or that it cannot."""
    return (
        NOT_CONTINUED
        if isinstance(world, VectorWorld)
        else f"continue {where}with: pgrad resume {directory.path}"
    )


def _evaluation(config: RunConfig, training: Training, stop: Stop) -> dict[str, float]:
    """The policy's mode in fresh worlds, the same ones each time."""
    result = evaluate_fresh(
        config,
        training.agent,
        episodes=config.options.eval_episodes,
        deterministic=True,
        seed=Seeds.spawn(config.options.seed).evaluation,
        n_envs=config.options.n_envs,
        ready=training.world,
        stop=stop,
    )
    return {"eval/mean_reward": result.mean, "eval/mean_ep_length": result.mean_length}
