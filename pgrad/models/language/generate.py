"""Writing: completions of prompts, sampled from the policy that is trained, with what it thought of them."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pgrad.errors import TrainingError, UsageError
from pgrad.math.vocabulary import logits
from pgrad.models.language.body import body_of, shape_of
from pgrad.models.language.cache import prefill
from pgrad.models.language.decode import Fused, Plain, fusable
from pgrad.models.language.launch import Chosen, following
from pgrad.models.language.network import LanguageNetwork
from pgrad.models.language.sample import choose, uniforms
from pgrad.stopping import Stop, go_on

LOOK_EVERY = {"cpu": 1, "cuda": 16}
"""After so many tokens it is asked which texts have ended, for which a GPU must be waited for."""

DROPPED = 0.25
"""Texts that have ended are taken out when they are this share."""


@dataclass(frozen=True)
class Completions:
    """What was written to N = prompts · num_generations texts, those of one prompt side by side.

    `logp` and `entropy` are of the distribution that each token was drawn from; NaN is what an engine does
    not tell: entropies, and log-probabilities of greedy texts. What lies beyond a text's length is 0, in all
    of them.
    """

    tokens: Tensor  # [N, C] int64    C is the longest length
    length: Tensor  # [N] int64       tokens written, the one that ended it too
    logp: Tensor  # [N, C] float32
    entropy: Tensor  # [N, C] float32
    ended: Tensor  # [N] bool         by an end token; else cut off at max_completion_length


@torch.no_grad()
def generate(
    network: LanguageNetwork,
    prompts: Sequence[Sequence[int]],
    *,
    seeds: Tensor,
    max_completion_length: int,
    num_generations: int = 1,
    temperature: float | None = None,
    top_k: int = 0,
    top_p: float = 1.0,
    eos: Sequence[int] | None = None,
    greedy: bool = False,
    stop: Stop = go_on,
) -> Completions:
    """Sample `num_generations` completions of every prompt, a list of tokens.

    Each prompt is read once. A completion depends on its prompt and its own seed (int64 [N]), not on what is
    written beside it, up to the rounding of matrix products of other sizes. `temperature` and `eos` are the
    network's unless given. `stop` is called before every token. Raises UsageError for prompts that are empty
    or do not fit the model's context, TrainingError for logits that are not finite. A network that has
    another engine has it write, as `VLLM.write` says.
    """
    texts = [list(map(int, prompt)) for prompt in prompts]
    temperature = network.temperature if temperature is None else temperature
    _check(network, texts, seeds, num_generations, max_completion_length, temperature, top_k, top_p)
    device = network.device
    ends = torch.tensor(network.eos if eos is None else list(eos), dtype=torch.long, device=device)
    if network.vllm is not None:
        written = network.vllm.write(
            network.model,
            [text for text in texts for _ in range(num_generations)],
            seeds=seeds,
            max_completion_length=max_completion_length,
            ends=ends.tolist(),
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            greedy=greedy,
            context=network.context,
            stop=stop,
        )
        return _completions(*written, ends)
    with _sampling(network):
        return _write(
            network,
            texts,
            num_generations,
            uniforms(seeds.to(device), max_completion_length),
            ends,
            temperature,
            {"top_k": top_k, "top_p": top_p, "greedy": greedy},
            stop,
        )


def _write(
    network: LanguageNetwork,
    texts: list[list[int]],
    copies: int,
    u: Tensor,
    ends: Tensor,
    temperature: float,
    how: dict[str, Any],
    stop: Stop,
) -> Completions:
    model: Any = network.model
    dtype, device, n = network.dtype, u.device, u.shape[1]
    head, shape = model.get_output_embeddings(), shape_of(model, temperature)
    weight = head.weight.to(dtype)
    hidden, store = prefill(body_of(model), texts, copies, n - 1, dtype, device)
    lengths = torch.tensor([len(text) for text in texts], device=device).repeat_interleave(copies)
    longest = store.used
    first = None if min(map(len, texts)) == longest else longest - lengths
    reader: Plain | Fused
    if fusable(model, longest + n, dtype):
        torch.clear_autocast_cache()  # of the weights in half precision, of which the reader takes its own
        reader = Fused(model, store, first, dtype)
    else:
        reader = Plain(body_of(model), store, first)

    def draw(hidden: Tensor, u: Tensor) -> Chosen:
        with torch.autocast(device.type, enabled=False):  # what follows the body is float32
            return choose(logits(hidden.to(dtype), weight, head.bias, shape), u, **how)

    # what is written, time first; the texts that are still written are `live`, and `over` says which ended
    tokens = torch.zeros(n, len(u), dtype=torch.long, device=device)
    logp = torch.zeros(n, len(u), device=device)
    entropy = torch.zeros_like(logp)
    live = torch.arange(len(u), device=device)
    over = torch.zeros(len(u), dtype=torch.bool, device=device)
    look, write_next = LOOK_EVERY.get(device.type, 1), following(reader, draw, len(u), n, device)
    token = live
    for t in range(n):
        stop()
        here = u[:, t]
        token, of_token, spread = write_next(token, lengths + t - 1, here) if t else draw(hidden, here)
        tokens[t].index_copy_(0, live, token)
        logp[t].index_copy_(0, live, of_token)
        entropy[t].index_copy_(0, live, spread)
        if t == n - 1:
            break
        over |= (token.unsqueeze(1) == ends).any(1)
        if (t + 1) % look == 0:
            n_live = int(over.logical_not().count_nonzero())
            if not n_live:
                break
            room = write_next.room(n_live)
            if len(over) - room >= max(DROPPED * len(over), 1):
                rows = over.to(torch.int8).argsort(stable=True)[:room].sort().values  # first those that go on
                write_next.keep(rows)
                live, token, u, lengths, over = (x[rows] for x in (live, token, u, lengths, over))
    return _finished(tokens[: t + 1], logp, entropy, ends)


def _finished(tokens: Tensor, logp: Tensor, entropy: Tensor, ends: Tensor) -> Completions:
    """Cut every text after its first end token. Raises TrainingError for a policy that is none."""
    n = len(tokens)
    is_end = (tokens.unsqueeze(-1) == ends).any(-1)
    row = torch.arange(n, device=tokens.device).unsqueeze(1)
    length = torch.where(is_end, row + 1, n).amin(0)
    longest = int(length.max())
    beyond = row[:longest] >= length
    cut = [x[:longest].masked_fill(beyond, 0).t().contiguous() for x in (tokens, logp, entropy)]
    bad = int(cut[1].isfinite().all(1).logical_not().count_nonzero())
    if bad:
        raise TrainingError(
            f"in {bad} of {len(length)} completions log-probabilities are not finite: the model's logits are "
            "NaN or infinite. Common causes: too large a learning rate, damaged weights"
        )
    return Completions(cut[0], length, cut[1], cut[2], is_end.any(0))


def _completions(texts: list[list[int]], scores: list[list[float]], ends: Tensor) -> Completions:
    """The same of what an engine wrote, which tells no entropies: they are NaN."""
    device, longest = ends.device, max(map(len, texts))
    length = torch.tensor([len(text) for text in texts], device=device)
    tokens = torch.tensor([text + [0] * (longest - len(text)) for text in texts], device=device)
    logp = torch.tensor([row + [0.0] * (longest - len(row)) for row in scores], device=device)
    inside = torch.arange(longest, device=device) < length.unsqueeze(1)
    last = tokens.gather(1, length.unsqueeze(1) - 1)
    entropy = torch.where(inside, torch.nan, 0.0)
    return Completions(tokens, length, logp, entropy, (last == ends).any(1))


@contextmanager
def _sampling(network: LanguageNetwork) -> Iterator[None]:
    """Out of training mode, in which transformers keeps no keys when it checkpoints gradients."""
    training, half = network.model.training, network.dtype == torch.bfloat16
    network.model.eval()
    try:
        with torch.autocast(network.device.type, torch.bfloat16, enabled=half):
            yield
    finally:
        network.model.train(training)


def _check(
    network: LanguageNetwork,
    texts: list[list[int]],
    seeds: Tensor,
    copies: int,
    n: int,
    temperature: float,
    top_k: int,
    top_p: float,
) -> None:
    if not texts or copies < 1 or n < 1:
        raise UsageError("generate needs a prompt, num_generations ≥ 1 and max_completion_length ≥ 1")
    if seeds.dtype != torch.long or tuple(seeds.shape) != (len(texts) * copies,):
        raise UsageError(
            f"generate needs {len(texts) * copies} seeds, int64, one for each completion; got "
            f"{tuple(seeds.shape)} {seeds.dtype}"
        )
    if not (math.isfinite(temperature) and temperature > 0.0):
        raise UsageError(f"temperature must be a finite number > 0, got {temperature}; use greedy=True for 0")
    if top_k < 0 or not 0.0 < top_p <= 1.0:
        raise UsageError(f"top_k must be ≥ 0 (0: off) and top_p in (0, 1], got {top_k} and {top_p}")
    for row, text in enumerate(texts):
        if not text:
            raise UsageError(f"prompt {row} is empty: begin texts with the tokenizer's bos_token")
        if network.context is not None and len(text) + n > network.context:
            raise UsageError(
                f"prompt {row} has {len(text)} tokens; with max_completion_length {n} that is more than the "
                f"{network.context} that the model reads"
            )
