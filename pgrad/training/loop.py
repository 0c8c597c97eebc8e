"""The loop, written once: collect, learn, count, report."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from pgrad.algorithms import Algorithm
from pgrad.algorithms.sampler import with_ess
from pgrad.data import Demonstrations, Episodes, Trajectory, map_tree
from pgrad.data.plain import as_plain, from_plain
from pgrad.errors import WorldError
from pgrad.models import Agent
from pgrad.models.language.network import LanguageNetwork
from pgrad.stopping import Stop, Stopped, go_on
from pgrad.training.collect import Collector
from pgrad.training.completions import Completer
from pgrad.training.demonstrator import Demonstrator, open_recording
from pgrad.training.denormals import flushed
from pgrad.training.heap import keep_freed_memory
from pgrad.training.learner import Learner
from pgrad.training.reports import Averages, Every
from pgrad.training.restore import Undo, load_agent
from pgrad.training.sampling import GAP, SamplerCheck
from pgrad.training.stages import Stages
from pgrad.training.streams import Seeds, generator
from pgrad.training.teacher import Teacher
from pgrad.worlds.language.world import LanguageWorld
from pgrad.worlds.protocol import World

EMPTY = 5
"""After so many rounds without a decision that counts a training is given up."""

PATIENCE = 1.0
"""Seconds that a stop waits for an update; one that took longer last time is given up and begun again."""


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
        keep_freed_memory()
        n_envs = getattr(world, "n_envs", n_envs)  # a world of prompts has none of its own
        self.algorithm, self.world, self.agent = algorithm, world, agent
        self.total_timesteps = total_timesteps
        self.request = algorithm.collects(n_envs)
        self.stages = Stages()
        self._check = SamplerCheck(agent, algorithm)
        one_shape = not isinstance(self.request, Episodes)
        self.learner = Learner(agent, algorithm, generator(seeds.learning), one_shape)
        self.learner.stages = self.stages
        self.collector: Any = self._source(seeds, device, n_envs)
        self.averages = Averages()
        self.timesteps = 0
        self.iterations = 0
        self.compile_after: int | None = None  # gradient steps before machine code takes over; None: never
        self.begun = False  # before that there is no state to keep
        self.untold: int | None = None  # timesteps before an iteration that nobody was told of yet
        self.patience = PATIENCE
        self._collected: tuple[Trajectory, int] | None = None  # and how many decisions; not learned from yet
        # On a GPU the first update shows first how much memory there is to spare.
        self._update_lasted = float("inf") if device.type == "cpu" else 0.0
        self._empty = 0  # rounds in a row without a decision that counts

    def _source(
        self, seeds: Seeds, device: torch.device, n_envs: int
    ) -> Collector | Completer | Demonstrator | Teacher:
        """What hands out trajectories: a world of steps, one of prompts, or a recording."""
        if isinstance(self.world, LanguageWorld):
            if isinstance(self.request, Demonstrations):
                return Teacher(self.world, self.agent)
            return Completer(self.world, self.agent, seeds.acting, n_envs=n_envs, stages=self.stages)
        if isinstance(self.request, Demonstrations):
            recording = open_recording(self.request.source, self.world)
            return Demonstrator(self.request, recording, self.world, self.agent, generator(seeds.acting))
        noise, machine = generator(seeds.acting, device), self.learner.machine
        return Collector(self.world, self.agent, noise, stages=self.stages, machine=machine)

    @property
    def compiles(self) -> bool:
        """Whether the next iteration is by machine code."""
        return self.compile_after is not None and self.learner.n_updates >= self.compile_after

    def iterate(self, stop: Stop = go_on) -> dict[str, float]:
        """Collect once and learn from it once. Counts decisions, not rows: resets and padding are free.

        Where `stop` raises Stopped, the state is one that the next call goes on from as if nothing had been.
        What was collected is kept, for worlds and rewards may be random or dear; an update is begun again.
        """
        self.begun = True
        self.learner.machine.compiles = self.compiles
        if self._collected is None:
            with self.stages.within(self.collector.stage):
                traj = self.collector.collect(self.request, stop)
            self._collected = traj, self.collector.played
        traj, decisions = self._collected
        if decisions == 0 and not self.learner.replay.capacity:
            self._empty += 1
            if self._empty == EMPTY:
                raise WorldError(
                    f"there was nothing to learn from in {EMPTY} rounds: no decision counted, or no reward "
                    "could judge a completion (every one was None)"
                )
            self._collected = None
            return {}
        self._empty = 0
        if isinstance(self.collector, Completer):
            metrics = self._learn_from_text(traj, stop)
        else:
            metrics = self._learn(traj, stop)
        self.agent.observe(traj)
        self.timesteps += decisions
        self.iterations += 1
        self._collected = None
        return metrics

    def _learn_from_text(self, traj: Trajectory, stop: Stop) -> dict[str, float]:
        """The update, and how far the sampler was from what is trained."""
        with self.stages.within("credit"), self._scoring_asks(stop):
            traj, measured = self._check(traj)
        metrics = self._learn(traj, stop)
        self.learner.gap = gap = measured.get(GAP, self.learner.gap)
        told = {} if gap is None else {GAP: gap}
        return with_ess({**told, **metrics, **measured})

    def _learn(self, traj: Trajectory, stop: Stop) -> dict[str, float]:
        """The update. Where it may take longer than `patience`, it can be stopped, and then nothing moved."""
        undo = Undo(self.agent, self.learner, stop) if self._update_lasted > self.patience else None
        self.learner.stop = go_on if undo is None else undo.stop
        self.learner.begin(min(self.timesteps / self.total_timesteps, 1.0))
        began = time.perf_counter()
        try:
            with self.stages.within("update"), flushed(), self._scoring_asks(self.learner.stop):
                extra = self.algorithm.update(
                    self.learner, replace(traj, reward=self.agent.scale_rewards(traj))
                )
                metrics = self.learner.read(extra)
        except Stopped:
            if undo is not None:
                undo.back()
            raise
        self._update_lasted = time.perf_counter() - began
        return metrics

    def _scoring_asks(self, stop: Stop) -> AbstractContextManager[None]:
        """Inside, scoring texts can be stopped; what networks of other kinds score takes no time."""
        network = self.agent.network
        return network.asking(stop) if isinstance(network, LanguageNetwork) else nullcontext()

    @property
    def finished(self) -> bool:
        """Whether the budget is used."""
        return self.timesteps >= self.total_timesteps

    def state_dict(self) -> dict[str, Any]:
        """The exact state of the run, between two iterations or where one was stopped."""
        collected = self._collected and {"traj": as_plain(self._collected[0]), "played": self._collected[1]}
        return {
            "agent": {name: tensor.detach() for name, tensor in self.agent.state_dict().items()},
            "masked": self.agent.masked,
            "learner": self.learner.state_dict(),
            "collector": self.collector.state_dict(),
            "averages": self.averages.state_dict(),
            "timesteps": self.timesteps,
            "iterations": self.iterations,
            "untold": self.untold,
            "collected": collected,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a state back; what follows is bit for bit what would have followed."""
        load_agent(self.agent, state["agent"])
        self.agent.masked = state.get("masked", False)
        self.learner.load_state_dict(state["learner"])
        self.collector.load_state_dict(state["collector"])
        self.averages.load_state_dict(state["averages"])
        self.timesteps, self.iterations = state["timesteps"], state["iterations"]
        self.begun, self.untold = True, state.get("untold")
        self._collected = None
        if (collected := state.get("collected")) is not None:
            device = next(self.agent.parameters()).device
            traj = map_tree(lambda x: x.to(device), from_plain(collected["traj"]))
            self._collected = traj, collected["played"]


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
    stop: Stop = go_on,
) -> None:
    """Iterate until the budget is used or `stopped` says so; report, evaluate and save on the way.

    `stopped` is asked before each iteration, `stop` in the middle of it and of evaluations: where it raises
    Stopped, training ends there, in a state to go on from exactly. When the rest happens depends on the steps
    taken, not on time. `time/fps` is of the steps since the last report.
    """
    began = told = time.perf_counter()
    steps_told = training.timesteps
    training.stages.take()  # what was before is nobody's
    reports, saves, evaluations = Every(report_every), Every(save_every), Every(eval_every)
    while not stopped() and (training.untold is not None or not training.finished):
        try:
            if training.untold is None:
                before = training.timesteps
                training.averages.add(training.iterate(stop))
                training.untold = before
            after, before = training.timesteps, training.untold
            results = evaluate() if evaluations.passed(before, after) else {}
        except Stopped:
            return
        training.untold = None
        last = training.finished
        if results or last or reports.passed(before, after):
            now = time.perf_counter()
            clock = {
                "time/iterations": training.iterations,
                "train/n_updates": training.learner.n_updates,
                "time/time_elapsed": now - began,
                "time/fps": (after - steps_told) / max(now - told, 1e-9),
            }
            told, steps_told = now, after
            report(
                {
                    **clock,
                    **training.stages.take(),
                    **training.collector.episodes.metrics(),
                    **training.averages.take(),
                    **results,
                }
            )
        if saves.passed(before, after) and not last:
            save()
