"""What a reward function answered, read strictly."""

import math
from collections.abc import Sequence
from typing import Any

from pgrad.errors import TrainingError


def read_answer(name: str, value: Any, completions: Sequence[Any]) -> list[float]:
    """One number for each completion, NaN for None.

    Raises TrainingError, naming the function, for whatever is no list, tensor or array of as many finite
    numbers or None.
    """
    if hasattr(value, "tolist"):  # tensors and arrays
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise TrainingError(
            f"reward {name} must return a list of numbers, one for each completion, "
            f"got a {type(value).__name__}"
        )
    if len(value) != len(completions):
        raise TrainingError(f"reward {name} returned {len(value)} rewards for {len(completions)} completions")
    numbers = []
    for one, completion in zip(value, completions, strict=True):
        try:
            number = math.nan if one is None else math.nan if isinstance(one, str) else float(one)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            number = math.nan
        if one is not None and not math.isfinite(number):
            raise TrainingError(
                f"reward {name} returned {one!r} for {short(completion)}: a reward is a finite number, "
                f"or None where there is none to give"
            )
        numbers.append(number)
    return numbers


def short(completion: Any) -> str:
    """A completion on one line, cut."""
    text = repr(completion)
    return text if len(text) <= 200 else text[:197] + "..."
