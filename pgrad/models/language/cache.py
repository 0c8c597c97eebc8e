"""Keys and values of what was read, in tensors that are allocated once."""

from typing import Any

import torch
from torch import Tensor

from pgrad.extras import extra
from pgrad.models.language.body import takes_positions

PREFILL = 2**14
"""So many tokens of prompts are read at a time."""


class Store:
    """Keys and values of every layer, [N, heads, columns, width]; the first `used` columns are filled.

    Texts stand right-aligned in the columns of the prompts, so that all of them write to the same column. A
    transformers model takes it for `past_key_values`.
    """

    is_compileable = False

    def __init__(self, keys: list[Tensor], values: list[Tensor], used: int) -> None:
        self.keys, self.values, self.used = keys, values, used
        self.is_sliding = [False] * len(keys)  # all columns are kept; a window is the mask's business

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the next columns of a layer; returns all of its that are filled."""
        end = self.used + key.shape[2]
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[:, :, self.used : end] = key
        values[:, :, self.used : end] = value
        return keys[:, :, :end], values[:, :, :end]

    def keep(self, rows: Tensor) -> None:
        """Forget all texts but those in `rows`, ascending: the others move up."""
        n, used = len(rows), self.used
        for layers in (self.keys, self.values):
            for i, whole in enumerate(layers):
                whole[:n, :, :used] = whole[:, :, :used].index_select(0, rows)
                layers[i] = whole[:n]

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """How many columns a mask for the next `query_length` tokens has, and the first of them."""
        return self.used + query_length, 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many columns are filled."""
        return self.used

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """The column of the next token."""
        return self.used

    def get_max_length(self, layer_idx: int = 0) -> int:
        """How many columns there are."""
        return self.keys[0].shape[2]


def prefill(
    body: Any, prompts: list[list[int]], copies: int, room: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Store]:
    """Read every prompt once: the hidden state at its end [P·copies, H], and its keys and values likewise.

    Prompts are padded on the right to be read (no mask is needed, positions are 0, 1, …) and moved to the
    right in the store, which has `room` for so many columns beyond the longest prompt.
    """
    longest, hidden, start = max(map(len, prompts)), [], 0
    keys: list[Tensor] = []
    values: list[Tensor] = []
    while start < len(prompts):
        part = _some(prompts, start)
        lengths = torch.tensor([len(p) for p in part], device=device)
        ids = torch.zeros(len(part), max(map(len, part)), dtype=torch.long)
        for i, prompt in enumerate(part):
            ids[i, : len(prompt)] = torch.tensor(prompt)
        read = extra("transformers").DynamicCache()
        position = torch.arange(ids.shape[1], device=device).expand(len(part), -1)
        given = {"position_ids": position} if takes_positions(body) else {}
        out = body(input_ids=ids.to(device), past_key_values=read, use_cache=True, **given)
        last = out.last_hidden_state[torch.arange(len(part), device=device), lengths - 1]
        hidden.append(last.repeat_interleave(copies, 0))
        if not keys:
            shape = (len(prompts) * copies, longest + room)
            keys = [_empty(layer.keys, *shape, dtype) for layer in read.layers]
            values = [_empty(layer.values, *shape, dtype) for layer in read.layers]
        rows = slice(start * copies, (start + len(part)) * copies)
        for i, layer in enumerate(read.layers):
            keys[i][rows, :, :longest] = _aligned(layer.keys, lengths, longest, copies)
            values[i][rows, :, :longest] = _aligned(layer.values, lengths, longest, copies)
        start += len(part)
    return torch.cat(hidden), Store(keys, values, longest)


def _some(prompts: list[list[int]], start: int) -> list[list[int]]:
    """As many prompts from `start` on as may be read at once, at least one."""
    longest, stop = 0, start
    while stop < len(prompts):
        longest = max(longest, len(prompts[stop]))
        if stop > start and longest * (stop + 1 - start) > PREFILL:
            break
        stop += 1
    return prompts[start:stop]


def _empty(x: Tensor, n: int, columns: int, dtype: torch.dtype) -> Tensor:
    # zeros, because what is masked is still multiplied by 0, and 0·NaN is NaN
    return x.new_zeros(n, x.shape[1], columns, x.shape[3], dtype=dtype)


def _aligned(x: Tensor, lengths: Tensor, longest: int, copies: int) -> Tensor:
    """[P, heads, L, D] padded on the right → [P·copies, heads, longest, D] padded on the left."""
    source = torch.arange(longest, device=x.device) - (longest - lengths).unsqueeze(1)
    source = source.clamp(min=0).view(len(x), 1, longest, 1).expand(-1, x.shape[1], -1, x.shape[3])
    return x.gather(2, source).repeat_interleave(copies, 0)
