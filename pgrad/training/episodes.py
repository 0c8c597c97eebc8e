"""Returns and lengths of episodes, followed across the borders of trajectories."""

from collections import deque
from typing import Any

import torch
from torch import Tensor

from pgrad.data import Trajectory
from pgrad.math.scan import forward_scan

WINDOW = 100


class EpisodeStatistics:
    """Undiscounted raw returns and lengths of the last 100 episodes, or of all that ended together."""

    def __init__(self) -> None:
        self.returns: deque[float] = deque(maxlen=WINDOW)
        self.lengths: deque[int] = deque(maxlen=WINDOW)
        self.finished = 0
        self._so_far = torch.zeros(2, 0, dtype=torch.float64)

    @torch.no_grad()
    def update(self, traj: Trajectory, ended: Tensor | None = None) -> None:
        """Follow a trajectory that continues where the last one stopped (or whose columns are whole
        episodes).

        `ended` [T, B]: where episodes ended, if that is not wherever `traj.done` is: a lost life ends none.
        """
        done = traj.done if ended is None else ended
        facts = torch.stack([traj.reward.double(), traj.mask.double()], dim=1)  # [T, 2, B]
        if self._so_far.shape != facts.shape[1:]:
            self._so_far = facts.new_zeros(facts.shape[1:])
        self._so_far = self._so_far.to(facts.device)  # from a checkpoint it comes on the CPU
        if not bool(done.any()):
            self._so_far = self._so_far + facts.sum(0)
            return
        goes_on = (~done).double().unsqueeze(1).expand_as(facts)
        facts[0] += self._so_far
        totals = forward_scan(torch.cat([torch.zeros_like(facts[:1]), goes_on[:-1]]), facts)
        self._so_far = goes_on[-1] * totals[-1]
        over = (done & (traj.mask > 0)).nonzero()
        # All that ended in one trajectory count: its first hundred would be the shortest of many.
        window = max(WINDOW, len(over))
        self.returns, self.lengths = deque(self.returns, window), deque(self.lengths, window)
        for total, length in totals[over[:, 0], :, over[:, 1]].tolist():
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
            "so_far": self._so_far,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the window and the running sums back."""
        self.returns, self.lengths = deque(state["returns"]), deque(state["lengths"])
        self.finished = state["finished"]
        self._so_far = state["so_far"].to(torch.float64)
