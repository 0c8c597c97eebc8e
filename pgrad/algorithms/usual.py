"""Defaults that are one number where steps are taken in a world, and another where tokens are decisions."""

import dataclasses
from typing import Any, NamedTuple, TypeVar

A = TypeVar("A")

CRITIC_TIMES = 10.0
"""On text the critic steps so many times as far as the policy: it has more to learn, and nothing to lose."""


class Rates(NamedTuple):
    """Numbers by how the model is trained: from random weights, whole as it was read, or by adapters."""

    scratch: float
    pretrained: float
    lora: float

    def __str__(self) -> str:
        return f"{self.scratch:g} from scratch, {self.pretrained:g} pretrained, {self.lora:g} LoRA"


class Lengths(NamedTuple):
    """So many times as many decisions as a completion can have."""

    n: int

    def __str__(self) -> str:
        return f"{self.n} completions"


GROUPS = Rates(scratch=32, pretrained=8, lora=8)
"""Prompts of an update: small models that know little are right rarely, and cheap to ask."""
POLICY = Rates(scratch=3e-4, pretrained=1e-6, lora=1e-5)
"""Of learning by reward."""
IMITATION = Rates(scratch=1e-3, pretrained=2e-5, lora=2e-4)
"""Of supervised learning."""


class Usual:
    """A number that nobody gave: it is itself, and knows what stands in its place on text."""

    text: Any = None


class _Float(Usual, float):
    pass


class _Int(Usual, int):
    pass


class _Word(Usual, str):
    pass


def both(number: Any) -> str:
    """A default in words, with the number that stands in its place on text where that is another."""
    if not isinstance(number, _Float | _Int):
        return str(number)
    text = number.text
    return f"{number}, text: {'none' if text is None else text if isinstance(text, tuple) else f'{text:g}'}"


def usual(steps: float | str, *, text: Any) -> Any:
    """The default `steps` of a hyperparameter, which on text is `text`: a value, `Rates` or `Lengths`."""
    kinds: dict[type, Any] = {float: _Float, int: _Int, str: _Word}
    made = kinds[type(steps)](steps)
    made.text = text
    return made


def for_steps(algorithm: A) -> A:
    """The algorithm with plain numbers for what was left open, as worlds of steps have them."""
    plain = {float: float, int: int, str: str}
    return _with(algorithm, {name: plain[type(x).__bases__[1]](x) for name, x in _open(algorithm).items()})


def for_text(algorithm: A, kind: str) -> A:
    """The algorithm with what was left open as text has it, for a model that is trained as `kind`.

    kind: a field of `Rates`. `Lengths` stay open: `for_completions` settles them.
    """
    found = {name: x.text for name, x in _open(algorithm).items() if not isinstance(x.text, Lengths)}
    found = {name: getattr(x, kind) if isinstance(x, Rates) else x for name, x in found.items()}
    algorithm = _with(algorithm, found)
    own: Any = algorithm
    fields = {field.name for field in dataclasses.fields(own)}
    if "critic_learning_rate" in fields and own.critic == "value" and own.critic_learning_rate is None:
        rate = float(f"{CRITIC_TIMES * own.learning_rate:.12g}")  # for 0.0003 it is 0.003 to the last digit
        return _with(algorithm, {"critic_learning_rate": rate})
    return algorithm


def counts_completions(algorithm: Any) -> bool:
    """Whether a default of the algorithm waits for the length that completions can have."""
    return any(isinstance(x.text, Lengths) for x in _open(algorithm).values())


def for_completions(algorithm: A, length: int) -> A:
    """The algorithm with its `Lengths` in decisions, of completions that can have `length`."""
    waiting = {name: x.text for name, x in _open(algorithm).items()}
    return _with(algorithm, {name: x.n * length for name, x in waiting.items() if isinstance(x, Lengths)})


def _open(algorithm: Any) -> dict[str, Usual]:
    values = {field.name: getattr(algorithm, field.name) for field in dataclasses.fields(algorithm)}
    return {name: x for name, x in values.items() if isinstance(x, Usual)}


def _with(algorithm: A, values: dict[str, Any]) -> A:
    return dataclasses.replace(algorithm, **values) if values else algorithm  # type: ignore[type-var]
