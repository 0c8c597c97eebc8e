"""Replay: experience kept for later, in tensors that are allocated once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from pgrad.data.handover import hand_over
from pgrad.data.trajectory import Trajectory
from pgrad.data.tree import Tree, leaves, map_tree
from pgrad.errors import UsageError


@dataclass(frozen=True)
class Transition:
    """Decisions with what came of them, [N, ...]; `mask` is 0 for a row that only reset."""

    obs: Tree
    action: Tree
    logp: Tensor  # log μ(a|s) of the policy that acted
    reward: Tensor
    terminated: Tensor
    next_obs: Tree  # the true successor, also where the episode ended
    mask: Tensor


class Replay:
    """A ring of the last `capacity` decisions of B environments side by side, as rows [capacity // B, B].

    An observation is stored once: the successor of row t is the observation of row t+1, in worlds that reset
    one step later also at the end of an episode. The newest row's successor waits in the slot that will be
    overwritten next, so `capacity // B` rows need one slot more.

    Storage is made when the first trajectory comes, like its tensors, on its device.
    Raises UsageError for a capacity below two rows.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows = 0  # stored
        self.seen = 0  # decisions that ever came, rows that only reset not counted
        self._next = 0  # the slot of the next row
        self._storage: Trajectory | None = None  # all of [slots, B, ...], obs too
        self._loaded: list[Tensor] = []  # waits for the first trajectory, which has the structure

    @property
    def slots(self) -> int:
        """Rows of storage, one of them for the newest successor."""
        return 0 if self._storage is None else len(self._storage.reward)

    def __len__(self) -> int:
        """Decisions stored, counting rows that only reset."""
        stored = self._loaded if self._storage is None else [self._storage.mask]
        return self.rows * stored[-1].shape[1] if stored else 0

    @torch.no_grad()
    def add(self, traj: Trajectory) -> int:
        """Store the rows of a window [T, B] that goes on where the last one ended; how many decide."""
        if self._storage is None:
            self._storage = self._allocate(traj)
        slots = self.slots
        T = len(traj.reward)
        if not slots > T:
            raise UsageError(f"a window of {T} steps does not fit into a replay of {slots - 1} rows")
        facts = (traj.action, traj.logp, traj.reward, traj.terminated, traj.done, traj.mask)
        store = self._storage
        kept = (store.action, store.logp, store.reward, store.terminated, store.done, store.mask)
        start, rows = self._next, [*leaves(facts), *leaves(traj.obs)]
        if start + T < slots:
            places = [x[start : start + T] for x in leaves(kept)]
            places += [x[start : start + T + 1] for x in leaves(store.obs)]
            torch._foreach_copy_(places, rows)
        else:  # over the end of the ring
            index = (start + torch.arange(T + 1, device=traj.reward.device)) % slots
            for whole, new in zip([*leaves(kept), *leaves(store.obs)], rows, strict=True):
                whole.index_copy_(0, index[: len(new)], new)
        self._next = (start + T) % slots
        self.rows = min(self.rows + T, slots - 1)
        decisions = int(traj.mask.count_nonzero())
        self.seen += decisions
        return decisions

    def transitions(self, n: int, generator: Generator) -> Transition:
        """n decisions drawn uniformly from all that are stored, with repetition."""
        store = self._stored()
        slots, B = store.reward.shape
        draw = torch.randint(self.rows * B, (n,), generator=generator, device=generator.device)
        row = hand_over(draw, store.reward.device)
        successor = row + B
        if self.rows == slots - 1:  # the ring is full
            row = (row + self._oldest * B) % (slots * B)
            successor = (row + B) % (slots * B)

        def take(tree: Tree, rows: Tensor) -> Tree:
            return map_tree(lambda x: x.view(-1, *x.shape[2:]).index_select(0, rows), tree)

        return Transition(
            obs=take(store.obs, row),
            action=take(store.action, row),
            logp=take(store.logp, row),
            reward=take(store.reward, row),
            terminated=take(store.terminated, row),
            next_obs=take(store.obs, successor),
            mask=take(store.mask, row),
        )

    def windows(self, n: int, length: int, generator: Generator) -> Trajectory:
        """n runs of `length` rows [length, n], each from one environment, starting anywhere.

        Raises UsageError where fewer rows are stored.
        """
        store = self._stored()
        slots, B = store.reward.shape
        if length > self.rows:
            raise UsageError(f"windows of {length} rows were asked for, {self.rows} are stored")
        starts = (self.rows - length + 1) * B
        draw = torch.randint(starts, (n,), generator=generator, device=generator.device)
        draw = hand_over(draw, store.reward.device)
        offset = torch.arange(length + 1, device=draw.device).unsqueeze(1)
        row, column = (self._oldest + draw // B + offset) % slots, (draw % B).expand(length + 1, n)
        facts = (store.action, store.logp, store.reward, store.terminated, store.done, store.mask)
        return Trajectory(
            map_tree(lambda x: x[row, column], store.obs),
            *map_tree(lambda x: x[row[:-1], column[:-1]], facts),
        )

    def state_dict(self) -> dict[str, Any]:
        """All that is stored, as views; slots that were never filled are left out."""
        tensors = self._loaded
        if self._storage is not None:
            tensors = [x[: self.rows + 1] for x in leaves(self._storage)]
        return {"next": self._next, "rows": self.rows, "seen": self.seen, "tensors": tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it back; there again as soon as the next window is added."""
        self._next, self.rows = state["next"], state["rows"]
        self._storage, self._loaded = None, state["tensors"]
        self.seen = state.get("seen", len(self))  # older checkpoints do not tell it

    @property
    def _oldest(self) -> int:
        return (self._next - self.rows) % self.slots

    def _stored(self) -> Trajectory:
        if self._storage is None or not self.rows:
            raise UsageError("nothing has been stored in the replay yet")
        return self._storage

    def _allocate(self, traj: Trajectory) -> Trajectory:
        B = traj.reward.shape[1]
        if self.capacity < 2 * B:
            raise UsageError(
                f"a replay of {self.capacity} decisions is less than two rows of {B} environments"
            )
        slots = self.capacity // B + 1

        storage = map_tree(lambda x: _zeros((slots, *x.shape[1:]), x), traj)
        for mine, loaded in zip(leaves(storage), self._loaded, strict=bool(self._loaded)):
            mine[: len(loaded)].copy_(loaded)
        self._loaded = []
        return storage


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros that take no memory before they are written to, on a CPU: numpy's, unlike torch's."""
    if like.device.type != "cpu":
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
    return torch.from_numpy(np.zeros(shape, torch.empty(0, dtype=like.dtype).numpy().dtype))
