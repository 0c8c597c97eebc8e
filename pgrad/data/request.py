"""What an algorithm asks the collector for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Steps:
    """A window of `n` steps of every environment, wherever their episodes stand: [n, n_envs]."""

    n: int


@dataclass(frozen=True)
class Episodes:
    """`n` whole episodes, one per column, each begun under the policy that is about to be improved: [T, n].

    Episodes are assigned to environments beforehand, so that short ones are not favoured; columns are padded
    with decisions of weight 0 up to the longest.
    """

    n: int


@dataclass(frozen=True)
class Demonstrations:
    """`n` sequences of `length` rows out of a recording, [length, n]; nothing is asked of the world.

    They come in shuffled passes; a share `held_out` of the episodes never comes.
    """

    source: str  # a file that was recorded, or minari:DATASET
    n: int
    length: int
    held_out: float
