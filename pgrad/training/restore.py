"""Putting things back: an agent as it was saved, and what an update moved that is given up in its middle."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pgrad.data import leaves, map_tree
from pgrad.data.room import room_on, size_of
from pgrad.errors import UsageError
from pgrad.models import Agent
from pgrad.stopping import Stop
from pgrad.training.learner import Learner

SHARE = 1 / 8
"""Of the memory, which copies may fill."""


def load_agent(agent: Agent, tensors: dict[str, Tensor]) -> None:
    """Fill an agent's parameters and statistics in place. Raises UsageError where they do not fit."""
    if agent.reward_scaler is not None:
        device = agent.reward_scaler.running.device
        agent.reward_scaler.running = torch.empty_like(tensors["reward_scaler.running"], device=device)
    try:
        agent.load_state_dict(tensors)
    except RuntimeError:  # torch tells of every tensor, over many lines
        require_same_forms("the agent of the run", tensors, agent.state_dict())
        raise


def require_same_forms(
    what: str, theirs: Mapping[str, Tensor], mine: Mapping[str, Tensor], more: str = ""
) -> None:
    """Raise UsageError, with what `more` may be the cause, unless the tensors have the same names and shapes.

    theirs: what was saved, of `what`; mine: what it is to fill.
    """
    for name in sorted(theirs.keys() | mine.keys()):
        forms = [list(x[name].shape) if name in x else "missing" for x in (theirs, mine)]
        if forms[0] != forms[1]:
            raise UsageError(
                f"{what} does not fit: {name} is {forms[0]} there, {forms[1]} here (another world, other "
                f"options{more})"
            )


class Undo:
    """Agent and learner as they are at the beginning of an update.

    What gradient steps move is copied where there is room: with Adam 12 bytes for each parameter that is
    trained (of an adapter only those), its value and two moments. Where the copies would fill more than
    `SHARE` of the memory there are none, and an update can be given up until its first gradient step, after
    which it is finished. The rest (generators, statistics, variables) is small. What is stored for replay is
    not copied either: the same rows are added to the same places again.
    """

    def __init__(self, agent: Agent, learner: Learner, stop: Stop) -> None:
        self._agent, self._learner, self._stop = agent, learner, stop
        self._state = learner.state_dict()
        values, statistics = _moving(agent)
        optimizers = self._state["optimizers"]
        self.copied = _fits((values, optimizers))
        keep: Callable[[Tensor], Tensor] = torch.clone if self.copied else lambda x: x
        self._tensors: dict[str, Tensor] = map_tree(keep, values) | map_tree(torch.clone, statistics)
        self._state["optimizers"] = map_tree(keep, optimizers)

    def stop(self) -> None:
        """The `Stop` of the update: only raises where `back` is exact."""
        if self.copied or self._learner.n_updates == self._state["n_updates"]:
            self._stop()

    def back(self) -> None:
        """Put everything back, bit for bit."""
        load_agent(self._agent, self._agent.state_dict() | self._tensors)
        self._learner.load_state_dict(self._state)


def _moving(agent: Agent) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What an update moves of an agent: parameters that are trained with their slow copies; statistics."""
    parameters = dict(agent.named_parameters())
    values = {
        name: p.detach()
        for name, p in parameters.items()
        if p.requires_grad or any(part.startswith("target") for part in name.split("."))
    }
    rest = agent.state_dict().items()
    return values, {name: x for name, x in rest if name not in parameters and x.dtype.is_floating_point}


def _fits(tree: Any) -> bool:
    """Whether there is room for copies: on a GPU in what was never needed so far."""
    device = next(leaves(tree)).device
    room = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else room_on(device)
    return size_of(tree) <= SHARE * room
