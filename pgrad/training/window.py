"""Where the steps of a window are written: allocated once, overwritten by the next window."""

from typing import Any

import torch
from torch import Tensor

from pgrad.data import Trajectory, Tree, leaves, map_tree
from pgrad.worlds.protocol import Step
from pgrad.worlds.spaces import Array


class Window:
    """A trajectory of n steps in the making, on `device`.

    over [n + 1, B]: which rows only reset. Their weights follow from it when somebody asks for the whole.
    """

    def __init__(self, device: torch.device, rows: Trajectory | None = None) -> None:
        """`rows`: those of a window that was stopped."""
        self._device, self._traj = device, rows
        self.over = torch.empty(0, dtype=torch.bool) if rows is None else rows.mask == 0
        # Where each step writes, as views: before it, what is seen; after it, what it did and what came.
        self._before: list[list[Tensor]] = []
        self._after: list[list[Tensor]] = []
        self._places: list[list[Array]] = []  # all of a step, by numpy; none where it cannot
        self._last: list[tuple[Any, Any]] = []  # what was written last, as it came and by numpy

    def open(self, n: int, done: int, seen: Tree, ended: Tensor, action: Tree) -> None:
        """Make room for n steps, of which `done` were taken, and write down what is seen before the next."""
        if self._traj is None or len(self._after) != n:
            traj = allocate(n, seen, action, self._device)
            over = traj.done.new_empty(n + 1, len(ended))
            if self._traj is not None:
                old = self._traj, self.over
                map_tree(lambda new, old: new[:done].copy_(old[:done]), (traj, over), old)
            self._traj, self.over = traj, over
            told = [*leaves(traj.action), traj.logp, traj.reward, traj.terminated, traj.done]
            shown = [over, *leaves(traj.obs)]
            self._before = [[x[t] for x in shown] for t in range(n + 1)]
            self._after = [[x[t] for x in told] for t in range(n)]
            known = self._device.type == "cpu" and all(x.dtype != torch.bfloat16 for x in (*told, *shown))
            pairs = zip(self._after, self._before[1:], strict=True) if known else ()
            self._places = [[x.numpy() for x in (*after, *before)] for after, before in pairs]
            self._last = [(None, None)] * (len(told) + len(shown))
        torch._foreach_copy_(self._before[done], [ended, *leaves(seen)])

    def write(self, t: int, action: Tree, logp: Tensor, step: Step, ended: Tensor, seen: Tree) -> None:
        """What was done in step t and what came of it, and what is seen now."""
        told = [*leaves(action), logp, step.reward, step.terminated, step.truncated, ended, *leaves(seen)]
        if not self._places:
            torch._foreach_copy_(self._after[t] + self._before[t + 1], told)
            return
        # Right after a simulator a call of torch takes several times as long as it would else.
        for k, (place, x) in enumerate(zip(self._places[t], told, strict=True)):
            last, value = self._last[k]
            if x is not last:  # worlds answer with the same tensors every time
                value = x.numpy()
                self._last[k] = x, value
            place[...] = value

    def resets(self, t: int) -> Tensor:
        """Which environments only reset in step t [B], until the next window writes there."""
        return self._before[t][0]

    def settled(self) -> Trajectory | None:
        """The trajectory, with the weights of all rows that were written; None before the first."""
        if self._traj is not None and self._after:
            torch.logical_not(self.over[:-1], out=self._traj.mask)
        return self._traj


def allocate(n: int, obs: Tree, action: Tree, device: torch.device) -> Trajectory:
    """Room for n steps of observations and actions like these."""
    n_envs = next(iter(leaves(obs))).shape[0]

    def rows(count: int) -> Any:
        return lambda x: torch.empty((count, *x.shape), dtype=x.dtype, device=device)

    def column(dtype: torch.dtype) -> Tensor:
        return torch.empty((n, n_envs), dtype=dtype, device=device)

    flags = column(torch.bool), column(torch.bool)
    numbers = column(torch.float32), column(torch.float32)
    return Trajectory(
        map_tree(rows(n + 1), obs), map_tree(rows(n), action), *numbers, *flags, column(torch.float32)
    )
