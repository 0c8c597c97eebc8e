"""Where the time of a run goes: its own configuration, trained for some seconds, nothing written."""

import sys
import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from pgrad.run.assemble import make_training
from pgrad.run.config import RunConfig
from pgrad.run.threads import torch_threads
from pgrad.run.warm import begin_with
from pgrad.training.loop import Training
from pgrad.training.versions import cores
from pgrad.worlds.language.kind import is_language
from pgrad.worlds.tensors.tensor import TENSOR_WORLDS

SETTLED = 2
"""Iterations before the clock starts: the first ones allocate, import and compile."""

ALONE = 0.8
"""A process that computes all the time and keeps less of a core busy has to share it."""

MUCH = 0.5
"""From this share of the time on, a stage is worth a word."""


@dataclass(frozen=True)
class Stage:
    """What one stage takes, per iteration."""

    milliseconds: float
    share: float
    steps_per_second: float
    """decisions a second if there were no other stage"""


@dataclass(frozen=True)
class Measurement:
    """Where the time of a run goes."""

    seconds: float
    iterations: int
    timesteps: int
    gradient_steps: int
    stages: dict[str, Stage]
    warm_up: float
    """seconds before, of world, agent and first iterations"""
    memory: float
    """MiB that this process held at most"""
    gpu_memory: float
    """MiB of tensors on the GPU at most; 0 without one"""
    threads: int
    busy: float
    """cores that this process kept busy, on average"""
    device: str
    compiled: bool
    """machine code was measured, not the functions as they are written"""
    compile_after: int | None
    """gradient steps after which a run goes over to machine code; None for never"""
    advice: str
    """what would help, where that is evident; else empty"""

    @property
    def steps_per_second(self) -> float:
        """Decisions a second."""
        return self.timesteps / self.seconds

    @property
    def gradient_steps_per_second(self) -> float:
        """Gradient steps a second."""
        return self.gradient_steps / self.seconds


def measure(config: RunConfig, seconds: float = 10.0) -> Measurement:
    """Train a configuration for about so many seconds after a warm-up, and tell how long its stages took.

    The warm-up lasts until gradient steps are taken: with replay, until there is enough of it. On a GPU every
    stage is waited for, so that each takes what it costs, and the sum is a little more than without.
    Raises UsageError, WorldError and TrainingError as `train` does.
    """
    began = time.perf_counter()
    training = make_training(config)
    try:
        if config.options.init_from is not None:
            begin_with(training.agent, config.agent, config.options.init_from)
        with torch_threads(config, training.agent.observation_space):
            return _measured(config, training, seconds, began)
    finally:
        training.world.close()


def _measured(config: RunConfig, training: Training, seconds: float, began: float) -> Measurement:
    device = next(training.agent.parameters()).device
    stages = training.stages
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        stages.clock = _waiting
    while training.iterations < SETTLED or training.learner.n_updates == 0:
        training.iterate()
    first = training.timesteps, training.iterations, training.learner.n_updates
    stages.take()
    started, busy = stages.clock(), time.process_time()
    compiled = training.compiles
    while stages.clock() - started < seconds and training.compiles == compiled:
        training.iterate()
    spent = stages.take()
    elapsed, busy = sum(spent.values()), time.process_time() - busy
    last = training.timesteps, training.iterations, training.learner.n_updates
    steps, n, gradient_steps = (b - a for a, b in zip(first, last, strict=True))
    rows = {
        name.removeprefix("time/"): Stage(1e3 * x / n, x / elapsed, steps / max(x, 1e-9))
        for name, x in spent.items()
    }
    gpu = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
    found = Measurement(
        seconds=elapsed,
        iterations=n,
        timesteps=steps,
        gradient_steps=gradient_steps,
        stages=rows,
        warm_up=started - began,
        memory=_peak_memory(),
        gpu_memory=gpu,
        threads=torch.get_num_threads(),
        busy=busy / elapsed,
        device=str(device),
        compiled=compiled,
        compile_after=training.compile_after,
        advice="",
    )
    return replace(found, advice=advice(config, found))


def advice(config: RunConfig, found: Measurement) -> str:
    """One line on what would make the run faster, where it is evident; else empty."""
    options, algorithm = config.options, config.algorithm
    share = {name: stage.share for name, stage in found.stages.items()}
    here = options.workers == 0 and found.device == "cpu" and not is_language(config.world)
    if here and found.busy < ALONE:
        return f"other programs were using the cores: this one waited {1 - found.busy:.0%} of the time"
    if is_language(config.world):
        if share.get("reward", 0.0) >= MUCH:
            return "the rewards take most of the time: make them faster"
        return ""
    if share.get("world", 0.0) >= MUCH:
        if config.world_name in TENSOR_WORLDS:
            return f"the world takes most of the time, for few as for many: --n-envs {4 * options.n_envs}"
        useful = min(cores(), options.n_envs)
        if options.workers == 0 and useful > 1:
            return f"the world takes most of the time: step it in processes, --workers {useful}"
        if options.workers == 0 and cores() > 1:
            return "the world takes most of the time: more --n-envs, stepped in processes (--workers)"
        return ""
    if share.get("act", 0.0) >= MUCH:
        return f"choosing actions takes most of the time: more of them at once, --n-envs {4 * options.n_envs}"
    batch: Any = getattr(algorithm, "batch_size", None)
    if share.get("update", 0.0) >= MUCH and isinstance(batch, int) and not hasattr(algorithm, "buffer_size"):
        return (
            "gradient steps take most of the time: fewer and larger ones cost less, such as "
            f"--batch-size {4 * batch} (which changes what is learned)"
        )
    return ""


def _waiting() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def _peak_memory() -> float:
    """MiB that this process held at most; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
