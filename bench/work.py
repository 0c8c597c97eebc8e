"""The records that a row is made of."""

from dataclasses import dataclass, field
from typing import Any, Literal

Measure = Literal["steps_per_second", "first_update", "peak_mb", "solved_after", "score"]


@dataclass(frozen=True)
class Work:
    """What a process trains. Settings have the names that pgrad and Stable-Baselines3 share."""

    algorithm: str
    world: str
    n_envs: int
    total_timesteps: int
    settings: dict[str, Any]
    normalize: bool = False  # observations and rewards, by running statistics
    memory_size: int = 0  # units of a memory, of actor and critic each
    memory: Literal["gru", "lstm"] = "lstm"  # its kind, if it has units
    note_every: int = 1  # steps between looks at the clock; at most one an update
    settled: float = 0.2  # share of the steps after which the rate counts as steady


@dataclass(frozen=True)
class Side:
    """One of those that do the work: a program of `bench/sides`, on so many cores."""

    name: str
    program: Literal["on_pgrad", "on_sb3", "on_skrl", "shell", "zoo"]
    work: Work
    cores: int = 1  # 0: all there are
    library: str = ""  # of on_sb3: stable_baselines3, sb3_contrib or sbx
    train: dict[str, Any] = field(default_factory=dict)  # arguments of pgrad.train
    agent: dict[str, Any] = field(default_factory=dict)  # arguments of pgrad.AgentSpec

    @property
    def ours(self) -> bool:
        """Whether it runs where pgrad is."""
        return self.program in ("on_pgrad", "shell")


@dataclass(frozen=True)
class Target:
    """`side` is to reach `bound`, by a ratio to `peer` or, without one, absolutely."""

    side: str
    measure: Measure
    bound: float
    peer: str = ""
    moonshot: float | None = None

    @property
    def at_least(self) -> bool:
        return self.measure in ("steps_per_second", "score")


@dataclass(frozen=True)
class Row:
    """Sides that are run in turn, and what is hoped for."""

    title: str
    sides: tuple[Side, ...]
    targets: tuple[Target, ...]
    larger_by: float = 0.0  # share by which our networks may have more parameters
