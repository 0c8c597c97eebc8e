"""Which neighbouring texts begin alike, and whether their beginning is better read once."""

from itertools import pairwise
from typing import NamedTuple

import torch

from pgrad.data.tokens import Tokens

PAIRS = 4.0
"""A token that attends to another costs 1 / (PAIRS · width) of a token that is read.

A layer multiplies about 12·width² numbers for each token and 2·width for each pair, which is 1 / (6·width);
attention runs at about two thirds of the speed.
"""


TOKENS_AT_ONCE = {"cpu": 1024, "cuda": 16384}
"""Tokens of a backward pass or of a scoring, padding included, where nobody says: few, to sort texts by their
length."""


def at_once(device: torch.device) -> int:
    """`TOKENS_AT_ONCE` on a device."""
    return TOKENS_AT_ONCE.get(device.type, TOKENS_AT_ONCE["cuda"])


class Texts(NamedTuple):
    """Columns of tokens as numbers: columns start..stop-1 of a group have the same prompt."""

    prompt: list[int]  # [B] rows of the prompt: those up to and with the first that decides
    length: list[int]  # [B] rows that are read
    groups: list[range]

    def take(self, columns: list[int]) -> "Texts":
        """Some of the columns, in this order."""
        of = {column: i for i, group in enumerate(self.groups) for column in group}
        groups: list[range] = []
        for place, column in enumerate(columns):
            if place and of[column] == of[columns[place - 1]]:
                groups[-1] = range(groups[-1].start, place + 1)
            else:
                groups.append(range(place, place + 1))
        return Texts([self.prompt[i] for i in columns], [self.length[i] for i in columns], groups)

    def laid_out(self, group: range) -> int:
        """Tokens of a group as one row: the prompt once, then every completion."""
        prompt = self.prompt[group.start]
        return prompt + sum(self.length[i] - prompt for i in group)


def texts_of(tokens: Tokens, after: int = 0) -> Texts | None:
    """What is in the columns; None where one has several texts or none.

    A text is read up to its last decision and `after` rows more. Two neighbours are of one group where they
    decide first in the same row and have read the same up to there.
    """
    n, device = len(tokens.id), tokens.id.device
    if tokens.id.numel() == 0:
        return None
    row = torch.arange(n, device=device).unsqueeze(1)
    first = torch.where(tokens.decides, row, n).amin(0)
    last = torch.where(tokens.decides, row, -1).amax(0)
    plain = ((tokens.position == row) | (row > last)).all(0) & (last >= 0)
    same = ((tokens.id[:, 1:] == tokens.id[:, :-1]) | (row > first[1:])).all(0) & (first[1:] == first[:-1])
    same = torch.cat([same.new_zeros(1), same])
    found: list[list[int]] = torch.stack([first + 1, (last + 1 + after).clamp(max=n), same, plain]).tolist()
    if not all(found[3]):
        return None
    starts = [i for i, joins in enumerate(found[2]) if not joins]
    groups = [range(*ends) for ends in zip(starts, [*starts[1:], len(found[0])], strict=True)]
    return Texts(found[0], found[1], groups)


def cost(n: int, longest: int, width: int) -> float:
    """Of `n` rows padded to `longest`, in tokens: each is read, and attends to all of its row."""
    return n * longest * (1.0 + longest / (PAIRS * width))


def sharing(texts: Texts, width: int) -> tuple[float, list[range] | None]:
    """The cheapest way to read these texts, by `cost`: its cost, and the columns of each row.

    A row is one text (None: it is how it always was), or a prompt and up to k of its completions for some k
    = 2, 4, 8, …: the more of them, the fewer tokens are read and the longer is the row that each attends to.
    """
    best: tuple[float, list[range] | None] = (cost(len(texts.length), max(texts.length), width), None)
    largest, k = max(map(len, texts.groups)), 1
    while k < largest:
        k *= 2
        rows = [piece for group in texts.groups for piece in pieces(group, k)]
        found = cost(len(rows), max(map(texts.laid_out, rows)), width)
        best = min(best, (found, rows), key=lambda way: way[0])
    return best


def pieces(group: range, k: int) -> list[range]:
    """The group in as few pieces of at most k as there can be, of nearly equal sizes."""
    n = -(-len(group) // k)
    ends = [group.start + len(group) * i // n for i in range(n + 1)]
    return [range(*pair) for pair in pairwise(ends)]


def parted(texts: Texts, n: int, width: int, strict: bool = True) -> list[list[int]] | None:
    """All columns, at most `n` at a time and groups together; None where columns by length cost no more.

    Unless `strict`, as many are together as cost what `n` of them would cost apart.
    """
    by_length = sorted(range(len(texts.length)), key=lambda i: texts.length[i])
    apart = [by_length[i : i + n] for i in range(0, len(by_length), n)]
    if not strict:
        n = int(n * cost(len(texts.length), max(texts.length), width) / sharing(texts, width)[0])
    together: list[list[int]] = []
    rows = [piece for group in texts.groups for piece in pieces(group, n)]
    for piece in sorted(rows, key=texts.laid_out):
        if not together or len(together[-1]) + len(piece) > n:
            together.append([])
        together[-1] += piece
    costs = [sum(sharing(texts.take(part), width)[0] for part in way) for way in (together, apart)]
    return together if costs[0] < costs[1] else None


def in_parts(texts: Texts, n: int, width: int | None) -> list[list[int]]:
    """All columns, about `n` at a time: by `parted` for a model of `width`, else those of like lengths."""
    found = None if width is None else parted(texts, n, width, strict=False)
    if found is not None:
        return found
    order = sorted(range(len(texts.length)), key=lambda i: texts.length[i])
    return [order[i : i + n] for i in range(0, len(order), n)]
