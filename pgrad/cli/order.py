"""What a command line asks to be trained, whatever is then done with it."""

from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import arg

from pgrad.algorithms import Algorithm
from pgrad.cli.finish import Folder, Output
from pgrad.errors import UsageError
from pgrad.run.config import RunConfig, RunOptions
from pgrad.run.start import configured


@dataclass(frozen=True)
class Several:
    """Several runs at once."""

    seeds: Annotated[tuple[str, ...], arg(metavar="N | SEED SEED ...", help_behavior_hint="")] = ()
    """train with several seeds side by side: 5 (the first five, 0 to 4), 3 5 8 (these), 10-19 (a range)"""
    jobs: int = 0
    """how many of them at the same time; 0 as many as the cores are for"""

    @property
    def limit(self) -> int:
        """`jobs`. Raises UsageError for fewer than none."""
        if self.jobs < 0:
            raise UsageError(f"--jobs must be ≥ 0, got {self.jobs}")
        return self.jobs


@dataclass(frozen=True)
class Order:
    """An algorithm, a world, an agent and the options; `own` is what only the one command knows."""

    algorithm: Algorithm
    world: str
    run: RunOptions
    agent: Any
    folder: Folder
    output: Output
    own: Any
    world_kwargs: dict[str, Any]
    reward: list[str] | None = None

    @property
    def config(self) -> RunConfig:
        """The configuration of the run."""
        return configured(self.algorithm, self.world, self.agent, self.run, self.world_kwargs, self.reward)


def chosen_seeds(texts: tuple[str, ...]) -> tuple[int, ...]:
    """The seeds that are meant: of one number N the first N, of several these; A-B is a range.

    Raises UsageError.
    """
    found: list[int] = []
    for text in texts:
        first, dash, last = text.partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else not last)):
            raise UsageError(
                f"--seeds takes how many (5), the seeds (0 1 2) or a range (10-19), got {text!r}"
            )
        found += range(int(first), int(last if dash else first) + 1)
        if len(texts) == 1 and not dash:
            found = list(range(int(first)))
    if not found or len(set(found)) < len(found):
        raise UsageError(f"--seeds must name at least one seed, each once, got {' '.join(texts)}")
    return tuple(found)
