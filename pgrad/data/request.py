"""What an algorithm asks the collector for."""

from dataclasses import dataclass

MOST_ROUNDS = 8
"""So many times as many episodes as were asked for are played at most, in search of unequal groups."""

SOLUTIONS = "solutions"
"""The demonstrations that come with prompts."""


@dataclass(frozen=True)
class Steps:
    """A window of `n` steps of every environment, wherever their episodes stand: [n, n_envs]."""

    n: int


@dataclass(frozen=True)
class Episodes:
    """`n` whole episodes, one per column, each begun under the policy that is about to be improved: [T, n].

    Episodes are assigned to environments beforehand, so that short ones are not favoured; columns are padded
    with decisions of weight 0 up to the longest.

    `group` episodes in a row begin in one state (answer one prompt). With `unequal`, groups whose episodes
    all return the same are replaced by others, as long as that takes no more than `MOST_ROUNDS` times the
    work.
    """

    n: int
    group: int = 1
    unequal: bool = False


@dataclass(frozen=True)
class Demonstrations:
    """`n` sequences of `length` rows out of a recording, [length, n]; nothing is asked of the world.

    They come in shuffled passes; a share `held_out` of the episodes never comes.
    """

    source: str  # a file that was recorded, minari:DATASET, or of prompts their own `SOLUTIONS`
    n: int
    length: int
    held_out: float
