"""The two records that flow from worlds to parameters: what happened, and how good it was."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from pgrad.data.sequence import Sequence, sequence_rows
from pgrad.data.shared import parted, texts_of
from pgrad.data.tokens import Tokens
from pgrad.data.tree import Tree, is_tree, map_tree, names, split_tree
from pgrad.math.reduce import deviation, mean


@dataclass(frozen=True)
class Trajectory:
    """What happened, time first; nothing here depends on an algorithm.

    T decisions in each of B columns. Worlds reset on the step after an episode ends, so row t+1 of `obs` is
    always the true successor of row t, and the row that only resets has `mask` 0 and `done` true: an episode
    of its own, of weight zero, which no discount, trace or mean can reach across. Padding is marked the same
    way.
    """

    obs: Tree  # [T+1, B, ...]  the last row is only for bootstrapping
    action: Tree  # [T, B, ...]    as sampled, before clipping or squashing to the world's bounds
    logp: Tensor  # [T, B]         log μ(a|s) of the policy that acted
    reward: Tensor  # [T, B]
    terminated: Tensor  # [T, B] bool    the task ended: the future is worth nothing
    done: Tensor  # [T, B] bool    the episode ended, by the task or by the clock
    mask: Tensor  # [T, B] float   weight of the decision: 0 for an auto-reset row, a prompt token, padding
    weight: Tensor | None = None  # [T, B]  of the policy gradient, where `logp` is not of what acted

    @property
    def final(self) -> Tensor:
        """Where nothing comes after, [T, B]: `terminated`, and any end of a text, judged though cut off."""
        return self.done if isinstance(self.obs, Tokens) else self.terminated

    @property
    def decisions(self) -> Tree:
        """The observations decisions were taken on: `obs` without its last row, [T, B, ...]."""
        return map_tree(lambda x: x[:-1], self.obs)


class Whole(NamedTuple):
    """What the parts of a batch must know of it for their gradients to add up to its own."""

    decisions: float  # Σ mask
    sequences: float  # columns with weight
    mean: float  # of the advantages
    deviation: float


@dataclass(frozen=True)
class Batch:
    """Decisions with their credit, [T, B, ...] or flattened to [N, ...]; what a loss reads.

    Fields an algorithm does not use are None.
    """

    obs: Tree
    action: Tree
    logp: Tensor
    mask: Tensor
    advantage: Tensor
    value: Tensor | None = None  # V_old(s), the critic at collection
    target: Tensor | None = None  # what the critic should say
    policy: Tree | None = None  # π_old(·|s), for exact KL penalties
    weight: Tensor | None = None  # the importance weight, of the objective or in the advantage
    logp_ref: Tensor | None = None  # log π_ref(a|s), of the policy not to stray from
    logp_now: Tensor | None = None  # log π(a|s) before the update, where others than π acted too
    whole: "Whole | None" = None  # of what this is a part, where a gradient is summed over parts

    @property
    def decisions(self) -> float | None:
        """What a mean over decisions divides by where this is a part of a batch; None for its own number."""
        return None if self.whole is None else self.whole.decisions

    @property
    def sequences(self) -> Tensor | float:
        """What a mean over sequences divides by: how many columns have weight, here or in the whole."""
        return self.mask.amax(0).sum() if self.whole is None else self.whole.sequences

    @property
    def axis(self) -> int:
        """Along which axis minibatches are drawn from a flattened batch: 0, or 1 for whole sequences."""
        return 1 if isinstance(self.obs, Sequence | Tokens) else 0

    def flatten(self) -> "Batch":
        """The same decisions as [T·B, ...]; with a memory as sequences [L, T·B / L, ...]; texts stay."""
        if isinstance(self.obs, Tokens):
            return self
        if not isinstance(self.obs, Sequence):
            return self._map(lambda x: x.flatten(0, 1))
        rows = sequence_rows(len(self.mask), self.obs.length)
        cut: Batch = self._map(lambda x: x.unflatten(0, (-1, rows)).transpose(0, 1).flatten(1, 2))
        first = replace(cut.obs, state=map_tree(lambda x: x[:1], cut.obs.state))
        return replace(cut, obs=first)

    def select(self, index: Tensor) -> "Batch":
        """The decisions, or sequences, at `index` of a flattened batch."""
        return self._map(lambda x: x.index_select(self.axis, index))

    def split(self, n: int) -> "Iterator[Batch]":
        """All decisions, or sequences, of a flattened batch, `n` at a time, as views."""
        fields = {name: getattr(self, name) for name in names(Batch)}
        split = {name: split_tree(part, n, self.axis) for name, part in fields.items() if is_tree(part)}
        for parts in zip(*split.values(), strict=True):
            yield Batch(**fields | dict(zip(split, parts, strict=True)))

    def columns(self, index: Tensor) -> "Batch":
        """The columns at `index` [n] of a batch that is not flattened."""
        return self._map(lambda x: x.index_select(1, index))

    def part(self, index: Tensor) -> "Batch":
        """The columns at `index` [n] of a batch that is not flattened, which know of what they are a part."""
        return replace(self.columns(index).trimmed(), whole=self.whole or self._counted())

    def _counted(self) -> Whole:
        """What parts must know of this batch; waits for the device."""
        moments = mean(self.advantage, self.mask), deviation(self.advantage, self.mask)
        counts = self.mask.sum(), self.mask.amax(0).sum()
        return Whole(*torch.stack([*counts, *moments]).tolist())

    def with_advantage(self) -> "Batch":
        """The columns in which some decision has an advantage: the others have no policy gradient."""
        return self.part((self.advantage.abs() * self.mask).amax(0).nonzero().squeeze(1))

    def parts(self, n: int, width: int | None = None, strict: bool = True) -> "list[Batch]":
        """All columns of a batch that is not flattened, at most `n` at a time.

        Columns of like lengths are together, so that there is little padding; or those of one prompt, where a
        model of `width` reads it once for all of them and that is cheaper; then, unless `strict`, with more
        of them at a time, for the price of `n`.
        """
        if n >= self.mask.shape[1]:
            return [self]
        texts = texts_of(self.obs) if width is not None and isinstance(self.obs, Tokens) else None
        found = None if texts is None or width is None else parted(texts, n, width, strict)
        counted = replace(self, whole=self.whole or self._counted())  # once for all parts
        if found is not None:
            return [counted.part(torch.tensor(columns, device=self.mask.device)) for columns in found]
        rows = torch.arange(1, len(self.mask) + 1, device=self.mask.device).unsqueeze(1)
        order = (rows * (self.mask > 0)).amax(0).argsort(stable=True)
        return [counted.part(index) for index in torch.split(order, n)]

    def trimmed(self) -> "Batch":
        """Without the rows at the end that have no weight in any column."""
        used = (self.mask > 0).any(1).nonzero()
        return self._map(lambda x: x[: int(used.max()) + 1 if len(used) else 1])

    def _map(self, function) -> "Batch":  # type: ignore[no-untyped-def]
        return map_tree(function, self)
