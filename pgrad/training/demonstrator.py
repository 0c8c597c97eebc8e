"""From recorded episodes to trajectories: what a `Collector` is to a world."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, Tuple
from torch import Generator, Tensor

from pgrad.algorithms.imitate import likeness
from pgrad.data import Demonstrations, Masked, Trajectory, Tree, leaves, map_tree
from pgrad.data.sequence import Sequence
from pgrad.environments.masks import choices
from pgrad.errors import CheckpointError, UsageError
from pgrad.models import Agent
from pgrad.stopping import Stop, go_on
from pgrad.training.disk.demonstrations import Recording, load_demonstrations
from pgrad.training.minari import PREFIX, load_minari
from pgrad.worlds.buffers import zeros
from pgrad.worlds.protocol import World

MEASURED = 8192
"""So many decisions held out are enough to measure by."""


class Demonstrator:
    """Hands out sequences of a recording in shuffled passes; keeps some episodes for measuring.

    Raises UsageError where the recording does not fit the spaces of `world`, or is too short.
    """

    stage: ClassVar = "read"

    def __init__(
        self, request: Demonstrations, recording: Recording, world: World, agent: Agent, generator: Generator
    ) -> None:
        self.agent, self.generator = agent, generator
        self.played = 0  # decisions of the last batch
        if agent.has_memory and request.length == 1:
            raise UsageError("an agent with a memory learns from sequences: set n_steps, such as 16")
        self._sha256, self._source = recording.sha256, request.source
        self._rows = _trajectory(recording, request.source, world)
        stops = torch.tensor(recording.lengths).add(1).cumsum(0).tolist()
        episodes = [range(start, stop) for start, stop in zip((0, *stops), stops, strict=False)]
        order = torch.randperm(len(episodes), generator=generator).tolist()
        n_held = min(round(request.held_out * len(episodes)), len(episodes) - 1)
        held, kept = sorted(order[:n_held]), sorted(order[n_held:])
        self._windows = self._cut([episodes[k] for k in kept], request.length)
        if not len(self._windows):
            raise UsageError(f"{request.source} has no sequence of {request.length} rows to learn from")
        if request.n > len(self._windows):
            given, there = (n * request.length for n in (request.n, len(self._windows)))
            raise UsageError(
                f"batch_size {given} is more than there is to learn from: {there} of the "
                f"{sum(recording.lengths)} decisions in {request.source} (held_out {request.held_out:g}): "
                f"give batch_size {there} or less (--batch-size), or record more episodes"
            )
        self._left = self._windows[:0]  # of the pass that has begun
        held_windows = self._cut([episodes[k] for k in held], request.length)
        self.episodes = HeldOut(agent, self._take(held_windows[: MEASURED // request.length]))

    def collect(self, request: Demonstrations, stop: Stop = go_on) -> Trajectory:
        """The next `n` sequences [length, n], where the agent is: too little work to be stopped in."""
        while len(self._left) < request.n:
            order = torch.randperm(len(self._windows), generator=self.generator)
            self._left = torch.cat([self._left, self._windows[order]])
        now, self._left = self._left[: request.n], self._left[request.n :]
        traj = self._take(now)
        self.played = int((traj.mask > 0).sum())
        return traj

    def _cut(self, episodes: list[range], length: int) -> Tensor:
        """Windows of `length` rows and one more, [W, length + 1]: for length 1 one for every decision."""
        rows = torch.tensor([row for episode in episodes for row in episode], dtype=torch.int64)
        starts = torch.arange(0, max(len(rows) - length + 1, 0), length)
        if length == 1:
            starts = starts[self._rows.mask[rows[starts], 0] > 0]
        places = starts.unsqueeze(1) + torch.arange(length + 1)
        return rows[places.clamp(max=max(len(rows) - 1, 0))] if len(starts) else places

    def _take(self, windows: Tensor) -> Trajectory:
        index = windows.T
        device = next(self.agent.parameters()).device
        rows = self._rows
        facts = (rows.action, rows.logp, rows.reward, rows.terminated, rows.done, rows.mask)
        taken = map_tree(lambda x: x[index[:-1], 0].to(device), facts)
        obs = map_tree(lambda x: x[index, 0].to(device), rows.obs)
        if self.agent.has_memory:
            obs = self._remembering(obs, taken[5] == 0)
        return Trajectory(obs, *taken)

    def _remembering(self, obs: Tree, resets: Tensor) -> Sequence:
        """Sequences that begin with an empty memory, wherever in their episode that is."""
        memory = self.agent.memory(resets.shape[1])
        start = torch.cat([memory.start.unsqueeze(0), resets])
        state = map_tree(lambda x: x.expand(len(start), *x.shape), memory.state)
        return Sequence(obs, start, state, len(resets))

    def state_dict(self) -> dict[str, Any]:
        """What is left of the pass, and the generator."""
        return {"sha256": self._sha256, "left": self._left, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it back. Raises CheckpointError where the recording is another one."""
        if state["sha256"] != self._sha256:
            raise CheckpointError(f"{self._source} is not the recording that this run was started with")
        self._left = state["left"]
        self.generator.set_state(state["generator"].cpu())


