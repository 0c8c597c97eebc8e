"""Carrying a run out: what is written, shown, evaluated and saved while it trains, and how it stops."""

import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack

from pgrad.assemble import evaluate_fresh, torch_threads
from pgrad.config import RunConfig
from pgrad.errors import CheckpointError
from pgrad.report.plots import learning_curve
from pgrad.train.checkpoint import checkpoint_info, checkpoints, save_checkpoint
from pgrad.train.console import Console
from pgrad.train.log import Sink
from pgrad.train.loop import Seeds, Training, run
from pgrad.train.rundir import RunDir
from pgrad.train.signals import StopOnSignal

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

    With a run directory the last state is always saved, and the first Ctrl-C (SIGTERM) lets the update finish before
    it ends the program as it would have at once: KeyboardInterrupt (SystemExit 143).
    """
    options = config.options
    seeds = Seeds.spawn(options.seed)
    rows: list[dict[str, float]] = []
    stopped = False
    title = f"{config.algorithm_name} · {config.world_name} · seed {options.seed}"

    with ExitStack() as stack:
        stack.enter_context(torch_threads(config, training.world.observation_space))
        signals = stack.enter_context(StopOnSignal()) if directory is not None else None
        console = stack.enter_context(
            Console(options.total_timesteps, title, enabled=progress, start=training.timesteps)
        )
        saver = None if directory is None else Saver(config, training, directory, console)

        def report(metrics: dict[str, float]) -> None:
            nonlocal stopped
            row = {"time/total_timesteps": float(training.timesteps), **metrics}
            rows.append(row)
            for sink in sinks:
                sink.write(training.timesteps, metrics)
            console.update(training.timesteps, metrics)
            if saver is not None:
                saver.score = metrics.get("eval/mean_reward", metrics.get("rollout/ep_rew_mean", saver.score))
                if "eval/mean_reward" in metrics:
                    saver.keep_best()
            if callback is not None and callback(row) is False:
                stopped = True

        def evaluation() -> dict[str, float]:
            result = evaluate_fresh(
                config,
                training.agent,
                episodes=options.eval_episodes,
                deterministic=True,
                seed=seeds.evaluation,
                n_envs=options.n_envs,
            )
            return {"eval/mean_reward": result.mean, "eval/mean_ep_length": result.mean_length}

        def save() -> None:
            if saver is not None:
                saver.save()

        run(
            training,
            report=report,
            report_every=options.log_every or max(1, options.total_timesteps // ROWS),
            save=save,
            save_every=options.save_every or max(1, options.total_timesteps // SAVES),
            evaluate=evaluation,
            eval_every=options.eval_every,
            stop=lambda: stopped or (signals is not None and signals.requested is not None),
        )
        if directory is not None and saver is not None:
            if training.iterations:  # before the first one there is nothing to save
                saver.save(last=True)
            learning_curve(directory.metrics, directory.plots / "learning_curve.png", title=title)
    if signals is not None and signals.requested is not None:
        assert directory is not None
        print(f"stopped at {training.timesteps:,} steps; continue with: pgrad resume {directory.path}", file=sys.stderr)
        if signals.requested == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(signals.exit_code)
    return rows


class Saver:
    """Writes checkpoints of one run: the latest few, and the best by evaluation (or else by training return)."""

    def __init__(self, config: RunConfig, training: Training, directory: RunDir, console: Console) -> None:
        self.config, self.training, self.directory, self.console = config, training, directory, console
        self.score = float("-inf")
        kept = checkpoints(directory.best)
        self.best = checkpoint_info(kept[-1])["score"] if kept else float("-inf")

    def save(self, last: bool = False) -> None:
        """Save the latest state; a failure on the way is told and training goes on, the last one is raised."""
        try:
            save_checkpoint(
                self.directory.checkpoints,
                self.training.state_dict(),
                info=self._info(),
                keep=self.config.options.keep,
            )
            if not self.config.options.eval_every:
                self.keep_best()
        except CheckpointError as error:
            if last:
                raise
            self.console.message(f"warning: {error}; training goes on")

    def keep_best(self) -> None:
        """Save the state as the best one, if it is; a failure is told and training goes on."""
        if self.score > self.best:
            try:
                save_checkpoint(self.directory.best, self.training.state_dict(), info=self._info(), keep=1)
                self.best = self.score
            except CheckpointError as error:
                self.console.message(f"warning: {error}; training goes on")

    def _info(self) -> dict[str, object]:
        return {
            "algorithm": self.config.algorithm_name,
            "world": self.config.world_name,
            "timesteps": self.training.timesteps,
            "score": self.score,
        }
