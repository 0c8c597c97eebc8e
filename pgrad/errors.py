"""The errors pgrad raises on purpose; the command line prints each as one line."""


class PgradError(Exception):
    """Base of every error that pgrad raises on purpose. `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(PgradError, ValueError):
    """What was asked for cannot be done: a bad hyperparameter, an unknown world, a missing extra."""

    exit_code = 2


class WorldError(PgradError):
    """The environment broke its contract: NaN, wrong shape, an exception inside `step`, a dead worker."""

    exit_code = 2


class CheckpointError(PgradError):
    """A checkpoint or run directory is damaged, foreign, in use or does not match."""

    exit_code = 2


class TrainingError(PgradError):
    """An invariant of training failed: a non-finite loss, a ratio that is not one on fresh data."""
