"""When a run is long enough for the compiler."""

from dataclasses import dataclass
from typing import Literal

Compile = Literal["auto", "yes", "no"]
"""After a while, from the start, never."""

COMPILE_AFTER = 20_000
"""Gradient steps that a run takes as they are written before it waits for the compiler.

They take about as long as the compiler does, so that no run waits twice as long as it would have at best. A
count and not a clock, and of the run so far, not of what is planned: a run that is repeated, stopped and
continued, or made longer computes the same.
"""


def compile_after(wanted: Compile, usual: bool) -> int | None:
    """Gradient steps before machine code; None for never. `usual`: small networks, windows of one shape."""
    if wanted == "auto":
        return COMPILE_AFTER if usual else None
    return 0 if wanted == "yes" else None


@dataclass
class Foretold:
    """Says once at what step machine code will take over, from how fast gradient steps add up."""

    after: int | None
    total_timesteps: int
    seen: tuple[int, int] = (0, 0)
    done: bool = False

    def line(self, updates: int, timesteps: int) -> str:
        """What to say after an iteration; mostly nothing, as where the run ends before."""
        (before, earlier), self.seen = self.seen, (updates, timesteps)
        if self.done or self.after is None or updates == before or timesteps == earlier:
            return ""
        self.done = True
        left = (self.after - updates) * (timesteps - earlier) / (updates - before)
        if not 0 < left < self.total_timesteps - timesteps:
            return ""
        return (
            f"machine code takes over after {self.after:,} gradient steps, about step "
            f"{timesteps + round(left):,} (--compile yes: from the start)"
        )
