"""Derivatives in one group of parameters: a gradient, and products with a curvature."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from pgrad.algorithms.protocol import Bend, Loss, Metrics, Outputs
from pgrad.data import Batch
from pgrad.math.natural import fisher_vector_product, flat_gradient, pulled_back
from pgrad.training.compiled.call import Call
from pgrad.training.compiled.machine import Machine, Mathematics, Program
from pgrad.training.compiled.step import untrained, views
from pgrad.training.optimizers import FlatParameters


class Derivatives:
    """Derivatives in the parameters of a group, as written or by machine code; nothing moves."""

    def __init__(self, machine: Machine, flat: FlatParameters, group: str, by_machine: bool) -> None:
        self._machine, self._flat, self._group, self._by_machine = machine, flat, group, by_machine
        self._others = untrained(machine, flat)
        self._vector = torch.zeros_like(flat.groups[group].values)  # what a curvature is multiplied with

    def gradient(self, loss: Loss, batch: Batch) -> tuple[Tensor, Metrics]:
        """∇ of a loss [P], and what the loss reports."""
        call = Call(loss, batch)
        program = self._program("a gradient", call, self._slope)
        if program is None:
            return slope(loss(self._machine.agent, batch), self._parameters)
        found: tuple[Tensor, Metrics] = program(call)
        return found

    def curvature(self, outputs: Outputs, batch: Batch) -> Callable[[Tensor], Tensor]:
        """v ↦ F·v [P], F the Hessian of a divergence at its minimum, where the outputs are."""
        call = Call(outputs, batch)
        program = self._program("a curvature", call, self._curved, apart=True)
        if program is None:
            return curvature(outputs(self._machine.agent, batch), self._parameters)
        answer = program.again(call)

        def product(v: Tensor) -> Tensor:
            self._vector.copy_(v)
            found: Tensor = answer()
            return found

        return product

    @property
    def _parameters(self) -> list[Tensor]:
        return self._flat.groups[self._group].parameters

    def _program(
        self, what: str, call: Call, mathematics: Mathematics, apart: bool = False
    ) -> Program | None:
        """Machine code for a call, if there is and shall be some."""
        if not (self._by_machine and self._machine.compiles):
            return None
        return self._machine.program(call, what, mathematics, self._kept, (what, self._group), apart)

    def _kept(self) -> list[Tensor]:
        values = [group.values for group in self._flat.groups.values()]
        return [self._vector, *values, *self._others.values()]

    def _slope(
        self, call: Call, kept: Sequence[Tensor], tensors: Sequence[Tensor], generator: Generator | None
    ) -> tuple[Tensor, Metrics]:
        with torch.enable_grad():
            return slope(*self._answer(call, kept, tensors, generator))

    def _curved(
        self, call: Call, kept: Sequence[Tensor], tensors: Sequence[Tensor], generator: Generator | None
    ) -> Tensor:
        with torch.enable_grad():
            return curvature(*self._answer(call, kept, tensors, generator))(kept[0])

    def _answer(
        self, call: Call, kept: Sequence[Tensor], tensors: Sequence[Tensor], generator: Generator | None
    ) -> tuple[Any, list[Tensor]]:
        """The call's answer in the graph of the group's parameters, and these as one tensor."""
        left = iter(kept[1:])
        values = {name: next(left) for name in self._flat.groups}
        own = dict(zip(self._others, left, strict=True))
        leaf = values[self._group].detach().requires_grad_()
        for name, group in self._flat.groups.items():
            own |= views(group, leaf if name == self._group else values[name])
        return self._machine.call_with(own, call, tensors, generator), [leaf]


def slope(found: tuple[Tensor, Metrics], parameters: Sequence[Tensor]) -> tuple[Tensor, Metrics]:
    """∇ of a loss [P], and what it reports."""
    loss, metrics = found
    return flat_gradient(loss, parameters), {name: x.detach() for name, x in metrics.items()}


def curvature(found: Bend, parameters: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """v ↦ Jᵀ·M·J·v [P] with J the derivative of the outputs, M the Hessian of the divergence in them."""
    outputs, cut, divergence = found
    return pulled_back(fisher_vector_product(divergence, cut), outputs, parameters)
