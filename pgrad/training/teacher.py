"""From prompts with solutions to trajectories: what a `Demonstrator` is to a world of steps."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from pgrad.data import Demonstrations, Trajectory
from pgrad.errors import UsageError
from pgrad.models import Agent
from pgrad.models.language.generate import Completions
from pgrad.stopping import Stop, go_on
from pgrad.training.completions import as_trajectory
from pgrad.training.demonstrator import HeldOut
from pgrad.worlds.language.prompts import Prompt
from pgrad.worlds.language.world import LanguageWorld

MEASURED = 64
"""So many held-out solutions are enough to measure by."""


class Teacher:
    """Hands out the solutions of a world's prompts, in its order; those held out are only measured.

    Raises UsageError where prompts to train on come without solutions, or with one that is too long.
    """

    stage: ClassVar = "read"

    def __init__(self, world: LanguageWorld, agent: Agent) -> None:
        self.world, self.agent = world, agent
        self.played = 0  # decisions of the last batch
        world.require_solutions()
        try:
            held = world.held_out(0)[:MEASURED]
        except UsageError:  # nothing was set aside
            held = []
        self.episodes = HeldOut(agent, self._read(held)) if held else Nothing()

    def collect(self, request: Demonstrations, stop: Stop = go_on) -> Trajectory:
        """The next `n` solutions, one per column: too little work to be stopped in."""
        traj = self._read(self.world.next(request.n))
        self.played = int(traj.mask.sum())
        return traj

    def _read(self, prompts: Sequence[Prompt]) -> Trajectory:
        answers = [self.world.solution(prompt) for prompt in prompts]
        device = next(self.agent.parameters()).device
        length = torch.tensor([len(answer) for answer in answers], device=device)
        tokens = torch.zeros(len(answers), int(length.max()), dtype=torch.int64)
        for row, answer in zip(tokens, answers, strict=True):
            row[: len(answer)] = torch.tensor(answer)
        tokens = tokens.to(device)
        unknown: Tensor = torch.zeros(tokens.shape, device=device)
        found = Completions(tokens, length, unknown, unknown, torch.ones_like(length, dtype=torch.bool))
        texts = [self.world.encode(prompt) for prompt in prompts]
        return as_trajectory(texts, found, torch.zeros(len(answers), device=device))

    def state_dict(self) -> dict[str, Any]:
        """Where the world is in its prompts."""
        return {"world": self.world.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it back."""
        self.world.load_state_dict(state["world"])


class Nothing:
    """Where nothing is held out there is nothing to tell."""

    def metrics(self) -> dict[str, float]:
        """No numbers."""
        return {}
