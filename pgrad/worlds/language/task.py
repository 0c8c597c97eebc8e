"""What a task is: a source of problems without end, each with an answer that can be checked exactly."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pgrad.errors import UsageError

SPLITS = ("train", "held_out", "larger")
_TRIES = 1000
_LONGEST = 10_000  # characters; no answer here is longer, and a verifier need not read more


@dataclass(frozen=True)
class Instance:
    """One problem."""

    prompt: str
    answer: str  # one right answer; a verifier may accept others
    solution: str  # what a demonstration writes: the answer, or a chain of thought that ends in it
    size: int
    key: str  # the same for two prompts that ask the same: 12+5 and 5+12
    metadata: dict[str, Any] = field(default_factory=dict)  # what else the verifier needs, plain values


@dataclass(frozen=True)
class Task:
    """Problems of sizes `sizes`, and larger ones of sizes `larger`, both inclusive.

    Three splits, disjoint by `Instance.key`: of the problems of `sizes` about four fifths are "train" and one
    fifth "held_out", by a hash of the key, the same for every seed; "larger" ones are of sizes never trained.

    Raises UsageError where the sizes overlap or are not positive.
    """

    name: str
    alphabet: str  # every character of a prompt or a solution
    sizes: tuple[int, int]
    larger: tuple[int, int]
    draw: Callable[[Random, int], Instance]  # a problem of this size
    check: Callable[[str, Instance], bool]  # whether a completion, stripped, is right
    longest: int  # characters of the longest solution; 0 where nobody knows

    def __post_init__(self) -> None:
        for name in ("sizes", "larger"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise UsageError(f"{self.name}: {name} must be 1 ≤ first ≤ last, got {low}, {high}")
        if self.larger[0] <= self.sizes[1]:
            raise UsageError(
                f"{self.name}: larger must begin above sizes (with {self.sizes[1] + 1} or more), "
                f"got {self.larger[0]}"
            )

    def instance(self, split: str, seed: int, index: int) -> Instance:
        """Problem number `index` of the endless list that (split, seed) names; a pure function of the three.

        The size is drawn uniformly, then a problem of it; again, where that one belongs to another split.

        Raises UsageError for another split, and where all problems of these sizes fall into the other one.
        """
        if split not in SPLITS:
            raise UsageError(f"a split is one of {', '.join(SPLITS)}, got {split!r}")
        rng = Random(f"{self.name}/{split}/{seed}/{index}")
        low, high = self.larger if split == "larger" else self.sizes
        for _ in range(_TRIES):
            instance = self.draw(rng, rng.randint(low, high))
            if split == "larger" or self.is_held_out(instance) == (split == "held_out"):
                return instance
        raise UsageError(
            f"{self.name} of sizes {low} to {high} has too few problems for a {split} split: "
            f"choose larger sizes"
        )

    def instances(self, split: str, n: int, seed: int) -> list[Instance]:
        """The first n problems of the list that (split, seed) names. A problem may come up again."""
        return [self.instance(split, seed, index) for index in range(n)]

    def is_held_out(self, instance: Instance) -> bool:
        """Whether a problem of `sizes` is kept from training."""
        digest = hashlib.blake2b(f"{self.name}:{instance.key}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) % 5 == 0

    def verify(self, completion: object, instance: Instance) -> float:
        """1 for a right completion, white space around it aside, else 0. Never raises."""
        if not isinstance(completion, str) or len(completion) > _LONGEST:
            return 0.0
        return float(self.check(completion.strip(), instance))


def exactly(completion: str, instance: Instance) -> bool:
    """Whether the completion is the answer, character by character."""
    return completion == instance.answer


def share(chain: float) -> None:
    """Raise UsageError where the share of solutions that reason is none."""
    if not 0.0 <= chain <= 1.0:
        raise UsageError(f"chain is a share between 0 and 1, got {chain!r}")
