"""From a world and an agent to trajectories: facts only."""

from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from pgrad.data import Episodes, Steps, Trajectory, Tree, leaves, map_tree
from pgrad.errors import CheckpointError, TrainingError, UsageError, WorldError
from pgrad.models import Agent
from pgrad.stopping import Stop, go_on
from pgrad.training.acting import likeliest, sampled
from pgrad.training.compiled import Machine
from pgrad.training.episodes import EpisodeStatistics
from pgrad.training.rounds import play_rounds
from pgrad.training.stages import Stages
from pgrad.training.unfinished import Unfinished
from pgrad.worlds.gym.vector import NOT_CONTINUED, VectorWorld
from pgrad.worlds.protocol import Step, World

LONGEST_EPISODE = 1_000_000


class Collector:
    """Lets the agent act in the world, with a generator of its own for the sampling.

    Trajectories of windows share one storage, overwritten by the next window.
    """

    stage: ClassVar = "act"

    def __init__(
        self,
        world: World,
        agent: Agent,
        generator: Generator,
        *,
        deterministic: bool = False,
        stages: Stages | None = None,
        machine: Machine | None = None,
    ) -> None:
        self.world, self.agent, self.generator = world, agent, generator
        self.stages = Stages() if stages is None else stages
        self._machine = Machine(agent) if machine is None else machine
        self._deterministic = deterministic  # act by the policy's mode
        self.episodes = EpisodeStatistics()
        self.memory = agent.memory(world.n_envs)
        self._obs: Tree | None = None
        self._storage: Trajectory | None = None
        self._rows: list[Trajectory] = []  # of the storage, as views
        self._unfinished = Unfinished()
        self._logp: Tensor | None = None  # of the actions that were taken last
        self.played = 0  # decisions of the last collection, those included that nothing is learned from

    @torch.no_grad()
    def collect(self, request: Steps | Episodes, stop: Stop = go_on) -> Trajectory:
        """What an algorithm asked for, acted by the agent as it is now.

        `stop` is called after every step; where it raises, the next call goes on after that step.
        """
        try:
            if isinstance(request, Steps):
                played = traj = self._window(request.n, stop)
            else:
                played, traj = self._whole(request, stop)
        except WorldError:
            if self._logp is not None:
                _require_finite(self._logp)  # the world broke on what the policy broke
            raise
        _require_finite(played.logp)
        # Ended is what was reset after it, or stood still: where lives are lost that is less than `done`.
        over = played.mask == 0
        last = self.world.ended.to(over.device) if isinstance(request, Steps) else torch.ones_like(over[0])
        self.episodes.update(played, over | torch.cat([over[1:], last.unsqueeze(0)]))
        self.played = int((played.mask > 0).sum())
        return traj

    def _window(self, n: int, stop: Stop) -> Trajectory:
        obs = self._reset() if self._obs is None else self._obs
        storage = self._storage
        for t in range(self._unfinished.steps, n):
            seen, action, logp = self._act(obs)
            if storage is None or len(storage.reward) != n:
                storage = self._allocate(n, t, seen, action)
            row = self._rows[t]
            map_tree(Tensor.copy_, row.obs, seen)
            map_tree(Tensor.copy_, row.action, action)
            row.logp.copy_(logp)
            row.mask.copy_(~self.world.ended)
            step = self._step(action)
            row.reward.copy_(step.reward)
            row.terminated.copy_(step.terminated)
            row.done.copy_(step.truncated)
            self._obs = obs = step.obs
            self.memory.begin(row.mask)
            if t + 1 < n:
                self._unfinished.steps = t + 1
                stop()
        self._unfinished.steps = 0
        assert storage is not None
        put(storage.obs, n, self.memory.see(obs))
        # The row that only resets is an episode of its own, of weight zero.
        storage.done.logical_or_(storage.terminated).logical_or_(storage.mask == 0)
        return storage

    def _allocate(self, n: int, done: int, obs: Tree, action: Tree) -> Trajectory:
        """Storage for windows of n steps, with the first `done` rows of the one that was stopped."""
        before, storage = self._storage, allocate(n, obs, action, self._device)
        if done and before is not None:
            map_tree(lambda new, old: new[: len(old)].copy_(old), storage, before)
        self._storage = storage
        self._rows = [map_tree(lambda x, t=t: x[t], storage) for t in range(n)]
        return storage

    def _whole(self, request: Episodes, stop: Stop) -> tuple[Trajectory, Trajectory]:
        """All that was played, and what was asked for: rounds of one episode per environment."""
        size, group = self.world.n_envs, request.group
        if size % group:
            raise UsageError(
                f"groups of {group} episodes do not fill {size} environments: choose n_envs as a multiple of "
                f"{group}"
            )
        found = play_rounds(request, size, lambda n: self._round(n, group, stop), self._unfinished.rounds)
        self._unfinished.rounds = []
        return found

    def _round(self, n: int, group: int, stop: Stop) -> Trajectory:
        rows, active, obs = self._unfinished.rows, self._unfinished.active, self._obs
        if active is None:
            obs = self._reset(group)
            active = torch.arange(self.world.n_envs, device=self.world.device) < n
        while bool(active.any()):
            seen, action, logp = self._act(obs)
            seen, ended = map_tree(torch.clone, seen), self.world.ended.clone()
            step = self._step(action, active)
            done = step.terminated | step.truncated | ~active
            rows.append((seen, action, logp, *map_tree(torch.clone, tuple(step[1:3])), done, active.float()))
            active = active & ~self.world.ended
            self._obs = obs = step.obs
            self.memory.begin(~ended)
            self._unfinished.active = active
            stop()
            if len(rows) > LONGEST_EPISODE:
                raise endless(self.world.name)
        self._obs, self._unfinished.rows, self._unfinished.active = None, [], None
        device = self._device
        columns = map_tree(lambda *x: torch.stack(x).to(device)[:, :n], rows[0], *rows[1:])
        last = map_tree(lambda x: x[None, :n].to(device), self.memory.see(obs))
        whole = map_tree(lambda x, y: torch.cat([x, y]), columns[0], last)
        return Trajectory(whole, *columns[1:])

    def _act(self, obs: Tree) -> tuple[Tree, Tree, Tensor]:
        """What the agent sees, where it is; its actions and their log-probabilities."""
        seen = self.memory.see(map_tree(lambda x: x.to(self._device), obs))
        how = (likeliest, seen) if self._deterministic else (sampled, seen, self.generator)
        action, self._logp, state = self._machine.run(*how)
        self.memory.advance(state)
        return seen, action, self._logp

    def _step(self, action: Tree, active: Tensor | None = None) -> Step:
        sent = self._to_world(action)  # waits for the device that chose it
        before = self.stages.switch("world")
        step = self.world.step(sent, active)
        self.stages.switch(before)
        return step

    def _reset(self, group: int = 1) -> Tree:
        self.memory = self.agent.memory(self.world.n_envs)
        before = self.stages.switch("world")
        obs = self.world.reset(group)
        self.stages.switch(before)
        return obs

    def _to_world(self, action: Tree) -> Tree:
        return map_tree(lambda x: x.to(self.world.device), action)

    @property
    def _device(self) -> torch.device:
        return self.generator.device

    def state_dict(self) -> dict[str, Any]:
        """The world's exact state, the generator and the running statistics."""
        return {
            "world": self._world_state(),
            "generator": self.generator.get_state(),
            "episodes": self.episodes.state_dict(),
            "started": self._obs is not None,
            "memory": self.memory.state_dict(),
            "unfinished": self._unfinished.state_dict(self._storage),
        }

    def _world_state(self) -> dict[str, Any] | None:
        """None for a world that cannot tell: someone else's vector environment."""
        return None if isinstance(self.world, VectorWorld) else self.world.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a state back, in mid-episode too. Raises CheckpointError where the world's was not kept."""
        if state["world"] is None:
            raise CheckpointError(f"the state of {self.world.name} could not be saved: {NOT_CONTINUED}")
        if state["generator"].shape != self.generator.get_state().shape:
            raise CheckpointError(
                "this run was trained on another kind of device: continue it there, or load it"
            )
        obs = self.world.load_state_dict(state["world"])
        self._obs = obs if state["started"] else None
        self.generator.set_state(state["generator"].cpu())
        self.episodes.load_state_dict(state["episodes"])
        self.memory.load_state_dict(state["memory"])
        if "unfinished" in state:
            self._storage = self._unfinished.load_state_dict(state["unfinished"], self._device)