def open_recording(source: str, world: World) -> Recording:
    """The recording that is meant by a file's name, or by minari:DATASET."""
    if source.startswith(PREFIX):
        return load_minari(source.removeprefix(PREFIX), world)
    return load_demonstrations(Path(source))


class HeldOut:
    """How well the agent knows the decisions that it does not learn from."""

    def __init__(self, agent: Agent, traj: Trajectory) -> None:
        self.agent, self.traj = agent, traj

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """Mean log-likelihood, and accuracy where actions are discrete; empty where nothing is held out."""
        traj = self.traj
        if not traj.mask.numel():
            return {}
        found = likeness(self.agent.policy(traj.decisions), traj.action, traj.mask)
        return {f"held_out/{name}": float(x) for name, x in found.items()}


def _trajectory(recording: Recording, source: str, world: World) -> Trajectory:
    """All rows as one column [R, 1]; observations too, the successor being the next row."""
    obs = _filled(zeros(world.observation_space, 1), recording.obs, f"the observations in {source}", world)
    action = _filled(action_zeros(world.action_space), recording.action, f"the actions in {source}", world)
    if recording.allowed is not None:
        width = sum(choices(world.action_space))
        if recording.allowed.shape[1:] != (width,):
            raise UsageError(f"the action masks in {source} do not fit {world.action_space}")
        obs = Masked(obs, recording.allowed.unsqueeze(1))
    names = ("logp", "reward", "terminated", "done", "mask")
    return Trajectory(obs, action, *(recording.facts[name].unsqueeze(1) for name in names))


def _filled(template: Tree, columns: tuple[Tensor, ...], what: str, world: World) -> Tree:
    wanted = [(tuple(x.shape[1:]), x.dtype) for x in leaves(template)]
    given = [(tuple(x.shape[1:]), x.dtype) for x in columns]
    if wanted != given:
        raise UsageError(f"{what} are {_forms(given)}; those of {world.name} are {_forms(wanted)}")
    rest: Iterator[Tensor] = iter(columns)
    return map_tree(lambda _: next(rest).unsqueeze(1), template)


def _forms(forms: list[tuple[Any, Any]]) -> str:
    return ", ".join(f"{str(dtype).removeprefix('torch.')} {list(shape)}" for shape, dtype in forms)


def action_zeros(space: Space[Any]) -> Tree:
    """An action [1, ...] of the space in the form that policies give it: parts of several axes lie flat."""
    if isinstance(space, Dict):
        return {key: action_zeros(part) for key, part in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(action_zeros(part) for part in space.spaces)
    dtype = torch.float32 if isinstance(space, Box) else torch.int64
    x = torch.zeros(1, *(space.shape or ()), dtype=dtype)
    return x if isinstance(space, Discrete) else x.reshape(1, -1)
