"""What an agent carries from step to step."""

from typing import Any

import torch
from torch import Tensor

from pgrad.data.sequence import Sequence
from pgrad.data.tree import Tree


class Memory:
    """The memory of n episodes side by side; empty for an agent that has none.

    `see` the observations, let `agent.step` answer, and say where episodes `begin` anew.
    """

    def __init__(self, state: dict[str, Tensor], start: Tensor, length: int) -> None:
        self.state = state  # [n, ...] each
        self.start = start  # [n] bool: the state is not this episode's
        self._length = length
        self._going_on = torch.zeros_like(start)

    def see(self, obs: Tree) -> Tree:
        """Observations [n, ...] as the agent's functions take them: with the memory, if there is one."""
        return Sequence(obs, self.start, self.state, self._length) if self.state else obs

    def advance(self, state: dict[str, Tensor]) -> None:
        """Remember `state` from now on; all episodes go on."""
        if state:
            self.state, self.start = state, self._going_on

    def begin(self, fresh: Tensor) -> None:
        """The next observation begins an episode where the last step only reset: `fresh` [n] is 0."""
        if self.state:
            self.start = (fresh == 0).to(self.start.device)

    def state_dict(self) -> dict[str, Any]:
        """All that is remembered; nothing where there is no memory."""
        return {"state": self.state, "start": self.start} if self.state else {}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Put it back."""
        if self.state:
            device = self.start.device
            self.state = {name: x.to(device) for name, x in saved["state"].items()}
            self.start = saved["start"].to(device)