def _require_finite(logp: Tensor) -> None:
    if not bool(logp.isfinite().all()):
        raise TrainingError(
            "the policy produced actions of log-probability that is not finite (NaN or infinite)"
        )


def endless(world: str) -> UsageError:
    """What to say of an episode longer than `LONGEST_EPISODE`."""
    return UsageError(f"no end to an episode of {world} in {LONGEST_EPISODE} steps: add a time limit")


def allocate(n: int, obs: Tree, action: Tree, device: torch.device) -> Trajectory:
    """Storage for n steps of observations and actions like these."""
    n_envs = next(iter(leaves(obs))).shape[0]

    def rows(count: int) -> Any:
        return lambda x: torch.empty((count, *x.shape), dtype=x.dtype, device=device)

    def column(dtype: torch.dtype) -> Tensor:
        return torch.empty((n, n_envs), dtype=dtype, device=device)

    flags = column(torch.bool), column(torch.bool)
    numbers = column(torch.float32), column(torch.float32)
    return Trajectory(
        map_tree(rows(n + 1), obs), map_tree(rows(n), action), *numbers, *flags, column(torch.float32)
    )


def put(storage: Tree, t: int, value: Tree) -> None:
    """Copy one row into storage."""
    map_tree(lambda whole, row: whole[t].copy_(row), storage, value)
