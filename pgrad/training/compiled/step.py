"""The gradient step as one function of tensors: loss, backward, clipping and the optimiser."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from pgrad.algorithms.protocol import Metrics
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
        trained = {PREFIX + name for group in flat.groups.values() for name in group.names}
        self._others = {name: x for name, x in machine.tensors().items() if name not in trained}
        optimizer = type(flat.groups[stepped[0]].optimizer).__name__
        self._around = ("step", *stepped, optimizer, max_grad_norm)

    def __call__(self, call: Call, share: float) -> Metrics | None:
        """A step with `share` of the first step sizes, and what it reports; None where there is no code."""
        program = self._machine.program(call, self._mathematics, self._kept, self._around)
        if program is None:
            return None
        sizes = []
        for group in self._groups.values():
            group.optimizer.count()
            sizes.append(group.optimizer.numbers(group.learning_rate * share))
        self._sizes.copy_(torch.tensor(sizes))
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
        sizes = next(left)
        own = dict(zip(self._others, left, strict=True))
        moving = {name: values[name].detach().requires_grad_() for name in self._groups}
        with torch.enable_grad():
            for name, group in self._flat.groups.items():
                own |= views(group, moving.get(name, values[name]))
            loss, metrics = self._machine.call_with(own, call, tensors, generator)
            grads = torch.autograd.grad(loss, list(moving.values()), materialize_grads=True)
        with torch.no_grad():
            whole = torch.cat(grads) if len(grads) > 1 else grads[0]
            norm = clip(whole, self._max_grad_norm)
            parts = torch.split(whole, [len(grad) for grad in grads])
            for k, (name, group) in enumerate(self._groups.items()):
                group.optimizer.advance(values[name], parts[k], *moments[name], *sizes[k].unbind())
        return {**{name: x.detach() for name, x in metrics.items()}, "train/grad_norm": norm}


def views(group: Group, values: Tensor) -> dict[str, Tensor]:
    """The parameters of a group as views of other values [P]."""
    parts = torch.split(values, [p.numel() for p in group.parameters])
    named = zip(group.names, parts, group.parameters, strict=True)
    return {PREFIX + name: part.view(p.shape) for name, part, p in named}
