"""What every side tells of its work; this and its neighbours run in the environment of their library."""

import json
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "torch",
    "numpy",
    "gymnasium",
    "mujoco",
    "envpool",
    "pgrad",
    "stable-baselines3",
    "sb3-contrib",
    "sbx-rl",
    "jax",
    "skrl",
)
SOLVED = 475.0
"""The mean return of CartPole-v1 from which on it counts as solved."""


class Clock:
    """Notes when how much was done; at most once in `every` steps."""

    def __init__(self, every: int = 1) -> None:
        self.every, self.notes = every, list[tuple[int, int, float, float]]()

    def due(self, steps: int) -> bool:
        """Whether it is time for a note."""
        return steps > 0 and (not self.notes or steps - self.notes[-1][0] >= self.every)

    def note(self, steps: int, gradient_steps: int) -> None:
        """So many steps of environments and of gradients are done now."""
        self.notes.append((steps, gradient_steps, time.monotonic(), time.process_time()))


def tell(clock: Clock, parameters: Iterable[int], score: float | None = None) -> None:
    """Print all of it as one line. score: of a run that was to reach one, when its only note was made."""
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    report = {"notes": clock.notes, "parameters": sum(parameters), "peak_mb": peak, "versions": versions()}
    print(json.dumps(report if score is None else report | {"score": score}))


def versions() -> dict[str, str]:
    """Of what is installed here."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
