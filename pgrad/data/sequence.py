"""Observations with the memory that an agent had before each of them."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pgrad.data.tree import Tree, map_tree
from pgrad.errors import UsageError


@dataclass(frozen=True)
class Sequence:
    """What an agent with a memory sees: observations in order, T rows of B columns, or one row [B, ...].

    Every row has the memory before it, so that a sequence can begin anywhere; of a sequence's memories only
    the first row's is read, the others follow from it.
    """

    obs: Tree  # [T, B, ...]
    start: Tensor  # [T, B] bool   an episode begins here: the memory before it counts as empty
    state: Tree  # [T, B, ...]  the memory before the row, of the agent that acted
    length: int  # rows of the sequences that minibatches are made of, at most


def without_memory(obs: Tree) -> Tree:
    """The observation itself, where it comes with a memory."""
    return obs.obs if isinstance(obs, Sequence) else obs


def by_row(function: Callable[[Tree], Tree], obs: Tree) -> Tree:
    """function(obs) of a window [T, B, ...], every row with the memory that is stored with it.

    For an agent as it was while it acted these are the memories that would follow from the first row's, so
    that nothing has to be done step by step. Without a memory it is function(obs).
    """
    if not isinstance(obs, Sequence):
        return function(obs)
    found = function(map_tree(lambda x: x.flatten(0, 1), obs))
    return map_tree(lambda x: x.unflatten(0, obs.start.shape), found)


def sequence_rows(n_steps: int, length: int) -> int:
    """How many rows a sequence has that is cut from `n_steps`. Raises UsageError for unequal pieces."""
    rows = min(n_steps, length)
    if n_steps % rows:
        legal = [size for size in range(1, n_steps + 1) if n_steps % size == 0]
        below, above = max(x for x in legal if x < rows), min(x for x in legal if x > rows)
        raise UsageError(
            f"sequence_length {length} does not divide n_steps {n_steps}; the nearest that do are {below} "
            f"and {above}"
        )
    return rows


def sequences_per_batch(batch_size: int, rows: int) -> int:
    """How many sequences a minibatch has. Raises UsageError where a sequence would be cut."""
    if batch_size % rows:
        below = batch_size // rows * rows
        nearest = f"the nearest that do are {below} and {below + rows}" if below else f"{rows} does"
        raise UsageError(
            f"batch_size {batch_size} does not hold whole sequences of {rows} decisions, which an agent with "
            f"a memory is trained on; {nearest} (or another sequence_length)"
        )
    return batch_size // rows
