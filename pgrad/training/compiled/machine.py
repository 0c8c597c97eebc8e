"""What runs the agent's functions: as they are written, or as machine code made of them."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule

from pgrad import cache
from pgrad.data import Tree, leaves, map_tree
from pgrad.training.compiled import launch, package
from pgrad.training.compiled.call import Call
from pgrad.training.compiled.describe import describe
from pgrad.training.compiled.divided import divided, unshared
from pgrad.training.compiled.graph import Draw, Draws, text, trace

Mathematics = Callable[[Call, Sequence[Tensor], Sequence[Tensor], Generator | None], Tree]
"""From what is kept between calls and the tensors of a call to an answer."""


Builder = Callable[[Iterator[Tensor]], Tree]
"""From the tensors of a tree, in its order, to the tree."""

ACTING, BETWEEN = "acting", "numbers between gradient steps"
"""What machine code is for, in words."""


@dataclass(frozen=True)
class Program:
    """Machine code for one function at one set of shapes."""

    code: package.Code
    kept: list[Tensor]  # what goes in at every call: parameters, statistics, moments
    draws: tuple[Draw, ...]  # what it asks its generator for
    answer: Tree  # an answer, whose tensors are replaced by the new ones
    example: Call  # whose function's owner must not be forgotten while it is known by its address
    first: package.Code | None = None  # what the first tensor that is kept cannot change, taken by `code` too

    def __call__(self, call: Call) -> Tree:
        """The answer to a call; what is kept may have been written to."""
        return self.respond(call.tensors, call.generator)

    def again(self, call: Call) -> Callable[[], Tree]:
        """The answer to a call, as often as is asked: meanwhile only the first tensor that is kept may be
        written to.
        """
        if self.first is None:
            return partial(self, call)
        inputs = self._inputs(call.tensors)
        inputs += unshared(self.first(list(inputs)))
        return lambda: self._build(iter(self.code(list(inputs))))

    def respond(self, tensors: Iterable[Tensor], generator: Generator | None = None) -> Tree:
        """The answer to a call with these tensors."""
        inputs = self._inputs(tensors)
        for draw in self.draws:
            assert generator is not None
            inputs.append(draw(generator))
        return self._build(iter(self.code(inputs)))

    def _inputs(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        return [*self.kept, *[x if x.is_contiguous() else x.contiguous() for x in tensors]]

    @cached_property
    def _build(self) -> Builder:
        return builder(self.answer)


def builder(like: Tree) -> Builder:
    """What builds trees like this one, faster than looking at it each time."""
    if isinstance(like, Tensor):
        return next
    if isinstance(like, dict):
        named = {key: builder(part) for key, part in like.items()}
        return lambda found: {key: part(found) for key, part in named.items()}
    if isinstance(like, tuple):
        parts = [builder(part) for part in like]
        return lambda found: tuple([part(found) for part in parts])
    return lambda found: map_tree(lambda _: next(found), like)


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
            program = self.program(call, BETWEEN, self._plainly, self._state)
            if program is not None:
                return program(call)
        return function(self.agent, *inputs)

    def ready(self, function: Callable[..., Tree], *inputs: Any) -> Callable[..., Tree] | None:
        """Machine code for a function of a tree and perhaps a generator, looked up once for all like it;
        None where there is none.
        """
        if not self.compiles:
            return None
        program = self.program(Call(function, *inputs), ACTING, self._plainly, self._state)
        if program is None:
            return None
        return lambda tree, *generator: program.respond(leaves(tree), *generator)

    def program(
        self,
        call: Call,
        what: str,
        mathematics: Mathematics,
        kept: Callable[[], list[Tensor]],
        around: tuple[Any, ...] = (),
        apart: bool = False,
    ) -> Program | None:
        """Machine code for calls like this one; None where there is none, for a reason that was told.

        what: what it is to the person who waits. `around` (plain values) says what `mathematics` does beside
        the call. apart: what the first tensor that is kept cannot change shall be computed once for many
        answers (`Program.again`, and nothing else).
        """
        key = (around, call.key)
        if key not in self._programs:
            self._programs[key] = self._make(call, what, mathematics, kept(), around, apart)
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

    def _make(
        self, call: Call, what: str, mathematics: Mathematics, kept: list[Tensor], around: Any, apart: bool
    ) -> Program | None:
        try:
            with warnings.catch_warnings(action="ignore"):  # the compiler's own
                return self._compiled(call, what, mathematics, kept, around, apart)
        except package.NoCompilerError as error:
            if self._can_compile:
                self.warn(f"nothing can be compiled here: the run goes on as it is written ({error})")
            self._can_compile = False
        except Exception as error:
            self.warn(f"{call.name} cannot be compiled and runs as it is written ({package.reason(error)})")
        return None

    def _compiled(
        self, call: Call, what: str, mathematics: Mathematics, kept: list[Tensor], around: Any, apart: bool
    ) -> Program:
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
        forms = [(x.shape, strides(x), str(x.dtype), str(x.device)) for x in inputs]
        described, module = describe(call, self.agent), None
        if described is None or launch.on_gpu(device):
            module = trace(function, inputs, len(draws))
            described = described or text(module)
        parts = ("first", "rest") if apart and not draws and not launch.on_gpu(device) else ("",)
        identity = [described, around, forms, launch.described(device)]
        keys = [package.key_of([*identity, part] if part else identity) for part in parts]
        codes = [package.load(key, device) for key in keys]
        if None in codes:
            module = module or trace(function, inputs, len(draws))
            codes = self._built(f"{what} ({call.name})", module, inputs, keys, device)
        first, code = codes if len(codes) == 2 else (None, codes[0])
        if launch.on_gpu(device):
            plainly = partial(run_plainly, module)
            code = launch.launched(code, plainly, kept, call.name, self.warn)
        assert code is not None
        return Program(code, kept, draws, map_tree(torch.detach, answer), call, first)

    def _built(
        self, what: str, module: GraphModule, inputs: list[Tensor], keys: list[str], device: torch.device
    ) -> list[package.Code | None]:
        """Machine code of a graph, or of its two parts; on a GPU None without a compiler, where the graph
        itself is recorded.
        """
        try:
            package.prepare()
            kept = f"it is kept in {cache.folder()}"
            self.tell(f"compiling {what}, half a minute or so, once for these shapes: {kept}")
            if len(keys) == 1:
                return [package.build(module, inputs, keys[0], device)]
            fixed, rest = divided(module, 0)
            first = package.build(fixed, inputs, keys[0], device)
            return [first, package.build(rest, [*inputs, *unshared(first(list(inputs)))], keys[1], device)]
        except Exception:
            if not launch.on_gpu(device):
                raise
            return [None]


def strides(x: Tensor) -> list[int]:
    """How far apart the numbers of a tensor lie: along a dimension of one there are no two."""
    return [stride for n, stride in zip(x.shape, x.stride(), strict=True) if n > 1]


def run_plainly(module: Any, tensors: list[Tensor]) -> list[Tensor]:
    """A traced graph, operation by operation."""
    return module(*tensors)
