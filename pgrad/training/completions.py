"""From prompts and a language model to trajectories: what a `Collector` is to a world of steps."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pgrad.data import Episodes, Steps, Tokens, Trajectory
from pgrad.errors import TrainingError, WorldError
from pgrad.models import Agent
from pgrad.models.language.generate import Completions, generate
from pgrad.training.rounds import play_rounds
from pgrad.training.texts import TextStatistics
from pgrad.worlds.language.prompts import Prompt
from pgrad.worlds.language.world import LanguageWorld

SIDE_BY_SIDE = 1024
"""Completions that are generated together, at most."""

SAMPLES = 4
"""So many texts of a collection are shown."""


class Answered(NamedTuple):
    """What a round of prompts came to."""

    traj: Trajectory
    reward: Tensor  # [N]; NaN where nobody could judge
    lengths: list[int]
    texts: list[str]


class Completer:
    """Lets the agent answer prompts; every completion draws from a stream of its own.

    What a completion is depends on the run's seed, the round, and its place in it: not on what else is
    generated beside it, nor on where the run was stopped and continued. `samples` are the first few texts of
    the last collection.
    """

    def __init__(
        self, world: LanguageWorld, agent: Agent, seed: int, *, n_envs: int, deterministic: bool = False
    ) -> None:
        self.world, self.agent, self.n_envs = world, agent, n_envs
        self.episodes = TextStatistics()
        self.samples: list[dict[str, Any]] = []
        self.played = 0  # decisions of the last collection, those included that nothing is learned from
        self._seed, self._round = seed, 0
        self._deterministic = deterministic

    def collect(self, request: Steps | Episodes) -> Trajectory:
        """Whole completions, one per column.

        Of `Steps(n)` every environment gets as many as fit into n decisions if all are as long as they may
        be, and one at least.
        """
        if isinstance(request, Steps):
            each = max(1, request.n // self.world.max_completion_length)
            request = Episodes(each * self.n_envs)
        size = max(SIDE_BY_SIDE // request.group, 1) * request.group
        self.episodes.begin()
        self.samples = []

        def play(n: int) -> Trajectory:
            return self.answer(self.world.next(n // request.group), request.group).traj

        played, traj = play_rounds(request, size, play)
        self.played = int((played.mask > 0).sum())
        return traj

    @torch.no_grad()
    def answer(self, prompts: Sequence[Prompt], group: int = 1) -> Answered:
        """`group` completions of every prompt, scored."""
        texts = [self.world.encode(prompt) for prompt in prompts]
        began = time.perf_counter()
        found = generate(
            self.agent.network,  # type: ignore[arg-type]
            texts,
            num_generations=group,
            max_completion_length=self.world.max_completion_length,
            seeds=completion_seeds(self._seed, self._round, len(prompts) * group),
            greedy=self._deterministic,
        )
        written = time.perf_counter()
        self._round += 1
        lengths = found.length.tolist()
        answers = [row[:n] for row, n in zip(found.tokens.tolist(), lengths, strict=True)]
        asked = [prompt for prompt in prompts for _ in range(group)]
        try:
            reward = self.world.score(asked, answers).to(found.tokens.device)
        except TrainingError as error:  # what a world pays is the world's affair
            raise WorldError(str(error)) from error
        scored = self.world.scored
        seconds = {"generate": written - began, "reward": time.perf_counter() - written}
        traj = as_trajectory([text for text in texts for _ in range(group)], found, reward)
        self.episodes.update(found, reward, group, scored.metrics, seconds)
        for k in range(0, len(asked), max(1, len(asked) // SAMPLES)):
            if len(self.samples) == SAMPLES:
                break
            paid = None if bool(reward[k].isnan()) else float(reward[k])
            sample = {"prompt": asked[k].content, "completion": scored.texts[k], "reward": paid}
            self.samples.append(sample)
        return Answered(traj, reward, lengths, scored.texts)

    def state_dict(self) -> dict[str, Any]:
        """Where the world is in its prompts, the round, and the statistics."""
        return {
            "world": self.world.state_dict(),
            "round": self._round,
            "episodes": self.episodes.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it back."""
        self.world.load_state_dict(state["world"])
        self._round = state["round"]
        self.episodes.load_state_dict(state["episodes"])


def completion_seeds(seed: int, number: int, n: int) -> Tensor:
    """One seed for each of n completions of a round, [n] int64."""
    rows = np.random.SeedSequence((seed, number)).generate_state(n, np.uint64)
    return torch.from_numpy((rows >> np.uint64(1)).astype(np.int64))


def as_trajectory(prompts: Sequence[Sequence[int]], found: Completions, reward: Tensor) -> Trajectory:
    """Texts as columns: the prompt's tokens, then the completion's, padded at the end.

    Prompt rows and padding are episodes of their own, of weight 0; so is all of a completion whose reward is
    NaN, which nobody could judge. The reward comes with the last token.
    """
    device, n = found.tokens.device, len(prompts)
    start = torch.tensor([len(prompt) for prompt in prompts], device=device)
    rows = int((start + found.length).max())
    text = torch.zeros(n, rows, dtype=torch.int64)
    for i, prompt in enumerate(prompts):
        text[i, : len(prompt)] = torch.tensor(prompt)
    text = text.to(device)
    logp = torch.zeros(n, rows, device=device)
    place = torch.arange(rows, device=device)
    answer = (place - start.unsqueeze(1)).clamp(0, found.tokens.shape[1] - 1)
    inside = (place >= start.unsqueeze(1)) & (place < (start + found.length).unsqueeze(1))
    text = torch.where(inside, found.tokens.gather(1, answer), text).T
    logp = torch.where(inside, found.logp.gather(1, answer), 0.0).T[1:]
    decides = torch.cat([inside.T[1:], torch.zeros_like(inside.T[:1])])
    last = decides[:-1] & ~decides[1:]
    judged = ~reward.isnan()
    return Trajectory(
        Tokens(text, place.unsqueeze(1).expand_as(text), decides),
        text[1:],
        logp,
        torch.where(last & judged, reward.to(torch.float32), 0.0),
        last & found.ended,
        last | ~decides[:-1],
        (decides[:-1] & judged).to(torch.float32),
    )
