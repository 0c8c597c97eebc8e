"""Text as a language model reads it: an observation like any other."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """The last token of each state, [T, B]: a column is a text, its prompt first, padded at the end.

    The state before decision t is the column up to row t, and its action is the token of row t+1. Several
    texts in one column do not see one another: `position` begins anew.
    """

    id: Tensor  # [T, B] int64  the token that is read at this row
    position: Tensor  # [T, B] int64  its place in its text, 0 where a text begins
    decides: Tensor  # [T, B] bool   the agent chooses the next token here
