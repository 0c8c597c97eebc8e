"""What a call is made of, in words that name its machine code."""

import dataclasses
from typing import Any

from torch import Generator, Tensor, nn

from pgrad.data import Tree
from pgrad.training.compiled.call import Call

ELSEWHERE = {"learning_rate", "critic_learning_rate", "learning_rate_schedule", "n_steps", "n_epochs"}
"""Settings of algorithms that no loss and no credit reads: a search over them compiles once."""

PLAIN = (bool, int, float, str, tuple, type(None))


def describe(call: Call, agent: nn.Module) -> Any | None:
    """Everything but the shapes that decides what the call computes, as JSON.

    None where a part is not pgrad's or torch's own: what that does only its trace can tell.
    """
    owner = getattr(call.function, "__self__", None)
    modules = list(agent.named_modules())
    parts: list[Any] = [call.function, *(type(module) for _, module in modules)]
    parts += [] if owner is None else [type(owner)]
    if not all(one.__module__.split(".")[0] in ("pgrad", "torch") for one in parts):
        return None
    return {
        "function": f"{call.function.__module__}.{call.function.__qualname__}",
        "owner": None if owner is None else _fields(owner),
        "agent": [(name, type(module).__qualname__, _settings(module)) for name, module in modules],
        "inputs": [_static(one) for one in call.inputs],
        "keywords": {name: _static(one) for name, one in call.keywords.items()},
    }


def _static(tree: Tree) -> Any:
    """The structure of a tree, and what in it is no tensor."""
    if isinstance(tree, Tensor | Generator):
        return type(tree).__name__
    if isinstance(tree, dict):
        return {str(key): _static(part) for key, part in tree.items()}
    if isinstance(tree, tuple):
        return [_static(part) for part in tree]
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return {type(tree).__qualname__: {name: _static(part) for name, part in _parts(tree)}}
    return repr(tree)


def _parts(record: Any) -> list[tuple[str, Any]]:
    return [(field.name, getattr(record, field.name)) for field in dataclasses.fields(record)]


def _fields(owner: Any) -> Any:
    """The settings of an algorithm that may be part of its mathematics."""
    return {name: repr(x) for name, x in _parts(owner) if name not in ELSEWHERE}


def _settings(module: nn.Module) -> dict[str, str]:
    """The numbers and words that a module keeps, and the spaces it was made for."""
    kept = {name: x for name, x in vars(module).items() if not name.startswith("_")}
    plain = {name: repr(x) for name, x in kept.items() if isinstance(x, PLAIN) or name.endswith("space")}
    return plain | {"extra": module.extra_repr()}
