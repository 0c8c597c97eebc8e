"""Where the time of a training goes: a stopwatch that is always in exactly one stage."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

STAGES = ("world", "act", "read", "generate", "reward", "credit", "update", "other")
"""Stepping environments, choosing actions; drawing demonstrations; writing completions, judging them; judging
decisions; gradient steps; and what else there is: statistics, evaluations, rows, checkpoints."""


class Stages:
    """Seconds by stage. Every moment counts for one stage, so that the stages add up to the whole.

    clock: on a GPU, where work is only queued, one that waits for it tells the truth and costs time.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._seconds: dict[str, float] = {}
        self._stage, self._since = "other", clock()

    def switch(self, stage: str) -> str:
        """From now on time counts for `stage`; returns the stage that it counted for."""
        now, before = self.clock(), self._stage
        self._seconds[before] = self._seconds.get(before, 0.0) + now - self._since
        self._stage, self._since = stage, now
        return before

    @contextmanager
    def within(self, stage: str) -> Iterator[None]:
        """Count for `stage` inside, and as before afterwards, after an error too."""
        before = self.switch(stage)
        try:
            yield
        finally:
            self.switch(before)

    def take(self) -> dict[str, float]:
        """The seconds of each stage since the last call, as metrics; starts anew."""
        self.switch(self._stage)
        found = {f"time/{name}": self._seconds[name] for name in STAGES if name in self._seconds}
        self._seconds = {}
        return found


def shares(metrics: Mapping[str, float]) -> dict[str, float]:
    """What share of the time each stage took, from the metrics `time/STAGE`; empty without any."""
    seconds = {name: metrics[f"time/{name}"] for name in STAGES if f"time/{name}" in metrics}
    total = sum(seconds.values())
    return {name: x / total for name, x in seconds.items()} if total > 0.0 else {}
