"""How large models from scratch are."""

from typing import NamedTuple

SCRATCH = "scratch:"


class Size(NamedTuple):
    """The shape of a small Llama."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int


SIZES = {
    "tiny": Size(64, 2, 4, 4, 176),
    "small": Size(128, 4, 4, 2, 352),
    "medium": Size(256, 6, 8, 4, 704),
}
"""0.1, 0.7 and 4.5 million parameters, and 2·hidden for every token of the vocabulary."""

CONTEXT = 2048
"""The longest text that a model from scratch reads."""
