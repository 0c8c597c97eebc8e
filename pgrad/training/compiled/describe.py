"""What a call is made of, in words that name its machine code."""

import dataclasses
from typing import Any

from torch import nn

from pgrad.training.compiled.call import Call

ELSEWHERE = {"learning_rate", "critic_learning_rate", "learning_rate_schedule", "n_steps", "n_epochs"}
"""Settings of algorithms that no loss and no credit reads, but as the length of the window that it is given:
a search over them compiles once."""

PLAIN = (bool, int, float, str, tuple, type(None))


def describe(call: Call, agent: nn.Module) -> Any | None:
    """Everything but the strides that decides what the call computes, as JSON.

    None where a part is not pgrad's or torch's own, or was changed: what that does only its trace can tell.
    """
    owner = getattr(call.function, "__self__", None)
    modules = list(agent.named_modules())
    parts: list[Any] = [call.function, *(type(module) for _, module in modules)]
    parts += [] if owner is None else [type(owner)]
    if not all(map(_is_ours, parts)) or any(_is_changed(module) for _, module in modules):
        return None
    return {
        "function": _name(call.function),
        "owner": None if owner is None else [_name(type(owner)), _fields(owner)],
        "agent": [(name, _name(type(module)), _settings(module)) for name, module in modules],
        "trained": [name for name, p in agent.named_parameters() if p.requires_grad],
        "call": call.form,
    }


def _is_ours(part: Any) -> bool:
    return part.__module__.split(".")[0] in ("pgrad", "torch") and "<locals>" not in part.__qualname__


def _is_changed(module: nn.Module) -> bool:
    """Whether a module does something else than its class says: by a hook, or a method of its own."""
    kept = vars(module)
    hooks = kept["_forward_hooks"] or kept["_forward_pre_hooks"]
    return bool(hooks) or any(map(callable, kept.values()))


def _name(part: Any) -> str:
    return f"{part.__module__}.{part.__qualname__}"


def _fields(owner: Any) -> Any:
    """The settings of an algorithm that may be part of its mathematics."""
    names = [field.name for field in dataclasses.fields(owner)]
    return {name: repr(getattr(owner, name)) for name in names if name not in ELSEWHERE}


def _settings(module: nn.Module) -> dict[str, str]:
    """The numbers and words that a module keeps, and the spaces it was made for."""
    kept = {name: x for name, x in vars(module).items() if not name.startswith("_")}
    plain = {name: repr(x) for name, x in kept.items() if isinstance(x, PLAIN) or name.endswith("space")}
    return plain | {"extra": module.extra_repr()}
