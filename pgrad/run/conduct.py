"""Carrying a run out: what is written, shown, evaluated and saved while it trains, and how it stops."""

import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack

from pgrad.report.plots import learning_curve
from pgrad.run.assemble import evaluate_fresh, torch_threads
from pgrad.run.config import RunConfig
from pgrad.run.saver import Saver
from pgrad.training.alarms import Alarms
from pgrad.training.console import Console
from pgrad.training.disk.log import Sink
from pgrad.training.disk.rundir import RunDir
from pgrad.training.disk.samples import SampleLog
from pgrad.training.loop import Seeds, Training, run
from pgrad.training.signals import StopOnSignal

Callback = Callable[[dict[str, float]], bool | None]
"""Called with each row of metrics; training ends after the update where it returns False."""

ROWS, SAVES = 200, 10
"""How many rows and checkpoints a run writes where nothing else is asked for."""


def conduct(
    config: RunConfig,
    training: Training,
    directory: RunDir | None,
    *,
    sinks: list[Sink],
    progress: bool,
    callback: Callback | None,
) -> list[dict[str, float]]:
    """Train until the budget is used, the callback says so, or a signal comes; returns the rows of metrics.

    With a run directory the last state is always saved, and the first Ctrl-C (SIGTERM) lets the update finish
    before it ends the program as it would have at once: KeyboardInterrupt (SystemExit 143).
    """
    options = config.options
    rows: list[dict[str, float]] = []
    wanted = True
    title = f"{config.algorithm_name} · {config.world_name} · seed {options.seed}"

    with ExitStack() as stack:
        stack.enter_context(torch_threads(config, training.agent.observation_space))
        signals = stack.enter_context(StopOnSignal()) if directory is not None else None
        console = Console(options.total_timesteps, title, enabled=progress, start=training.timesteps)
        stack.enter_context(console)
        warn = console.message if progress else warnings.warn
        saver = None if directory is None else Saver(config, training, directory, warn)
        log = None if directory is None else SampleLog(directory.completions, training.timesteps, warn)
        alarms = Alarms(warn)

        def report(metrics: dict[str, float]) -> None:
            nonlocal wanted
            rows.append({"time/total_timesteps": float(training.timesteps), **metrics})
            for sink in sinks:
                sink.write(training.timesteps, metrics)
            samples = getattr(training.collector, "samples", [])
            if log is not None:
                log.write(training.timesteps, samples)
            console.update(training.timesteps, metrics, samples)
            alarms.hear(metrics)
            if saver is not None:
                saver.judge(metrics)
            try:
                wanted = callback is None or callback(rows[-1]) is not False
            except Exception:  # the caller's own mistake; what was trained is sound
                if saver is not None:
                    saver.save()
                raise

        def evaluation() -> dict[str, float]:
            result = evaluate_fresh(
                config,
                training.agent,
                episodes=options.eval_episodes,
                deterministic=True,
                seed=Seeds.spawn(options.seed).evaluation,
                n_envs=options.n_envs,
            )
            return {"eval/mean_reward": result.mean, "eval/mean_ep_length": result.mean_length}

        def stopped() -> bool:
            console.update(training.timesteps)
            return not wanted or (signals is not None and signals.requested is not None)

        run(
            training,
            report=report,
            report_every=options.log_every or max(1, options.total_timesteps // ROWS),
            save=lambda: None if saver is None else saver.save(),
            save_every=options.save_every or max(1, options.total_timesteps // SAVES),
            evaluate=evaluation,
            eval_every=options.eval_every,
            stopped=stopped,
        )
        if directory is not None and saver is not None:
            if training.iterations:  # before the first one there is nothing to save
                saver.save_last()
            learning_curve(directory.metrics, directory.plots / "learning_curve.png", title=title)
    if directory is not None and signals is not None and signals.requested is not None:
        how = f"continue with: pgrad resume {directory.path}"
        print(f"stopped at {training.timesteps:,} steps; {how}", file=sys.stderr)
        if signals.requested == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(signals.exit_code)
    return rows
