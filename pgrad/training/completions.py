"""From prompts and a language model to trajectories: what a `Collector` is to a world of steps."""

import json
import time
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from pgrad.data import Episodes, Steps, Tokens, Trajectory
from pgrad.errors import TrainingError, WorldError
from pgrad.models import Agent
from pgrad.models.language.generate import Completions, generate
from pgrad.stopping import Stop, Stopped, go_on
from pgrad.training.rounds import play_rounds
from pgrad.training.stages import Stages
from pgrad.training.texts import TextStatistics
from pgrad.training.unfinished import Unfinished
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
    the last collection, `failures` the first error of each reward that ever failed.
    """

    stage: ClassVar = "generate"

    def __init__(
        self,
        world: LanguageWorld,
        agent: Agent,
        seed: int,
        *,
        n_envs: int,
        deterministic: bool = False,
        stages: Stages | None = None,
    ) -> None:
        self.world, self.agent, self.n_envs = world, agent, n_envs
        self.stages = Stages() if stages is None else stages
        self.episodes = TextStatistics()
        self.samples: list[dict[str, Any]] = []
        self.failures: dict[str, str] = {}
        self.played = 0  # decisions of the last collection, those included that nothing is learned from
        self._seed, self._round = seed, 0
        self._unfinished = Unfinished()
        self._written: tuple[Completions, float] | None = None  # in how many seconds; still to be scored
        self._deterministic = deterministic

    def collect(self, request: Steps | Episodes, stop: Stop = go_on) -> Trajectory:
        """Whole completions, one per column.

        Of `Steps(n)` every environment gets as many as fit into n decisions if all are as long as they may
        be, and one at least.

        `stop` is called before every token and while rewards are waited for. Where it raises, the next call
        keeps the rounds that were scored, and the texts of one that is still to be. Texts that were half
        written are written again, by the same streams: read at once, the keys and values of a half would be
        others, by rounding.
        """
        if isinstance(request, Steps):
            each = max(1, request.n // self.world.max_completion_length)
            request = Episodes(each * self.n_envs)
        size = prompts_at_once(request.group) * request.group
        if not self._unfinished.rounds:
            self.samples = []

        def play(n: int) -> Trajectory:
            before = self.world.state_dict()
            try:
                return self.answer(self.world.next(n // request.group), request.group, stop).traj
            except Stopped:
                self.world.load_state_dict(before)
                raise

        played, traj = play_rounds(request, size, play, self._unfinished.rounds)
        self._unfinished.rounds = []
        self.episodes.begin()
        self.played = int((played.mask > 0).sum())
        return traj

    @torch.no_grad()
    def answer(self, prompts: Sequence[Prompt], group: int = 1, stop: Stop = go_on) -> Answered:
        """`group` completions of every prompt, scored; at most SIDE_BY_SIDE are generated together."""
        texts = [self.world.encode(prompt) for prompt in prompts]
        found, generating = self._written or self._write(texts, group, stop)
        self._written = None
        lengths = found.length.tolist()
        answers = [row[:n] for row, n in zip(found.tokens.tolist(), lengths, strict=True)]
        asked = [prompt for prompt in prompts for _ in range(group)]
        try:
            with self.stages.within("reward"):
                reward = self.world.score(asked, answers, stop).to(found.tokens.device)
        except Stopped:
            self._written = found, generating
            raise
        except TrainingError as error:  # what a world pays is the world's affair
            raise WorldError(str(error)) from error
        self._round += 1
        scored = self.world.scored
        for failure in scored.failures:
            self.failures.setdefault(failure.reward, f"{failure.error}, on {failure.completion}")
        traj = as_trajectory([text for text in texts for _ in range(group)], found, reward)
        self.episodes.update(found, reward, group, scored.metrics, generating)
        for k in range(0, len(asked), max(1, len(asked) // SAMPLES)):
            if len(self.samples) == SAMPLES:
                break
            paid = None if bool(reward[k].isnan()) else float(reward[k])
            sample = {"prompt": asked[k].content, "completion": scored.texts[k], "reward": paid}
            self.samples.append(sample)
        return Answered(traj, reward, lengths, scored.texts)

    def _write(self, texts: list[list[int]], group: int, stop: Stop) -> tuple[Completions, float]:
        began = time.perf_counter()
        seeds = completion_seeds(self._seed, self._round, len(texts) * group)
        size = prompts_at_once(group)
        starts = range(0, len(texts), size) or [0]  # without a prompt `generate` says so
        parts = [
            generate(
                self.agent.network,  # type: ignore[arg-type]
                texts[i : i + size],
                num_generations=group,
                max_completion_length=self.world.max_completion_length,
                seeds=seeds[i * group : (i + size) * group],
                greedy=self._deterministic,
                stop=stop,
            )
            for i in starts
        ]
        return joined(parts), time.perf_counter() - began

    def state_dict(self) -> dict[str, Any]:
        """Where the world is in its prompts, the round, the statistics, and what was stopped."""
        written = self._written
        return {
            "world": self.world.state_dict(),
            "round": self._round,
            "episodes": self.episodes.state_dict(),
            "samples": json.dumps(self.samples),
            "unfinished": self._unfinished.state_dict(),
            "written": None if written is None else {"texts": dict(vars(written[0])), "seconds": written[1]},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it back."""
        self.world.load_state_dict(state["world"])
        self._round = state["round"]
        self.episodes.load_state_dict(state["episodes"])
        if "unfinished" in state:  # older checkpoints are of whole iterations
            device = next(self.agent.parameters()).device
            self._unfinished.load_state_dict(state["unfinished"], device)
            self.samples, written = json.loads(state["samples"]), state["written"]
            self._written = None
            if written is not None:
                texts = {name: x.to(device) for name, x in written["texts"].items()}
                self._written = Completions(**texts), written["seconds"]


def prompts_at_once(group: int) -> int:
    """Of how many prompts the completions, `group` of each, are generated together."""
    return max(SIDE_BY_SIDE // group, 1)


def joined(parts: Sequence[Completions]) -> Completions:
    """One after the other, padded with 0 to the longest."""
    longest = max(part.tokens.shape[1] for part in parts)

    def whole(columns: Sequence[Tensor]) -> Tensor:
        return torch.cat([pad(x, (0, longest - x.shape[1])) for x in columns])

    return Completions(
        whole([part.tokens for part in parts]),
        torch.cat([part.length for part in parts]),
        whole([part.logp for part in parts]),
        whole([part.entropy for part in parts]),
        torch.cat([part.ended for part in parts]),
    )


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
