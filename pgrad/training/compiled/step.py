"""The gradient step as one function of tensors: loss, backward, clipping and the optimiser."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from pgrad.algorithms.protocol import Metrics
from pgrad.data.handover import hand_over
from pgrad.training.compiled.call import Call
from pgrad.training.compiled.machine import Machine
from pgrad.training.optimizers import FlatParameters, Group, clip

PREFIX = "agent."
"""Of the names of an agent's tensors, inside what is called with them."""


class CompiledStep:
    """Steps of some groups of parameters by machine code, on the tensors that the learner steps on.

    What it keeps: the values of every group, the moments of those that are stepped, their step sizes, and
    the agent's other tensors.
    """

    def __init__(
        self, machine: Machine, flat: FlatParameters, stepped: list[str], max_grad_norm: float
    ) -> None:
        self._machine, self._flat, self._max_grad_norm = machine, flat, max_grad_norm
        self._groups = {name: flat.groups[name] for name in stepped}
        sizes = [group.optimizer.numbers(group.learning_rate) for group in self._groups.values()]
        self._sizes = torch.tensor(sizes, device=flat.values.device)
        self._others = untrained(machine, flat)
        optimizer = type(flat.groups[stepped[0]].optimizer).__name__
        self._around = ("step", *stepped, optimizer, max_grad_norm)

    def __call__(self, call: Call, share: float) -> Metrics | None:
        """A step with `share` of the first step sizes, and what it reports; None where there is no code."""
        program = self._machine.program(call, "a gradient step", self._mathematics, self._kept, self._around)
        if program is None:
            return None
        sizes = []
        for group in self._groups.values():
            group.optimizer.count()
            sizes.append(group.optimizer.numbers(group.learning_rate * share))
        write(sizes, self._sizes)
        metrics: Metrics = program(call)
        return metrics

    def _kept(self) -> list[Tensor]:
        values = [group.values for group in self._flat.groups.values()]
        moments = [x for group in self._groups.values() for x in group.optimizer.moments]
        return [*values, *moments, self._sizes, *self._others.values()]

    def _mathematics(
        self, call: Call, kept: Sequence[Tensor], tensors: Sequence[Tensor], generator: Generator | None
    ) -> Metrics:
        left = iter(kept)
        values = {name: next(left) for name in self._flat.groups}
        moments = {
            name: [next(left) for _ in group.optimizer.moments] for name, group in self._groups.items()
        }
        sizes = dict(zip(self._groups, next(left).unbind(), strict=True))
        state = State(values, moments, sizes, dict(zip(self._others, left, strict=True)))
        inputs = call, tensors, generator
        return descend(
            self._machine, self._flat.groups, list(self._groups), state, self._max_grad_norm, inputs
        )


def write(numbers: Sequence[Sequence[float]], to: Tensor) -> None:
    """Fill a tensor with numbers; on a processor without a call of torch."""
    if to.is_cpu:
        to.numpy()[...] = numbers
    else:
        to.copy_(hand_over(torch.tensor(numbers), to.device))


@dataclass(frozen=True)
class State:
    """What steps read and write, given from outside."""

    values: dict[str, Tensor]  # of every group
    moments: dict[str, list[Tensor]]  # of the groups that are stepped
    sizes: dict[str, Tensor]  # numbers of their optimisers
    others: dict[str, Tensor]  # of the agent's tensors, by name


def descend(
    machine: Machine,
    groups: dict[str, Group],
    stepped: Sequence[str],
    state: State,
    max_grad_norm: float,
    inputs: tuple[Call, Sequence[Tensor], Generator | None],
) -> Metrics:
    """A step of some groups down the gradient of a call with other tensors; what the call reports."""
    values = state.values
    moving = {name: values[name].detach().requires_grad_() for name in stepped}
    own = dict(state.others)
    with torch.enable_grad():
        for name, group in groups.items():
            own |= views(group, moving.get(name, values[name]))
        loss, metrics = machine.call_with(own, *inputs)
        grads = torch.autograd.grad(loss, list(moving.values()), materialize_grads=True)
    with torch.no_grad():
        whole = torch.cat(grads) if len(grads) > 1 else grads[0]
        norm = clip(whole, max_grad_norm)
        parts = torch.split(whole, [len(grad) for grad in grads])
        for name, part in zip(stepped, parts, strict=True):
            sizes = state.sizes[name].unbind()
            groups[name].optimizer.advance(values[name], part, *state.moments[name], *sizes)
    return {**{name: x.detach() for name, x in metrics.items()}, "train/grad_norm": norm}


def untrained(machine: Machine, flat: FlatParameters) -> dict[str, Tensor]:
    """The agent's tensors that are in no group, by name."""
    trained = {PREFIX + name for group in flat.groups.values() for name in group.names}
    return {name: x for name, x in machine.tensors().items() if name not in trained}


def views(group: Group, values: Tensor) -> dict[str, Tensor]:
    """The parameters of a group as views of other values [P]."""
    parts = torch.split(values, [p.numel() for p in group.parameters])
    named = zip(group.names, parts, group.parameters, strict=True)
    return {PREFIX + name: part.view(p.shape) for name, part, p in named}
