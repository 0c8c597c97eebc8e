"""Episodes that do not end: told early, given up late; counted in steps, not by a clock."""

import warnings

from pgrad.errors import UsageError

LONG, LONGEST = 20_000, 1_000_000
"""Steps of an environment after which a word is said, and after which an episode is given up."""


def look_for_an_end(world: str, steps: int, ended: bool) -> None:
    """Warn where none of the episodes has `ended` after so many `steps` of each environment.

    To be called after every step from `LONG` on. Raises UsageError for one that is longer than `LONGEST`.
    """
    if steps == LONG and not ended:
        warnings.warn(
            f"no episode of {world} has ended after {LONG:,} steps: has it a time limit? "
            f"(an episode is given up after {LONGEST:,})",
            stacklevel=2,
        )
    if steps > LONGEST:
        raise UsageError(f"no end to an episode of {world} in {LONGEST:,} steps: add a time limit")
