"""The one seed of a run, as streams of random numbers that do not know of each other."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator


@dataclass(frozen=True)
class Seeds:
    """Independent streams spawned from one seed, one for everything that draws."""

    world: int
    agent: int
    acting: int
    learning: int
    evaluation: int

    @classmethod
    def spawn(cls, seed: int) -> "Seeds":
        """The streams of `seed`."""
        streams = np.random.SeedSequence(seed).spawn(5)
        return cls(*(int(stream.generate_state(1, np.uint32)[0]) for stream in streams))


def generator(seed: int, device: torch.device | str = "cpu") -> Generator:
    """A generator of its own."""
    return Generator(device).manual_seed(seed)
