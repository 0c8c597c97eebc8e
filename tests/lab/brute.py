"""An independent reading of a finite problem: recursion over histories in plain Python, no tensors."""

import cmath
from collections.abc import Iterator
from typing import Any

History = tuple[tuple[int, int, float], ...]
"""(state, action, reward) of every decision."""


class Plain:
    """The numbers of a `Tabular` as lists, and a policy that may be complex (for complex steps)."""

    def __init__(self, problem: Any, theta: list[list[complex]], steps: int) -> None:
        self.P, self.r, self.rho0 = problem.P.tolist(), problem.r.tolist(), problem.rho0.tolist()
        self.look, self.over = problem.observation.tolist(), problem.terminal.tolist()
        self.endless, self.steps, self.theta = problem.horizon is None, steps, theta

    def pi(self, s: int, a: int) -> complex:
        weights = [cmath.exp(x) for x in self.theta[self.look[s]]]
        return weights[a] / sum(weights)

    def histories(self) -> Iterator[tuple[complex, History, int | None]]:
        """p(τ), the decisions, and the state behind a window that did not end (None where it did)."""
        for s, p in enumerate(self.rho0):
            if p > 0:
                yield from self._go(p, (), s)

    def _go(self, p: complex, past: History, s: int) -> Iterator[tuple[complex, History, int | None]]:
        for a, r in enumerate(self.r[s]):
            here, now = p * self.pi(s, a), (*past, (s, a, r))
            if len(now) == self.steps and not self.endless:
                yield here, now, None
                continue
            for after, q in enumerate(self.P[s][a]):
                if q == 0:
                    continue
                if self.over[after]:
                    yield here * q, now, None
                elif len(now) == self.steps:
                    yield here * q, now, after
                else:
                    yield from self._go(here * q, now, after)

    def objective(self, gamma: float, behind: list[float] | None = None) -> complex:
        """Σ p(τ) (Σ γᵗ rₜ + γᵀ·V(behind)), one history at a time."""
        total = 0j
        for p, past, last in self.histories():
            ret = sum(gamma**t * r for t, (_, _, r) in enumerate(past))
            if last is not None and behind is not None:
                ret += gamma**self.steps * behind[last]
            total += p * ret
        return total


def objective_and_gradient(
    problem: Any, theta: Any, gamma: float, steps: int, behind: list[float] | None = None
) -> tuple[float, list[list[float]]]:
    """J and ∇J: the derivative in direction i is Im J(θ + ih·eᵢ)/h, exact to rounding for h = 1e-30."""
    table = [[complex(x) for x in row] for row in theta.tolist()]
    value = Plain(problem, table, steps).objective(gamma, behind).real
    slopes = []
    for o, row in enumerate(table):
        slopes.append([])
        for a in range(len(row)):
            moved = [list(one) for one in table]
            moved[o][a] += 1e-30j
            slopes[o].append(Plain(problem, moved, steps).objective(gamma, behind).imag / 1e-30)
    return value, slopes
