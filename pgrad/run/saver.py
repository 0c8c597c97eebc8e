"""The checkpoints of one run: the latest few, and the best."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pgrad.errors import CheckpointError
from pgrad.run.config import RunConfig
from pgrad.training.disk.checkpoint import checkpoint_info, checkpoints, save_checkpoint
from pgrad.training.disk.rundir import RunDir
from pgrad.training.loop import Training


class Saver:
    """Writes the state of a training; the best one is judged by evaluation, or else by training return."""

    def __init__(
        self, config: RunConfig, training: Training, directory: RunDir, warn: Callable[[str], object]
    ) -> None:
        self._config, self._training, self._directory, self._warn = config, training, directory, warn
        self._score = float("-inf")
        self._best = float("-inf")
        for path in checkpoints(directory.best):
            self._tolerant(partial(self._remember, path))

    def _remember(self, path: Path) -> None:
        info = checkpoint_info(path)
        if info["timesteps"] <= self._training.timesteps:  # else of a future that was given up
            self._best = info["score"]

    def judge(self, metrics: dict[str, float]) -> None:
        """Take a row of metrics as the state's score; keep the state if an evaluation says it is best."""
        training_return = metrics.get("rollout/ep_rew_mean", self._score)
        self._score = metrics.get("eval/mean_reward", training_return)
        if "eval/mean_reward" in metrics:
            self._tolerant(self._keep_best)

    def save(self) -> None:
        """Save the state on the way; a failure is told, and training goes on."""
        self._tolerant(self.save_last)

    def save_last(self) -> None:
        """Save the state where training ends. Raises CheckpointError."""
        save_checkpoint(
            self._directory.checkpoints,
            self._training.state_dict(),
            info=self._info(),
            keep=self._config.options.keep,
        )
        if not self._config.options.eval_every:
            self._tolerant(self._keep_best)

    def _keep_best(self) -> None:
        if self._score > self._best:
            save_checkpoint(self._directory.best, self._training.state_dict(), info=self._info(), keep=1)
            self._best = self._score

    def _tolerant(self, save: Callable[[], None]) -> None:
        try:
            save()
        except CheckpointError as error:
            self._warn(f"warning: {error}; training goes on")

    def _info(self) -> dict[str, object]:
        return {
            "algorithm": self._config.algorithm_name,
            "world": self._config.world_name,
            "timesteps": self._training.timesteps,
            "score": self._score,
        }
