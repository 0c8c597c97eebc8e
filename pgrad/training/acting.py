"""How an agent chooses, as functions of tensors alone."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Generator, Tensor

from pgrad.data import Tree

Choice = tuple[Tree, Tensor, dict[str, Tensor]]
"""The actions of every environment, log π(a|s), and the memories after them (none without a memory)."""


class Chooser(Protocol):
    """Chooses as `sampled` or, without a generator, `likeliest` do, while the parameters stay as they are.

    It may answer with what π(·|s) is made of in place of log π(a|s); then `defers`, and `log_prob` finds
    that for many steps together. Answers may be buffers: copy before the next call.
    """

    defers: bool

    def begin(self, steps: int) -> None:
        """Take in the parameters as they are now, for about so many steps."""
        ...

    def __call__(self, seen: Tree, *generator: Generator) -> Choice:
        """Choose for what is seen next."""
        ...

    def log_prob(self, noted: Tensor, action: Tree) -> Tensor:
        """log π(a|s) [...] from what was answered in its place [..., k] and the actions."""
        ...

    def end(self) -> None:
        """Leave the generator where each step alone would have left it."""
        ...


class Written:
    """A function that chooses, as it is."""

    defers = False

    def __init__(self, function: Callable[..., Choice]) -> None:
        self._function = function

    def begin(self, steps: int) -> None:
        """It reads the parameters itself."""

    def __call__(self, seen: Tree, *generator: Generator) -> Choice:
        """The function's answer."""
        return self._function(seen, *generator)

    def log_prob(self, noted: Tensor, action: Tree) -> Tensor:
        """As it was answered."""
        return noted

    def end(self) -> None:
        """It draws for one step at a time."""


def sampled(agent: Any, seen: Tree, generator: Generator) -> Choice:
    """a ~ π(·|s)."""
    policy, state = agent.respond(seen)
    action = policy.sample(generator)
    return action, policy.log_prob(action), state


def likeliest(agent: Any, seen: Tree) -> Choice:
    """The policy's mode."""
    policy, state = agent.respond(seen)
    return policy.mode, policy.log_prob(policy.mode), state
