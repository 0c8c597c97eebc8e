"""Steps of several groups that belong together, as one program."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from pgrad.algorithms.protocol import Loss, Metrics
from pgrad.data import Batch
from pgrad.training.compiled.call import Call
from pgrad.training.compiled.machine import Machine
from pgrad.training.compiled.step import State, descend, untrained, views, write
from pgrad.training.optimizers import FlatParameters
from pgrad.training.records import of_group


class CompiledTogether:
    """What a function asks of its learner, as one program on the tensors that the learner steps on.

    Every group is stepped at most once. Kept are the values and moments of all groups, the step sizes, the
    target networks as one tensor and the agent's other tensors.
    """

    def __init__(self, machine: Machine, flat: FlatParameters, max_grad_norm: float) -> None:
        self._machine, self._flat, self._max_grad_norm = machine, flat, max_grad_norm
        optimizers = [group.optimizer for group in flat.groups.values()]
        self._sizes = torch.tensor([x.numbers(0.0) for x in optimizers], device=flat.values.device)
        rest = untrained(machine, flat)
        memory = flat.targets.untyped_storage().data_ptr()
        self._targets = {name: x for name, x in rest.items() if x.untyped_storage().data_ptr() == memory}
        self._others = {name: x for name, x in rest.items() if name not in self._targets}
        self._around = ("together", type(optimizers[0]).__name__, max_grad_norm)

    def __call__(self, call: Call, share: float) -> list[Metrics] | None:
        """What each step reports, with `share` of the first step sizes; None where there is no code."""
        program = self._machine.program(call, "gradient steps", self._mathematics, self._kept, self._around)
        if program is None:
            return None
        sizes = []
        for name, group in self._flat.groups.items():
            if name in program.answer:
                group.optimizer.count()
            sizes.append(group.optimizer.numbers(group.learning_rate * share))
        write(sizes, self._sizes)
        return list(program(call).values())

    def _kept(self) -> list[Tensor]:
        groups = self._flat.groups.values()
        moments = [x for group in groups for x in group.optimizer.moments]
        values = [group.values for group in groups]
        return [*values, *moments, self._sizes, self._flat.targets, *self._others.values()]

    def _mathematics(
        self, call: Call, kept: Sequence[Tensor], tensors: Sequence[Tensor], generator: Generator | None
    ) -> dict[str, Metrics]:
        left, groups = iter(kept), self._flat.groups
        values = {name: next(left) for name in groups}
        moments = {name: [next(left) for _ in group.optimizer.moments] for name, group in groups.items()}
        sizes = dict(zip(groups, next(left).unbind(), strict=True))
        targets = next(left)
        parts = torch.split(targets, [x.numel() for x in self._targets.values()])
        named = zip(self._targets.items(), parts, strict=True)
        others = dict(zip(self._others, left, strict=True)) | {
            n: part.view(x.shape) for (n, x), part in named
        }
        inside = Inside(
            self._machine, self._flat, State(values, moments, sizes, others), targets, self._max_grad_norm
        )
        call(inside, tensors, generator)
        return inside.reports


class Inside:
    """A learner on tensors that are given from outside."""

    def __init__(
        self, machine: Machine, flat: FlatParameters, state: State, targets: Tensor, max_grad_norm: float
    ) -> None:
        self._machine, self._flat, self._state = machine, flat, state
        self._targets, self._max_grad_norm = targets, max_grad_norm
        self.reports: dict[str, Metrics] = {}  # of the groups that were stepped

    def descend(self, loss: Loss, batch: Batch, group: str | None = None) -> Metrics:
        """A step of one group."""
        if group is None or group in self.reports:
            raise NotImplementedError("steps together are of one group each, and of none twice")
        call = Call(loss, batch)
        inputs = call, call.tensors, call.generator
        found = descend(self._machine, self._flat.groups, [group], self._state, self._max_grad_norm, inputs)
        self.reports[group] = of_group(found, group)
        return self.reports[group]

    @torch.no_grad()
    def compute(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """function(agent, *inputs)."""
        own = dict(self._state.others)
        for name, group in self._flat.groups.items():
            own |= views(group, self._state.values[name])
        call = Call(function, *inputs)
        return self._machine.call_with(own, call, call.tensors, call.generator)

    @torch.no_grad()
    def follow(self, tau: float) -> None:
        """The slow copies after the critic."""
        self._targets.lerp_(self._state.values["critic"], tau)
