"""Returns and lengths of episodes, followed across the borders of trajectories."""

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pgrad.data import Trajectory

WINDOW = 100


class EpisodeStatistics:
    """Undiscounted raw returns and lengths of the last 100 episodes, or of all that ended together."""

    def __init__(self) -> None:
        self.returns: deque[float] = deque(maxlen=WINDOW)
        self.lengths: deque[int] = deque(maxlen=WINDOW)
        self.finished = 0
        self._so_far = np.zeros((2, 0))

    def update(self, traj: Trajectory, ended: Tensor | None = None) -> None:
        """Follow a trajectory that continues where the last one stopped (or whose columns are whole
        episodes).

        `ended` [T, B]: where episodes ended, if that is not wherever `traj.done` is: a lost life ends none.
        """
        done = (traj.done if ended is None else ended).numpy(force=True)
        reward, mask = traj.reward.numpy(force=True), traj.mask.numpy(force=True)
        T, B = done.shape
        if self._so_far.shape != (2, B):
            self._so_far = np.zeros((2, B))
        if T == 1 and not done.any():  # quickly, as it comes with every single step of some algorithms
            self._so_far += (reward[0], mask[0])
            return
        facts = np.stack([reward, mask]).astype(np.float64)  # [2, T, B]
        facts[:, 0] += self._so_far
        # Column after column there are runs of rows of one episode each.
        cut = done.T.flatten()
        cut[T - 1 :: T] = True
        last = np.flatnonzero(cut)
        runs = np.add.reduceat(facts.transpose(0, 2, 1).reshape(2, -1), np.append(0, last[:-1] + 1), axis=1)
        t, i = last % T, last // T
        over = done[t, i]
        self._so_far = np.where(over, 0.0, runs)[:, t == T - 1]
        found = np.flatnonzero(over & (mask[t, i] > 0))
        # All that ended in one trajectory count: its first hundred would be the shortest of many.
        window = max(WINDOW, len(found))
        self.returns, self.lengths = deque(self.returns, window), deque(self.lengths, window)
        for total, length in runs[:, found[np.argsort(t[found], kind="stable")]].T.tolist():
            self.returns.append(total)
            self.lengths.append(round(length))
            self.finished += 1

    def metrics(self) -> dict[str, float]:
        """Means over the last 100 episodes; empty before the first one ended."""
        if not self.returns:
            return {}
        return {
            "rollout/ep_rew_mean": sum(self.returns) / len(self.returns),
            "rollout/ep_len_mean": sum(self.lengths) / len(self.lengths),
        }

    def state_dict(self) -> dict[str, Any]:
        """The window and the running sums."""
        return {
            "returns": list(self.returns),
            "lengths": list(self.lengths),
            "finished": self.finished,
            "so_far": torch.from_numpy(self._so_far.copy()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the window and the running sums back."""
        self.returns, self.lengths = deque(state["returns"]), deque(state["lengths"])
        self.finished = state["finished"]
        self._so_far = state["so_far"].to(torch.float64).numpy().copy()
