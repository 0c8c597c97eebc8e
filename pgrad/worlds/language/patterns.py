"""Whether completions match a pattern; runs in a process of its own, as a pattern can take for ever."""

import re
from typing import Any


def regex(completions: list[Any], pattern: str, **_: Any) -> list[float]:
    """1 where the whole completion matches, white space around it aside, else 0; "." is any character."""
    texts = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
    return [float(re.fullmatch(pattern, text.strip(), re.DOTALL) is not None) for text in texts]
