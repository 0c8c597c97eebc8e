"""Trajectories side by side, and the last few kept as they are."""

from typing import Any

import torch
from torch import Tensor

from pgrad.data.trajectory import Trajectory
from pgrad.data.tree import leaves, map_tree


def pad(traj: Trajectory, n: int) -> Trajectory:
    """Lengthen to n rows with decisions of weight 0, each an episode of its own; the last observation
    repeats.
    """
    missing = n - len(traj.reward)
    if not missing:
        return traj

    def repeat(x: Tensor) -> Tensor:
        return torch.cat([x, x[-1:].expand(missing, *x.shape[1:])])

    padded = map_tree(repeat, traj)
    for name, filler in (("reward", 0.0), ("terminated", False), ("done", True), ("mask", 0.0)):
        getattr(padded, name)[-missing:] = filler
    return padded


def join(parts: list[Trajectory]) -> Trajectory:
    """Trajectories of equal length side by side."""
    return map_tree(lambda *x: torch.cat(x, dim=1), parts[0], *parts[1:])


def take_columns(traj: Trajectory, index: Tensor) -> Trajectory:
    """The columns at `index`."""
    return map_tree(lambda x: x.index_select(1, index), traj)


def unequal(traj: Trajectory, group: int) -> Tensor:
    """Columns of groups, `group` in a row, in which not all returns are the same, bit for bit, [B] bool.

    Columns without weight belong to no group.
    """
    total = torch.where(traj.mask > 0, traj.reward, 0.0).sum(0)
    low, high = ends(total, (traj.mask > 0).any(0), group)
    return (low < high).repeat_interleave(group)


def ends(x: Tensor, counted: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """The lowest and the highest of each group of x [B] that counts, [B/group]; ∞ and −∞ where none does."""
    values, counted = (torch.unflatten(part, 0, (-1, group)) for part in (x, counted))
    low = values.masked_fill(~counted, torch.inf).amin(1)
    return low, values.masked_fill(~counted, -torch.inf).amax(1)


class Recent:
    """The last `capacity` trajectories of whole episodes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._kept: list[list[Tensor]] = []  # their leaves, the newest first

    def add(self, traj: Trajectory) -> None:
        """Keep one more, and drop what is too old."""
        self._kept = [list(leaves(traj)), *self._kept][: self.capacity]

    def beside(self, traj: Trajectory) -> Trajectory:
        """`traj` and, to its right, what is kept, the newest first; all padded to the longest."""
        parts = [traj, *(_like(traj, tensors) for tensors in self._kept)]
        longest = max(len(part.reward) for part in parts)
        return join([pad(part, longest) for part in parts])

    def state_dict(self) -> dict[str, Any]:
        """All that is kept."""
        return {"tensors": self._kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it back."""
        self._kept = state["tensors"]


def _like(traj: Trajectory, tensors: list[Tensor]) -> Trajectory:
    """Leaves in the structure, and on the device, of `traj`."""
    rest = iter(tensors)
    return map_tree(lambda leaf: next(rest).to(leaf.device), traj)
