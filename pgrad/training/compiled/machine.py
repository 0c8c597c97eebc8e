"""What runs the agent's functions: as they are written, or as machine code made of them."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from pgrad.data import Tree, leaves, map_tree
from pgrad.training.compiled import package
from pgrad.training.compiled.call import Call
from pgrad.training.compiled.describe import describe
from pgrad.training.compiled.graph import Draw, Draws, text, trace

Mathematics = Callable[[Call, Sequence[Tensor], Sequence[Tensor], Generator | None], Tree]
"""From what is kept between calls and the tensors of a call to an answer."""


@dataclass(frozen=True)
class Program:
    """Machine code for one function at one set of shapes."""

    code: package.Code
    kept: list[Tensor]  # what goes in at every call: parameters, statistics, moments
    draws: tuple[Draw, ...]  # what it asks its generator for
    answer: Tree  # an answer, whose tensors are replaced by the new ones
    example: Call  # whose function's owner must not be forgotten while it is known by its address

    def __call__(self, call: Call) -> Tree:
        """The answer to a call; what is kept may have been written to."""
        inputs = [*self.kept, *[x if x.is_contiguous() else x.contiguous() for x in call.tensors]]
        if self.draws:
            assert call.generator is not None
            inputs += [draw(call.generator) for draw in self.draws]
        found = iter(self.code(inputs))
        return map_tree(lambda _: next(found), self.answer)


class Called(nn.Module):
    """An agent as something to call, so that its parameters can be given from outside."""

    def __init__(self, agent: nn.Module) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, call: Call, tensors: Sequence[Tensor], generator: Generator | None) -> Tree:
        """The call's function of this agent."""
        return call(self.agent, tensors, generator)


class Machine:
    """Runs functions of an agent, as machine code where `compiles` is true and the compiler can.

    The first call of a function with new shapes compiles it, or loads what an earlier run compiled. Results
    are those of the function up to rounding, random numbers the very same. What cannot be compiled runs as it
    is written, which is told once. A function may depend on its inputs, the agent's parameters and buffers,
    and on what else of agent and algorithm never changes: numbers are those of its first call.
    """

    def __init__(self, agent: nn.Module, compiles: bool = False) -> None:
        self.agent = agent
        self.compiles = compiles
        self.tell: Callable[[str], None] = lambda _: None  # one line for the person who waits
        self.warn: Callable[[str], None] = warnings.warn  # one line on what did not go as asked
        self._called = Called(agent)
        self._programs: dict[Any, Program | None] = {}
        self._can_compile = True  # as far as is known
        self._names = list(self.tensors())

    def run(self, function: Callable[..., Tree], *inputs: Any) -> Tree:
        """function(agent, *inputs), without a gradient: inputs are trees, the last may be a generator."""
        if self.compiles:
            call = Call(function, *inputs)
            program = self.program(call, self._plainly, self._state)
            if program is not None:
                return program(call)
        return function(self.agent, *inputs)

    def program(
        self,
        call: Call,
        mathematics: Mathematics,
        kept: Callable[[], list[Tensor]],
        around: tuple[Any, ...] = (),
    ) -> Program | None:
        """Machine code for calls like this one; None where there is none, for a reason that was told.

        `around` (plain values) says what `mathematics` does beside the call.
        """
        key = (around, call.key)
        if key not in self._programs:
            self._programs[key] = self._make(call, mathematics, kept(), around)
        return self._programs[key]

    def tensors(self) -> dict[str, Tensor]:
        """The agent's tensors by name, but the statistics of rewards, which no function of it reads."""
        named = [*self._called.named_parameters(), *self._called.named_buffers()]
        kept = [(name, x) for name, x in named if not name.startswith("agent.reward_scaler.")]
        return {name: x.detach() for name, x in kept}

    def call_with(self, tensors: dict[str, Tensor], *inputs: Any) -> Tree:
        """A call of the agent with other tensors than its own."""
        return functional_call(self._called, tensors, inputs)

    def _state(self) -> list[Tensor]:
        return list(self.tensors().values())

    def _plainly(
        self, call: Call, kept: Sequence[Tensor], tensors: Sequence[Tensor], generator: Generator | None
    ) -> Tree:
        with torch.no_grad():
            own = dict(zip(self._names, kept, strict=True))
            return self.call_with(own, call, tensors, generator)

    def _make(self, call: Call, mathematics: Mathematics, kept: list[Tensor], around: Any) -> Program | None:
        try:
            with warnings.catch_warnings(action="ignore"):  # the compiler's own
                return self._compiled(call, mathematics, kept, around)
        except package.NoCompilerError as error:
            if self._can_compile:
                self.warn(f"nothing can be compiled here: the run goes on as it is written ({error})")
            self._can_compile = False
        except Exception as error:
            self.warn(f"{call.name} cannot be compiled and runs as it is written ({package.reason(error)})")
        return None

    def _compiled(self, call: Call, mathematics: Mathematics, kept: list[Tensor], around: Any) -> Program:
        given = [x.contiguous() for x in call.tensors]
        device = kept[0].device
        scratch = None if call.generator is None else Generator(call.generator.device)

        def function(*tensors: Tensor) -> Sequence[Tensor]:
            own, rest = tensors[: len(kept)], tensors[len(kept) :]
            return list(leaves(mathematics(call, own, rest, scratch)))

        with Draws() as inside:  # on copies: a step moves its parameters
            answer = mathematics(call, [x.clone() for x in kept], [x.clone() for x in given], scratch)
        draws = tuple(inside.noted)
        inputs = [*kept, *given, *(draw(Generator(device)) for draw in draws)]
        forms = [(x.shape, x.stride(), str(x.dtype), str(x.device)) for x in inputs]
        described, module = describe(call, self.agent), None
        if described is None:
            module = trace(function, inputs, len(draws))
            described = text(module)
        key = package.key_of([described, around, forms])
        code = package.load(key, device)
        if code is None:
            package.prepare()
            self.tell(f"compiling {call.name}, once for these shapes: it is kept in {package.folder()}")
            code = package.build(module or trace(function, inputs, len(draws)), inputs, key, device)
        return Program(code, kept, draws, map_tree(torch.detach, answer), call)
