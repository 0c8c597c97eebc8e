"""Mathematical answers compared by math-verify; runs in a process of its own, as it can take for ever."""

import logging
from importlib import import_module
from typing import Any

_SECONDS = 5  # for one completion, in each of its two parts


def math(completions: list[Any], gold: list[str | None], **_: Any) -> list[float | None]:
    """1 where the completion ends in an answer that is mathematically the same as `gold`, else 0; None where
    `gold` cannot be read."""
    math_verify: Any = import_module("math_verify")

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    texts = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
    rewards: list[float | None] = []
    for text, answer in zip(texts, gold, strict=True):
        # Without dollars or a box math-verify reads no LaTeX in a bare "\frac12".
        right = answer and (
            math_verify.parse(f"${answer}$", parsing_timeout=_SECONDS) or math_verify.parse(answer)
        )
        if not right:
            rewards.append(None)
            continue
        given = math_verify.parse(text, parsing_timeout=_SECONDS)
        rewards.append(float(bool(math_verify.verify(right, given, timeout_seconds=_SECONDS))))
    return rewards
