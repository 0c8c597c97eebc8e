"""A published result as a value: what was trained, on what, how far it must come."""

from dataclasses import dataclass, field
from typing import Any

from pgrad.algorithms import Algorithm
from pgrad.models import AgentSpec
from pgrad.models.language.spec import LanguageSpec
from pgrad.report.plots import unit


@dataclass(frozen=True)
class Recipe:
    """One row of the evidence: `reach` is for the mean over seeds of deterministic returns."""

    name: str
    algorithm: Algorithm
    world: str
    total_timesteps: int
    n_envs: int = 8
    agent: AgentSpec | LanguageSpec = field(default_factory=AgentSpec)
    world_kwargs: dict[str, Any] = field(default_factory=dict)
    warm: "Recipe | None" = None
    """what is trained first, with the same seed; its policy is where this one begins"""
    evaluations: int = 0
    """deterministic evaluations while it trains, of as many episodes as the last one"""
    reach: float | None = None
    """mean return to reach; none where the result is only reported"""
    every_seed: float | None = None
    """return that every single seed must reach"""
    seeds: int = 5
    """how many are published at least"""

    @property
    def texts(self) -> bool:
        """Whether completions of prompts are trained, whose steps are tokens."""
        return isinstance(self.agent, LanguageSpec)

    @property
    def title(self) -> str:
        """What a plot is headed with."""
        return f"{self.name} · {self.total_timesteps:,} {unit(self.texts)}"

    def verdict(self, means: list[float]) -> bool | None:
        """Whether these per-seed returns reach what they must; None where nothing must be reached."""
        if self.reach is None:
            return None
        every: Any = self.every_seed if self.every_seed is not None else float("-inf")
        return sum(means) / len(means) >= self.reach and min(means) >= every
