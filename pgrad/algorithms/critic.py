"""What algorithms with a critic share: credit by its values, its own loss, and what it reports."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pgrad.algorithms.protocol import Agent, Learner, Metrics
from pgrad.data import Batch, Trajectory
from pgrad.data.sequence import by_row
from pgrad.math.credit import gae
from pgrad.math.objectives import squared_error
from pgrad.math.reduce import explained_variance, mean


@torch.no_grad()
def gae_credit(agent: Agent, traj: Trajectory, gamma: float, gae_lambda: float, moved: bool = False) -> Batch:
    """Generalised advantage estimation, and TD(λ) targets for the critic.

    The memories stored with the rows are the critic's own, unless it has moved since it acted.
    Nothing is bootstrapped where a text ends, though it be cut by its longest length: it is judged as it
    stands. Everywhere else V goes on where a time limit cuts.
    """
    value = agent.value(traj.obs) if moved else by_row(agent.value, traj.obs)
    advantage = gae(traj.reward, value, traj.final, traj.done, gamma, gae_lambda)
    value = value[:-1]
    own = (traj.decisions, traj.action, traj.logp, traj.mask)
    return Batch(*own, advantage, value, advantage + value, weight=traj.weight)


def value_loss(agent: Agent, batch: Batch) -> tuple[Tensor, Metrics]:
    """½(V − V̂)², to be descended; the target V̂ is held fixed (semi-gradient)."""
    assert batch.target is not None
    error = mean(squared_error(agent.value(batch.obs), batch.target), batch.mask, batch.decisions)
    return 0.5 * error, {"train/value_loss": error.detach()}


def passes(
    learner: Learner, batch: Batch, batch_size: int, n_epochs: int, anew: Callable[[], Batch] | None
) -> Iterator[Batch]:
    """The minibatches of every pass over a batch; credit `anew`, if any, comes before each but the first.

    Only advantages and targets are new: what acted and what the critic said then stay as they were.
    """
    for epoch in range(n_epochs):
        if epoch > 0 and anew is not None:
            newer = anew().flatten()
            batch = replace(batch, advantage=newer.advantage, target=newer.target)
        yield from learner.minibatches(batch, batch_size)


def critic_metrics(learner: Learner, batch: Batch) -> Metrics:
    """How much of the variance of its targets the critic foresaw, before it learned from them."""
    found: Metrics = learner.compute(foreseen, batch.value, batch.target, batch.mask)
    return found


@torch.no_grad()
def foreseen(agent: Agent, value: Tensor, target: Tensor, mask: Tensor) -> Metrics:
    """The explained variance of what the critic said."""
    return {"train/explained_variance": explained_variance(value, target, mask)}
