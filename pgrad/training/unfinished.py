"""What was collected before a stop: facts that are kept, so that nothing is played, written or paid twice."""

from typing import Any

import torch
from torch import Tensor

from pgrad.data import Trajectory, Tree, map_tree
from pgrad.data.plain import as_plain, from_plain

Row = tuple[Tree, ...]


class Unfinished:
    """Of a collection that is under way: whole rounds of episodes, and the rows of what is not whole yet."""

    def __init__(self) -> None:
        self.rounds: list[Trajectory] = []
        self.steps = 0  # of a window
        self.rows: list[Row] = []  # of a round of episodes
        self.active: Tensor | None = None  # who is still playing in it

    def state_dict(self, window: Trajectory | None = None) -> dict[str, Any]:
        """All of it; of a `window`, which has room for more, the rows that were played."""
        played = None if window is None or not self.steps else map_tree(lambda x: x[: self.steps], window)
        rows = map_tree(lambda *x: torch.stack(x), self.rows[0], *self.rows[1:]) if self.rows else None
        return {
            "rounds": [as_plain(traj) for traj in self.rounds],
            "steps": self.steps,
            "window": as_plain(played),
            "rows": as_plain(rows),
            "active": self.active if self.rows else None,
        }

    def load_state_dict(
        self, state: dict[str, Any], device: torch.device, world: torch.device | None = None
    ) -> Trajectory | None:
        """Put it back; returns the rows of a window, on `device`. What a world told goes to its own."""
        world = device if world is None else world

        def back(plain: Any, where: torch.device = device) -> Any:
            return None if plain is None else map_tree(lambda x: x.to(where), from_plain(plain))

        self.rounds = [back(plain) for plain in state["rounds"]]
        self.steps, self.active = state["steps"], back(state["active"], world)
        rows, window = back(state["rows"]), back(state["window"])
        if rows is not None:
            rows = (*rows[:3], *back(rows[3:], world))  # behind what was seen and done, and its log π
        self.rows = [] if rows is None else [map_tree(lambda x, t=t: x[t], rows) for t in range(len(rows[2]))]
        return window
