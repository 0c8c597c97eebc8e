"""From a world and an agent to trajectories: facts only."""

from collections.abc import Callable
from functools import partial
from math import isfinite
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from pgrad.data import Episodes, Steps, Trajectory, Tree, map_tree
from pgrad.errors import CheckpointError, TrainingError, UsageError, WorldError
from pgrad.models import Agent
from pgrad.stopping import Stop, go_on
from pgrad.training.acting import Choice, Chooser, Written, likeliest, sampled
from pgrad.training.compiled import Machine
from pgrad.training.devices import put_generator_back
from pgrad.training.endless import LONG, look_for_an_end
from pgrad.training.episodes import EpisodeStatistics
from pgrad.training.rounds import play_rounds
from pgrad.training.small import small
from pgrad.training.stages import Stages
from pgrad.training.unfinished import Unfinished
from pgrad.training.window import Window
from pgrad.worlds.gym.vector import NOT_CONTINUED, VectorWorld
from pgrad.worlds.protocol import Step, World

AHEAD = 64
"""Steps for which random numbers may be drawn together where nobody knows how many there will be."""

FEW = 4
"""Steps of a window that are so soon over that it does not pay to prepare for them."""


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
        self._function: Callable[..., Choice] = likeliest if deterministic else sampled
        self._noise = () if deterministic else (generator,)
        self._small: Chooser | None = None  # that function by numpy, if it can be; looked for once
        self._looked = False
        self._chooser: Chooser | None = None  # that function, as it runs now
        self._together = world.device == generator.device  # world and agent
        self.episodes = EpisodeStatistics()
        self.memory = agent.memory(world.n_envs)
        self._obs: Tree | None = None
        self._steps = AHEAD  # of this collection, as far as is known
        self._storage = Window(generator.device)
        self._unfinished = Unfinished()
        self._last: tuple[Tree, Tensor] | None = None  # the actions taken last, and what was noted of them
        self.played = 0  # decisions of the last collection, those included that nothing is learned from

    @torch.no_grad()
    def collect(self, request: Steps | Episodes, stop: Stop = go_on) -> Trajectory:
        """What an algorithm asked for, acted by the agent as it is now.

        `stop` is called after every step; where it raises, the next call goes on after that step.
        """
        self._chooser = self._last = None
        self._steps = request.n if isinstance(request, Steps) else AHEAD
        try:
            if isinstance(request, Steps):
                played = traj = self._window(request.n, stop)
            else:
                played, traj = self._whole(request, stop)
        except WorldError:
            if self._last is not None:
                _require_finite(self._logp(*self._last))  # the world broke on what the policy broke
            raise
        finally:
            if self._chooser is not None:
                self._chooser.end()
        _require_finite(played.logp)
        # Ended is what was reset after it, or stood still: where lives are lost that is less than `done`.
        over = self._storage.over
        if not isinstance(request, Steps):
            over = torch.cat([played.mask == 0, torch.ones_like(played.done[:1])])
        self.episodes.update(played, over[:-1] | over[1:])
        self.played = int(played.mask.count_nonzero())
        return traj

    def _window(self, n: int, stop: Stop) -> Trajectory:
        obs = self._reset() if self._obs is None else self._obs
        seen, first = self._see(obs), self._unfinished.steps
        for t in range(first, n):
            action, noted = self._act(seen)
            if t == first:
                assert self._chooser is not None
                self._storage.open(n, t, seen, self.world.ended, action, noted, self._chooser)
            step = self._step(action)
            if self.memory.state:
                resets = self._storage.resets(t)
                self.memory.start = resets if t + 1 < n else resets.clone()
            self._obs, seen = step.obs, self._see(step.obs)
            self._storage.write(t, action, noted, step, self.world.ended, seen)
            if t + 1 < n:
                self._unfinished.steps = t + 1
                stop()
        self._unfinished.steps = 0
        traj = self._storage.settled(n)
        assert traj is not None
        # The row that only resets is an episode of its own, of weight zero.
        traj.done.logical_or_(traj.terminated).logical_or_(self._storage.over[:-1])
        return traj

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
            seen = self._see(obs)
            action, noted = self._act(seen)
            logp = self._logp(action, noted)
            (seen, action), ended = map_tree(torch.clone, (seen, action)), self.world.ended.clone()
            step = self._step(action, active)
            done = step.terminated | step.truncated | ~active
            rows.append((seen, action, logp, *map_tree(torch.clone, tuple(step[1:3])), done, active.float()))
            active = active & ~self.world.ended
            self._obs = obs = step.obs
            self.memory.begin(~ended)
            self._unfinished.active = active
            if len(rows) >= LONG:
                before = bool(self.episodes.finished or self._unfinished.rounds)
                look_for_an_end(self.world.name, len(rows), before or int(active.sum()) < n)
            stop()
        self._obs, self._unfinished.rows, self._unfinished.active = None, [], None
        device = self._device
        columns = map_tree(lambda *x: torch.stack(x).to(device)[:, :n], rows[0], *rows[1:])
        last = map_tree(lambda x: x[None, :n].to(device), self.memory.see(obs))
        whole = map_tree(lambda x, y: torch.cat([x, y]), columns[0], last)
        return Trajectory(whole, *columns[1:])

    def _see(self, obs: Tree) -> Tree:
        """What the agent sees, where it is."""
        return self.memory.see(self._moved(obs, self._device))

    def _act(self, seen: Tree) -> tuple[Tree, Tensor]:
        """Actions, and what is noted of them: their log-probabilities, or what these are made of."""
        if self._chooser is None:
            self._chooser = self._chosen_by(seen)
            self._chooser.begin(self._steps - self._unfinished.steps)
        action, noted, state = self._chooser(seen, *self._noise)
        self._last = action, noted
        if state:
            self.memory.advance(state)
        return action, noted

    def _chosen_by(self, seen: Tree) -> Chooser:
        """By numpy, or machine code, which is faster for few steps, or else as written."""
        if not self._looked:
            self._small, self._looked = small(self.agent, seen), True
        if self._small is not None and self._steps >= FEW:
            return self._small
        ready = self._machine.ready(self._function, seen, *self._noise)
        if ready is not None:
            return Written(ready)
        return self._small or Written(partial(self._function, self.agent))

    def _logp(self, action: Tree, noted: Tensor) -> Tensor:
        """The log-probabilities of what was chosen."""
        assert self._chooser is not None
        return self._chooser.log_prob(noted, action)

    def _step(self, action: Tree, active: Tensor | None = None) -> Step:
        sent = self._moved(action, self.world.device)  # waits for the device that chose it
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

    def _moved(self, tree: Tree, device: torch.device) -> Tree:
        return tree if self._together else map_tree(lambda x: x.to(device), tree)

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
            "unfinished": self._unfinished.state_dict(self._storage.settled(self._unfinished.steps)),
        }

    def _world_state(self) -> dict[str, Any] | None:
        """None for a world that cannot tell: someone else's vector environment."""
        return None if isinstance(self.world, VectorWorld) else self.world.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a state back, in mid-episode too. Raises CheckpointError where the world's was not kept."""
        if state["world"] is None:
            raise CheckpointError(f"the state of {self.world.name} could not be saved: {NOT_CONTINUED}")
        obs = self.world.load_state_dict(state["world"])
        self._obs = obs if state["started"] else None
        put_generator_back(self.generator, state["generator"])
        self.episodes.load_state_dict(state["episodes"])
        self.memory.load_state_dict(state["memory"])
        if "unfinished" in state:
            rows = self._unfinished.load_state_dict(state["unfinished"], self._device, self.world.device)
            self._storage = Window(self._device, rows)


def _require_finite(logp: Tensor) -> None:
    if not isfinite(logp.sum()) and not bool(logp.isfinite().all()):  # the first look is quicker
        raise TrainingError(
            "the policy produced actions of log-probability that is not finite (NaN or infinite)"
        )
