"""The loop, written once: collect, learn, count, report."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Generator

from pgrad.algorithms import Algorithm
from pgrad.data import Demonstrations
from pgrad.errors import WorldError
from pgrad.models import Agent
from pgrad.training.collect import Collector
from pgrad.training.completions import Completer
from pgrad.training.demonstrator import Demonstrator, open_recording
from pgrad.training.learner import Learner
from pgrad.training.teacher import Teacher
from pgrad.worlds.language.world import LanguageWorld
from pgrad.worlds.protocol import World

EMPTY = 5
"""After so many rounds without a decision that counts a training is given up."""


@dataclass(frozen=True)
class Seeds:
    """Independent streams spawned from one seed, one for everything that draws."""

    world: int
    agent: int
    acting: int
    learning: int
    evaluation: int

    @classmethod
    def spawn(cls, seed: int) -> "Seeds":
        """The streams of `seed`."""
        streams = np.random.SeedSequence(seed).spawn(5)
        return cls(*(int(stream.generate_state(1, np.uint32)[0]) for stream in streams))


def generator(seed: int, device: torch.device | str = "cpu") -> Generator:
    """A generator of its own."""
    return Generator(device).manual_seed(seed)


class Averages:
    """Means of metrics over the iterations between two reports."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, metrics: dict[str, float]) -> None:
        """Take the metrics of one iteration."""
        for key, value in metrics.items():
            total, count = self._sums.get(key, (0.0, 0))
            self._sums[key] = total + value, count + 1

    def take(self) -> dict[str, float]:
        """The means so far; starts anew."""
        means = {key: total / count for key, (total, count) in self._sums.items()}
        self._sums = {}
        return means

    def state_dict(self) -> dict[str, list[float]]:
        """Sum and count of each metric since the last report."""
        return {key: list(value) for key, value in self._sums.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        """Put them back."""
        self._sums = {key: (total, int(count)) for key, (total, count) in state.items()}


class Training:
    """A run in memory: all that moves while training, as one state that can be taken out and put back."""

    def __init__(
        self,
        algorithm: Algorithm,
        world: World | LanguageWorld,
        agent: Agent,
        seeds: Seeds,
        total_timesteps: int,
        device: torch.device,
        n_envs: int = 1,
    ) -> None:
        n_envs = getattr(world, "n_envs", n_envs)  # a world of prompts has none of its own
        self.algorithm, self.world, self.agent = algorithm, world, agent
        self.total_timesteps = total_timesteps
        self.request = algorithm.collects(n_envs)
        self.collector: Any = self._source(seeds, device, n_envs)
        self.learner = Learner(agent, algorithm, generator(seeds.learning))
        self.averages = Averages()
        self.timesteps = 0
        self.iterations = 0
        self._empty = 0  # rounds in a row without a decision that counts

    def _source(
        self, seeds: Seeds, device: torch.device, n_envs: int
    ) -> Collector | Completer | Demonstrator | Teacher:
        """What hands out trajectories: a world of steps, one of prompts, or a recording."""
        if isinstance(self.world, LanguageWorld):
            if isinstance(self.request, Demonstrations):
                return Teacher(self.world, self.agent)
            return Completer(self.world, self.agent, seeds.acting, n_envs=n_envs)
        if isinstance(self.request, Demonstrations):
            recording = open_recording(self.request.source, self.world)
            return Demonstrator(self.request, recording, self.world, self.agent, generator(seeds.acting))
        return Collector(self.world, self.agent, generator(seeds.acting, device))

    def iterate(self) -> dict[str, float]:
        """Collect once and learn from it once. Counts decisions, not rows: resets and padding are free."""
        traj = self.collector.collect(self.request)
        decisions = self.collector.played
        if decisions == 0 and not self.learner.replay.capacity:
            self._empty += 1
            if self._empty == EMPTY:
                raise WorldError(
                    f"there was nothing to learn from in {EMPTY} rounds: no decision counted, or no reward "
                    "could judge a completion (every one was None)"
                )
            return {}
        self._empty = 0
        began = time.perf_counter()
        self.learner.begin(min(self.timesteps / self.total_timesteps, 1.0))
        extra = self.algorithm.update(self.learner, replace(traj, reward=self.agent.scale_rewards(traj)))
        metrics = self.learner.read(extra)
        if isinstance(self.collector, Completer):
            self.collector.episodes.spent("update", time.perf_counter() - began)
            metrics["sampling/sampling_logp_difference/max"] = self.learner.gap
        self.agent.observe(traj)
        self.timesteps += decisions
        self.iterations += 1
        return metrics

    @property
    def finished(self) -> bool:
        """Whether the budget is used."""
        return self.timesteps >= self.total_timesteps

    def state_dict(self) -> dict[str, Any]:
        """The exact state of the run, between two iterations."""
        return {
            "agent": {name: tensor.detach() for name, tensor in self.agent.state_dict().items()},
            "learner": self.learner.state_dict(),
            "collector": self.collector.state_dict(),
            "averages": self.averages.state_dict(),
            "timesteps": self.timesteps,
            "iterations": self.iterations,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a state back; what follows is bit for bit what would have followed."""
        load_agent(self.agent, state["agent"])
        self.learner.load_state_dict(state["learner"])
        self.collector.load_state_dict(state["collector"])
        self.averages.load_state_dict(state["averages"])
        self.timesteps, self.iterations = state["timesteps"], state["iterations"]


def load_agent(agent: Agent, tensors: dict[str, torch.Tensor]) -> None:
    """Fill an agent's parameters and statistics in place."""
    if agent.reward_scaler is not None:
        device = agent.reward_scaler.running.device
        agent.reward_scaler.running = torch.empty_like(tensors["reward_scaler.running"], device=device)
    agent.load_state_dict(tensors)


@dataclass(frozen=True)
class Every:
    """True once each time the count passes a multiple of `n` steps; never for n = 0."""

    n: int

    def passed(self, before: int, after: int) -> bool:
        """Whether a multiple lies in (before, after]."""
        return self.n > 0 and after // self.n > before // self.n


def run(
    training: Training,
    *,
    report: Callable[[dict[str, float]], None],
    report_every: int,
    save: Callable[[], None],
    save_every: int,
    evaluate: Callable[[], dict[str, float]],
    eval_every: int,
    stopped: Callable[[], bool],
) -> None:
    """Iterate until the budget is used or `stopped` says so; report, evaluate and save on the way.

    `stopped` is asked before each iteration. When the rest happens depends on the steps taken, not on time.
    """
    began, first_step = time.perf_counter(), training.timesteps
    reports, saves, evaluations = Every(report_every), Every(save_every), Every(eval_every)
    while not training.finished and not stopped():
        before = training.timesteps
        training.averages.add(training.iterate())
        after = training.timesteps
        last = training.finished
        results = evaluate() if evaluations.passed(before, after) else {}
        if results or last or reports.passed(before, after):
            elapsed = time.perf_counter() - began
            clock = {
                "time/iterations": training.iterations,
                "train/n_updates": training.learner.n_updates,
                "time/time_elapsed": elapsed,
                "time/fps": (after - first_step) / max(elapsed, 1e-9),
            }
            report({**clock, **training.collector.episodes.metrics(), **training.averages.take(), **results})
        if saves.passed(before, after) and not last:
            save()
