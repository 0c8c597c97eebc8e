"""Honest evaluation: fresh worlds, frozen statistics, a fixed number of episodes per environment."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Generator

from pgrad.data import map_tree
from pgrad.models import Agent
from pgrad.report.statistics import mean_interval
from pgrad.stopping import Stop, go_on
from pgrad.training.endless import LONG, look_for_an_end
from pgrad.worlds import World


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns and lengths of whole episodes, in the order they were assigned."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    deterministic: bool
    texts: bool = False
    """answers to prompts, their rewards as returns"""
    unjudged: int = 0
    """episodes beside these that no reward could judge"""

    @property
    def mean(self) -> float:
        """Mean return."""
        return sum(self.returns) / len(self.returns)

    @property
    def std(self) -> float:
        """Population standard deviation of the returns."""
        mean = self.mean
        return (sum((x - mean) ** 2 for x in self.returns) / len(self.returns)) ** 0.5

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean return over episodes: 10 000 resamples; of 0s and 1s that of a share."""
        return mean_interval(self.returns)

    @property
    def mean_length(self) -> float:
        """Mean number of steps."""
        return sum(self.lengths) / len(self.lengths)

    def __str__(self) -> str:
        how, digits, one = "deterministic" if self.deterministic else "sampled", 1, len(self.returns) == 1
        what = f"{how} episode" if one else f"{how} episodes"
        if self.texts:
            how, digits = "greedy" if self.deterministic else "sampled", 3
            what = f"prompt, {how}" if one else f"prompts, {how}"
        if self.unjudged:
            what += f", {self.unjudged} more could not be judged"
        length = f"length {self.mean_length:.1f}"
        if one:
            return f"{self.mean:z.{digits}f} in 1 {what} (no interval of one, {length})"
        low, high = self.interval
        return (
            f"{self.mean:z.{digits}f} ± {self.std:.{digits}f} over {len(self.returns)} {what} "
            f"(95% interval of the mean {low:z.{digits}f} … {high:z.{digits}f}, {length})"
        )


@contextmanager
def eval_mode(agent: Agent) -> Iterator[None]:
    """The agent in evaluation mode, and afterwards every part of it in the mode it was in."""
    before = [(module, module.training) for module in agent.modules()]  # a part may be frozen on its own
    agent.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@torch.no_grad()
def evaluate(
    agent: Agent,
    world: World,
    *,
    episodes: int,
    deterministic: bool,
    generator: Generator,
    stop: Stop = go_on,
) -> Evaluation:
    """Run `episodes` whole episodes, assigned to environments beforehand so that short ones are not favoured.

    Environment i runs every B-th episode and is left alone when it has run its share. Nothing of the agent
    changes. `generator` draws the actions where `deterministic` is false. `stop` is called before every step.
    Warns where no episode comes to an end; raises UsageError for one that is given up.
    """
    n = world.n_envs
    share = torch.tensor([episodes // n + (i < episodes % n) for i in range(n)], device=world.device)
    finished: list[list[tuple[float, int]]] = [[] for _ in range(n)]
    total = torch.zeros(n, dtype=torch.float64, device=world.device)
    length = torch.zeros(n, dtype=torch.int64, device=world.device)
    with eval_mode(agent):
        obs, memory = world.reset(), agent.memory(n)
        active = share > 0
        while bool(active.any()):
            stop()
            seen = memory.see(map_tree(lambda x: x.to(generator.device), obs))
            policy = agent.step(seen, memory)
            action = policy.mode if deterministic else policy.sample(generator)
            fresh = ~world.ended & active
            step = world.step(map_tree(lambda x: x.to(world.device), action), active)
            total += torch.where(fresh, step.reward, 0.0)
            length += fresh
            over = world.ended & fresh
            for i in over.nonzero().flatten().tolist():
                finished[i].append((float(total[i]), int(length[i])))
                total[i], length[i] = 0.0, 0
            memory.begin(fresh)
            share -= over.long()
            active = share > 0
            obs = step.obs
            if (longest := int(length.max())) >= LONG:
                look_for_an_end(world.name, longest, any(finished))
    ordered = [finished[i % n][i // n] for i in range(episodes)]
    return Evaluation(tuple(x for x, _ in ordered), tuple(k for _, k in ordered), deterministic)
