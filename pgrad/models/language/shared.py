"""Reading texts that begin alike: their prompt once, in one row with its completions."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding

from pgrad.data import Tokens, map_tree
from pgrad.data.shared import Texts, at_once, in_parts, sharing, texts_of
from pgrad.models.language.body import read, takes_positions
from pgrad.stopping import Stop, go_on

FAMILIES = ("gemma2", "gemma3_text", "gpt2", "granite", "llama", "mistral", "qwen2", "qwen3")
"""Models whose attention is told whom a token sees by a mask [N, 1, L, L], and by nothing else."""

ATTENTION = ("sdpa", "eager")
"""Implementations of attention that take such a mask."""

ROTATIONS = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings that do not depend on how long the longest text is."""


def width_of_sharing(body: Any, longest: int) -> int | None:
    """The width of a model that can read a prompt once for several texts of ≤ `longest` tokens, or None."""
    config = body.config
    if config.model_type not in FAMILIES or config._attn_implementation not in ATTENTION:
        return None
    kinds = getattr(getattr(body, "rotary_emb", None), "rope_type", "default")
    window = getattr(config, "sliding_window", None)  # which the mask would have to hide, layer by layer
    within = window is None or longest <= window
    rotates = set(kinds.values() if isinstance(kinds, dict) else [kinds]) <= set(ROTATIONS)
    return int(config.hidden_size) if takes_positions(body) and within and rotates else None


def read_shared(body: Any, tokens: Tokens, dtype: torch.dtype, after: int = 0, stop: Stop = go_on) -> Tensor:
    """`read`, [T, B, H], where neighbours with one prompt have it read once if that is cheaper.

    The same numbers up to the rounding of sums in another order, on every row up to `after` rows beyond the
    last decision of a column; what lies beyond is a copy of the last of them, or 0, which nobody asks for.
    Where no gradient is asked for, texts are read as many at a time as a backward pass holds, and `stop` is
    called before each time.
    """
    n = max(1, at_once(tokens.id.device) // max(1, len(tokens.id)))
    texts = None if torch.is_grad_enabled() or tokens.id.shape[1] <= n else texts_of(tokens, after)
    if texts is None:
        return _read(body, tokens, dtype, after)
    width, hidden = width_of_sharing(body, len(tokens.id)), None
    for columns in in_parts(texts, n, width):
        stop()
        rows = max(texts.length[i] for i in columns)
        index = torch.tensor(columns, device=tokens.id.device)
        part = map_tree(lambda x: x[:rows].index_select(1, index), tokens)  # noqa: B023  called here and now
        found = _read(body, part, dtype, after)
        if hidden is None:
            hidden = found.new_zeros(*tokens.id.shape, found.shape[-1])
        hidden[:rows, index] = found
    assert hidden is not None
    return hidden


def _read(body: Any, tokens: Tokens, dtype: torch.dtype, after: int) -> Tensor:
    width = width_of_sharing(body, len(tokens.id))
    texts = None if width is None else texts_of(tokens, after)
    rows = None if texts is None or width is None else sharing(texts, width)[1]
    if texts is None or rows is None:
        return read(body, tokens, dtype)
    at = lay_out(texts, rows, tokens.id.shape, tokens.id.device)
    row = torch.arange(at.source.shape[1], device=at.source.device)
    seen = (at.text.unsqueeze(1) == 0) | (at.text.unsqueeze(1) == at.text.unsqueeze(2))
    seen = (seen & (row <= row.unsqueeze(1))).unsqueeze(1)
    mask = seen
    if body.config._attn_implementation == "eager":  # adds its mask
        mask = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, torch.finfo(torch.float32).min)
    ids = tokens.id.flatten()[at.source]
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        given = {"position_ids": at.position, "attention_mask": mask}
        hidden: Tensor = body(input_ids=ids, use_cache=False, **given).last_hidden_state
    return embedding(at.back, hidden.flatten(0, 1))  # whose gradient is summed in one order, on a GPU too


class Layout(NamedTuple):
    """Where the tokens of texts stand in rows of prompts and completions, [R, L], padded at the end."""

    source: Tensor  # [R, L] which of the tokens, as a place in [T·B]
    position: Tensor  # [R, L] the place in its text
    text: Tensor  # [R, L] 0 in the prompt and 1, 2, … in its completions
    back: Tensor  # [T, B] where each token stands, as a place in [R·L]


def lay_out(texts: Texts, rows: list[range], shape: torch.Size, device: torch.device) -> Layout:
    """Rows of a prompt and its completions for the columns of each range."""
    n, columns = shape
    longest = max(map(texts.laid_out, rows))
    laid: list[list[list[int]]] = [[], [], []]
    back: list[list[int]] = []
    for start, row in zip(range(0, len(rows) * longest, longest), rows, strict=True):
        prompt = texts.prompt[row.start]
        source = [i * columns + row.start for i in range(prompt)]
        position, text = list(range(prompt)), [0] * prompt
        for i, column in enumerate(row, 1):
            own = range(prompt, texts.length[column])
            here = start + len(source)
            places = [*range(start, start + prompt), *range(here, here + len(own))]
            back.append(places + places[-1:] * (n - len(places)))
            source += [j * columns + column for j in own]
            position += own
            text += [i] * len(own)
        for whole, part in zip(laid, (source, position, text), strict=True):
            whole.append(part + part[-1:] * (longest - len(part)))
    source_, position_, text_, back_ = (torch.tensor(x, device=device) for x in (*laid, back))
    return Layout(source_, position_, text_, back_.t().contiguous())
