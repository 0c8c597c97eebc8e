"""The two records that flow from worlds to parameters: what happened, and how good it was."""

from dataclasses import dataclass

from torch import Tensor

from pgrad.data.tree import Tree, map_tree


@dataclass(frozen=True)
class Trajectory:
    """What happened, time first; nothing here depends on an algorithm.

    T decisions in each of B columns. Worlds reset on the step after an episode ends, so row t+1 of `obs` is
    always the true successor of row t, and the row that only resets has `mask` 0 and `done` true: an episode
    of its own, of weight zero, which no discount, trace or mean can reach across. Padding is marked the same
    way.
    """

    obs: Tree  # [T+1, B, ...]  the last row is only for bootstrapping
    action: Tree  # [T, B, ...]    as sampled, before clipping or squashing to the world's bounds
    logp: Tensor  # [T, B]         log μ(a|s) of the policy that acted
    reward: Tensor  # [T, B]
    terminated: Tensor  # [T, B] bool    the task ended: the future is worth nothing
    done: Tensor  # [T, B] bool    the episode ended, by the task or by the clock
    mask: Tensor  # [T, B] float   weight of the decision: 0 for an auto-reset row, a prompt token, padding

    @property
    def decisions(self) -> Tree:
        """The observations decisions were taken on: `obs` without its last row, [T, B, ...]."""
        return map_tree(lambda x: x[:-1], self.obs)


@dataclass(frozen=True)
class Batch:
    """Decisions with their credit, [T, B, ...] or flattened to [N, ...]; what a loss reads.

    Fields an algorithm does not use are None.
    """

    obs: Tree
    action: Tree
    logp: Tensor
    mask: Tensor
    advantage: Tensor
    value: Tensor | None = None  # V_old(s), the critic at collection
    target: Tensor | None = None  # what the critic should say
    policy: Tree | None = None  # π_old(·|s), for exact KL penalties

    def flatten(self) -> "Batch":
        """The same decisions as [T·B, ...]."""
        return self._map(lambda x: x.flatten(0, 1))

    def select(self, index: Tensor) -> "Batch":
        """The decisions at `index` of a flattened batch."""
        return self._map(lambda x: x[index])

    def rows(self, start: int, stop: int) -> "Batch":
        """Decisions start..stop-1 of a flattened batch, as views."""
        return self._map(lambda x: x[start:stop])

    def every(self, k: int) -> "Batch":
        """One in k decisions of a flattened batch, as views."""
        return self._map(lambda x: x[::k])

    def _map(self, function) -> "Batch":  # type: ignore[no-untyped-def]
        return map_tree(function, self)
