"""What soft actor-critics share: the temperature, and how replay and gradient steps take turns."""

from collections.abc import Iterator
from functools import partial
from typing import Literal

from torch import Tensor

from pgrad.algorithms.protocol import Descent, Learner, Metrics, SoftAgent
from pgrad.data import Batch, Trajectory, Transition
from pgrad.errors import UsageError


def alpha(agent: SoftAgent, ent_coef: float | Literal["auto"]) -> Tensor | float:
    """The temperature α, as a constant."""
    return agent.log_temperature().detach().exp() if ent_coef == "auto" else ent_coef


def temperature_loss(agent: SoftAgent, batch: Batch, surplus: Tensor) -> tuple[Tensor, Metrics]:
    """log α · (H − H̄) for the `surplus` H − H̄ of entropy: α falls where there is too much, else it rises.

    Haarnoja et al. 2018, arXiv 1812.05905, eq. (18), with log α for α.
    """
    log_alpha = agent.log_temperature()
    return log_alpha * surplus, {"train/ent_coef": log_alpha.detach().exp()}


def temper(learner: Descent, batch: Batch, actor: Metrics) -> None:
    """A step of the temperature, by the entropy that the actor's step found."""
    learner.descend(partial(temperature_loss, surplus=actor["train/entropy_surplus"]), batch, "temperature")


def check_replay(buffer_size: int, learning_starts: int, n_steps: int, n_envs: int) -> None:
    """Raise UsageError unless a replay has room for a window, and for what is to be collected first."""
    room = buffer_size // n_envs * n_envs
    for name, least in (("n_steps · n_envs", n_steps * n_envs), ("learning_starts", learning_starts)):
        if room < least:
            raise UsageError(
                f"buffer_size {buffer_size}, in whole rows of {n_envs} environments {room}, is less than "
                f"{name} = {least}"
            )


def due(
    learner: Learner, traj: Trajectory, learning_starts: int, gradient_steps: int, batch_size: int
) -> Iterator[Transition]:
    """Put a window into the replay; then what is drawn from it for each gradient step that is due.

    None before `learning_starts` decisions were collected; −1 `gradient_steps` are one for each new decision.
    """
    decisions = learner.replay.add(traj)
    if learner.replay.seen >= learning_starts:
        for _ in range(decisions if gradient_steps < 0 else gradient_steps):
            yield learner.replay.transitions(batch_size, learner.generator)
