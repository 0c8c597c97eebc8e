"""Where rows of metrics go."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from pgrad.errors import UsageError
from pgrad.run.config import RunConfig
from pgrad.training.disk.log import MetricsLog, Sink, TensorBoardLog, WandbLog
from pgrad.training.disk.rundir import RunDir


def require_installed(tensorboard: bool, wandb: str | None) -> None:
    """Tell what is missing before a run directory is made."""
    for wanted, package in ((tensorboard, "tensorboard"), (wandb, "wandb")):
        if wanted and find_spec(package) is None:
            raise UsageError(f"{package} is not installed: pip install 'pgrad[{package}]'")


@contextmanager
def open_sinks(
    config: RunConfig, directory: RunDir, timesteps: int, tensorboard: bool, wandb: str | None
) -> Iterator[list[Sink]]:
    """What was asked for, without what was written after `timesteps`."""
    sinks: list[Sink] = []
    try:
        log = MetricsLog(directory.metrics)
        sinks.append(log)
        log.truncate_after(timesteps)
        if tensorboard:
            sinks.append(TensorBoardLog(directory.tensorboard, purge_step=timesteps))
        if wandb:
            sinks.append(WandbLog(directory.path / "wandb", wandb, directory.path.name, config.to_json()))
        yield sinks
    finally:
        for sink in sinks:
            sink.close()
