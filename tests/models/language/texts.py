"""Texts as columns of tokens, the way a collector writes them."""

import torch
from torch import Tensor

from pgrad.data import Tokens
from pgrad.models.language import Completions

PROMPTS = [[2, 5, 6, 7, 8, 9, 10], [2, 11], [2, 4, 4, 4], [2, 12, 13, 14, 15, 16, 17, 18, 19]]


def columns(prompts: list[list[int]], done: Completions, g: int) -> tuple[Tokens, Tensor, Tensor]:
    """Tokens [T, N], actions [T, N] and the sampler's log-probabilities [T, N]."""
    texts = [prompts[i // g] + done.tokens[i, : done.length[i]].tolist() for i in range(len(done.length))]
    T = max(map(len, texts)) - 1
    id_, action = torch.zeros(T, len(texts), dtype=torch.long), torch.zeros(T, len(texts), dtype=torch.long)
    position, decides = torch.zeros_like(id_), torch.zeros_like(id_, dtype=torch.bool)
    logp = torch.zeros(T, len(texts))
    for i, text in enumerate(texts):
        n, p = len(text) - 1, len(prompts[i // g])
        id_[:n, i], action[:n, i] = torch.tensor(text[:-1]), torch.tensor(text[1:])
        position[:n, i] = torch.arange(n)
        decides[p - 1 : n, i] = True
        logp[p - 1 : n, i] = done.logp[i, : n - p + 1]
    return Tokens(id_, position, decides), action, logp


def packed(tokens: Tokens, action: Tensor) -> tuple[Tokens, Tensor, list[slice]]:
    """All columns below one another in one column, without padding."""
    used = [int(tokens.decides[:, i].nonzero().max()) + 1 for i in range(tokens.id.shape[1])]
    stack = [
        torch.cat([x[:n, i] for i, n in enumerate(used)]).unsqueeze(1)
        for x in (tokens.id, tokens.position, tokens.decides, action)
    ]
    ends = torch.tensor(used).cumsum(0).tolist()
    where = [slice(end - n, end) for end, n in zip(ends, used, strict=True)]
    return Tokens(stack[0], stack[1], stack[2]), stack[3], where
