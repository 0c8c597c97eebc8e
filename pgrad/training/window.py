"""Where the steps of a window are written: allocated once, overwritten by the next window."""

from typing import Any

import torch
from torch import Tensor

from pgrad.data import Trajectory, Tree, leaves, map_tree
from pgrad.environments.spaces import Array
from pgrad.training.acting import Chooser
from pgrad.worlds.protocol import Step


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
        self._told: list[Any] = []  # what was written last,
        self._arrays: list[Any] = []  # and by numpy
        self._noted = torch.empty(0)  # what log π(a|s) is found from; that itself, where nothing is deferred
        self._chooser: Chooser | None = None
        self._known = 0 if rows is None else len(rows.logp)  # rows of which it was found

    def open(
        self,
        n: int,
        done: int,
        seen: Tree,
        ended: Tensor,
        action: Tree,
        noted: Tensor,
        chooser: Chooser,
    ) -> None:
        """Make room for n steps, of which `done` were taken, and write down what is seen before the next."""
        self._chooser, self._known = chooser, self._known if done else 0
        if self._traj is None or len(self._after) != n or self._noted.shape[1:] != noted.shape:
            traj = allocate(n, seen, action, self._device)
            over = traj.done.new_empty(n + 1, len(ended))
            if self._traj is not None:
                old = self._traj, self.over
                map_tree(lambda new, old: new[:done].copy_(old[:done]), (traj, over), old)
            self._traj, self.over = traj, over
            self._noted = noted.new_empty((n, *noted.shape)) if chooser.defers else traj.logp
            told = [*leaves(traj.action), self._noted, traj.reward, traj.terminated, traj.done]
            shown = [over, *leaves(traj.obs)]
            self._before = [[x[t] for x in shown] for t in range(n + 1)]
            self._after = [[x[t] for x in told] for t in range(n)]
            known = self._device.type == "cpu" and all(x.dtype != torch.bfloat16 for x in (*told, *shown))
            pairs = zip(self._after, self._before[1:], strict=True) if known else ()
            self._places = [[x.numpy() for x in (*after, *before)] for after, before in pairs]
            self._told = self._arrays = []
        torch._foreach_copy_(self._before[done], [ended, *leaves(seen)])

    def write(self, t: int, action: Tree, noted: Tensor, step: Step, ended: Tensor, seen: Tree) -> None:
        """What was done in step t and what came of it, and what is seen now."""
        told = [*leaves(action), noted, step.reward, step.terminated, step.truncated, ended, *leaves(seen)]
        if not self._places:
            torch._foreach_copy_(self._after[t] + self._before[t + 1], told)
            return
        # Right after a simulator a call of torch takes several times as long as it would else.
        if len(self._told) != len(told):
            self._told, self._arrays = [None] * len(told), [None] * len(told)
        last, arrays = self._told, self._arrays
        for k, x in enumerate(told):
            if x is not last[k]:  # worlds answer with the same tensors every time
                last[k], arrays[k] = x, x.numpy()
        for place, array in zip(self._places[t], arrays, strict=True):
            place[...] = array

    def resets(self, t: int) -> Tensor:
        """Which environments only reset in step t [B], until the next window writes there."""
        return self._before[t][0]

    def settled(self, n: int) -> Trajectory | None:
        """The trajectory, with weights and log-probabilities of the n rows written; None before the first."""
        if self._traj is not None and self._after:
            torch.logical_not(self.over[:-1], out=self._traj.mask)
            if self._chooser is not None and self._chooser.defers and self._known < n:
                new = slice(self._known, n)
                action = map_tree(lambda x: x[new], self._traj.action)
                self._traj.logp[new], self._known = self._chooser.log_prob(self._noted[new], action), n
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
