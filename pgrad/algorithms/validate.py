"""One name per concept, so one rule per name: the ranges of all hyperparameters."""

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pgrad.errors import UsageError

Rule = tuple[Callable[[Any], bool], str]

UNIT: Rule = (lambda x: 0.0 <= x <= 1.0, "in [0, 1]")
POSITIVE: Rule = (lambda x: x > 0.0, "positive")
RATE: Rule = (lambda x: 0.0 <= x < math.inf, "finite and not negative")
COUNT: Rule = (lambda x: isinstance(x, int) and x >= 1, "a whole number ≥ 1")
AMOUNT: Rule = (lambda x: isinstance(x, int) and x >= 0, "a whole number ≥ 0")

RULES: dict[str, Rule] = {
    "gamma": UNIT,
    "gae_lambda": UNIT,
    "learning_rate": RATE,
    "critic_learning_rate": RATE,
    "n_steps": COUNT,
    "n_episodes": COUNT,
    "n_prompts": COUNT,
    "num_generations": (lambda x: isinstance(x, int) and x >= 2, "a whole number ≥ 2, to compare them"),
    "max_length": COUNT,
    "clip_range_high": POSITIVE,
    "bootstrap_steps": COUNT,
    "batch_size": COUNT,
    "n_epochs": COUNT,
    "n_critic_updates": COUNT,
    "clip_range": POSITIVE,
    "clip_range_vf": POSITIVE,
    "target_kl": POSITIVE,
    "beta": RATE,
    "ent_coef": RATE,
    "vf_coef": RATE,
    "max_grad_norm": POSITIVE,
    "optimizer_eps": POSITIVE,
    "buffer_size": COUNT,
    "learning_starts": AMOUNT,
    "replay_ratio": AMOUNT,
    "reuse": AMOUNT,
    "rho_max": POSITIVE,
    "c_max": POSITIVE,
    "gradient_steps": (lambda x: isinstance(x, int) and (x == -1 or x >= 1), "a whole number ≥ 1, or -1"),
    "tau": (lambda x: 0.0 < x <= 1.0, "in (0, 1]"),
    "held_out": (lambda x: 0.0 <= x < 1.0, "in [0, 1)"),
    "target_entropy": (math.isfinite, "finite"),
    "cg_max_steps": COUNT,
    "cg_damping": RATE,
    "line_search_max_iter": AMOUNT,
    "line_search_shrinking_factor": (lambda x: 0.0 < x < 1.0, "in (0, 1)"),
    "sub_sampling_factor": COUNT,
}


def as_whole(value: Any) -> Any:
    """The int that a float such as 1e6 is; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def require_instance(algorithm: Any) -> None:
    """Raise UsageError for a class, a name, and whatever else is no algorithm with its numbers."""
    if isinstance(algorithm, type) or not dataclasses.is_dataclass(algorithm):
        raise UsageError(f"algorithm must be an instance such as PPO(), got {algorithm!r}")


def validate(algorithm: Any) -> None:
    """Check every hyperparameter that has a rule, a fixed choice or a yes or no; all errors at once.

    Raises UsageError. Fields that are None are switched off, and pass, where their type says so.
    """
    wrong = []
    hints = _hints(type(algorithm))  # type: ignore[arg-type]
    for field in dataclasses.fields(algorithm):
        value, hint = getattr(algorithm, field.name), hints[field.name]
        if get_origin(hint) is Literal and value not in get_args(hint):
            wrong.append(f"{field.name} must be {' or '.join(map(repr, get_args(hint)))}, got {value!r}")
        if hint is bool and not isinstance(value, bool):
            wrong.append(f"{field.name} must be True or False, got {value!r}")
        if field.name not in RULES or _is_off(value, hint):
            continue
        accepts, allowed = RULES[field.name]
        if isinstance(value, numbers.Real) and not isinstance(value, bool | int | float):  # of NumPy
            value = int(value) if isinstance(value, numbers.Integral) else float(value)
            object.__setattr__(algorithm, field.name, value)
        if int in (hint, *get_args(hint)) and isinstance(value, float):
            value = as_whole(value)
            object.__setattr__(algorithm, field.name, value)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or math.isnan(value) or not accepts(value):
            wrong.append(f"{field.name} must be {allowed}, got {value!r}")
    if wrong:
        raise UsageError(f"{type(algorithm).__name__}: " + "; ".join(wrong))


def _is_off(value: Any, hint: Any) -> bool:
    """Whether a value is None or a word, such as "auto", that its type allows in place of a number."""
    words = [word for part in get_args(hint) if get_origin(part) is Literal for word in get_args(part)]
    return (value is None and type(None) in get_args(hint)) or (isinstance(value, str) and value in words)


@functools.cache
def _hints(algorithm: type) -> dict[str, Any]:
    return get_type_hints(algorithm)


def check_batch_size(n_steps: int, n_envs: int, batch_size: int) -> None:
    """Raise UsageError unless minibatches of `batch_size` divide a rollout of n_steps · n_envs decisions."""
    rollout = n_steps * n_envs
    if rollout % batch_size:
        legal = [size for size in range(1, rollout + 1) if rollout % size == 0]
        below = max(size for size in legal if size < batch_size)
        above = min((size for size in legal if size > batch_size), default=below)
        nearest = f"the nearest that do are {below} and {above}" if above > below else f"{below} does"
        raise UsageError(
            f"batch_size {batch_size} does not divide n_steps · n_envs = {n_steps} · {n_envs} = {rollout}; "
            f"{nearest}"
        )
