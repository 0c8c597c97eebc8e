"""Whole episodes in rounds, and in groups that have something to teach."""

from collections.abc import Callable

from pgrad.data import Episodes, Trajectory, join, pad, take_columns, unequal
from pgrad.data.request import MOST_ROUNDS


def play_rounds(
    request: Episodes, size: int, play: Callable[[int], Trajectory], played: list[Trajectory]
) -> tuple[Trajectory, Trajectory]:
    """All that was played, and of it what was asked for: episodes side by side, padded to the longest.

    `play(n)` plays n ≤ `size` episodes in whole groups. `played` holds the rounds of before a stop, else
    nothing; new ones are added to it. Where only unequal groups are wanted, rounds go on until there are
    enough, or the work would be `MOST_ROUNDS` times what was asked for: then there are fewer, and if there is
    none at all, equal ones.
    """
    before = iter(tuple(played))
    kept: list[Trajectory] = []
    missing = request.n
    left = -(-request.n // size) * (MOST_ROUNDS if request.unequal else 1)
    while missing > 0 and left > 0:
        found = next(before, None)
        if found is None:
            found = play(min(size, missing))
            played.append(found)
        left -= 1
        if request.unequal and (left or kept):
            found = take_columns(found, unequal(found, request.group).nonzero().flatten())
        if found.reward.shape[1]:
            kept.append(found)
            missing -= found.reward.shape[1]
    everything = side_by_side(played)
    return everything, side_by_side(kept) if request.unequal else everything


def side_by_side(parts: list[Trajectory]) -> Trajectory:
    """Trajectories as one, padded to the longest."""
    longest = max(len(traj.reward) for traj in parts)
    return join([pad(traj, longest) for traj in parts])
