"""A batch in parts that are drawn by lot, without repetition."""

from collections.abc import Iterator

import torch
from torch import Generator

from pgrad.data.handover import hand_over
from pgrad.data.sequence import sequences_per_batch
from pgrad.data.tokens import Tokens
from pgrad.data.trajectory import Batch


def minibatches(batch: Batch, batch_size: int, generator: Generator) -> Iterator[Batch]:
    """Every decision of a flattened batch once, shuffled, `batch_size` at a time, in whole sequences.

    Texts are of different lengths: there it is about as many, in parts of as many texts.
    """
    if isinstance(batch.obs, Tokens):
        parts = max(1, round(float((batch.mask > 0).sum()) / batch_size))
        yield from columns(batch, -(-batch.mask.shape[1] // parts), generator)
        return
    n = batch.mask.shape[batch.axis]
    order = torch.randperm(n, generator=generator, device=generator.device)
    order = hand_over(order, batch.mask.device)
    if batch.axis:  # views of columns would be slower to work on
        for part in torch.split(order, sequences_per_batch(batch_size, len(batch.mask))):
            yield batch.select(part)
        return
    yield from batch.select(order).split(batch_size)


def columns(batch: Batch, n: int, generator: Generator) -> Iterator[Batch]:
    """Every column of a batch that is not flattened once, shuffled, `n` at a time."""
    size = batch.mask.shape[1]
    if n >= size:
        yield batch
        return
    order = torch.randperm(size, generator=generator, device=generator.device)
    for part in torch.split(hand_over(order, batch.mask.device), n):
        yield batch.columns(part).trimmed()
