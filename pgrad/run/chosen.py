"""Which checkpoint of a run is meant."""

from pathlib import Path

from pgrad.errors import CheckpointError
from pgrad.training.disk.checkpoint import checkpoints, latest_checkpoint
from pgrad.training.disk.rundir import RunDir


def chosen_checkpoint(directory: RunDir, checkpoint: str | Path = "latest") -> Path:
    """The folder of a checkpoint: of the latest, of the best, of one by its name in the run, or by its path.

    Raises CheckpointError where the run has none at all, and where no such one is there.
    """
    if not directory.has_checkpoint:
        how = "" if directory.is_empty else " (with --overwrite)"
        raise CheckpointError(
            f"{directory.path} has no checkpoint: the run ended before its first one; train it anew{how}"
        )
    folders = {"latest": directory.checkpoints, "best": directory.best}
    if checkpoint in folders:
        return latest_checkpoint(folders[str(checkpoint)])
    kept = [*checkpoints(directory.best), *checkpoints(directory.checkpoints)]
    named = {path.name: path for path in kept}
    found = named.get(str(checkpoint), Path(checkpoint))
    if not found.is_dir():
        there = ", ".join((*folders, *sorted(named)))
        raise CheckpointError(
            f"{directory.path} has no checkpoint {str(checkpoint)!r} (there are: {there}; or give a path)"
        )
    return found
