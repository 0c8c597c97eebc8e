"""Between two reports: means of metrics, and when the next one is due."""

from dataclasses import dataclass


class Averages:
    """Means of metrics over the iterations between two reports."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, metrics: dict[str, float]) -> None:
        """Take the metrics of one iteration."""
        for key, value in metrics.items():
            total, count = self._sums.get(key, (0.0, 0))
            self._sums[key] = total + value, count + 1

    def take(self) -> dict[str, float]:
        """The means so far; starts anew."""
        means = {key: total / count for key, (total, count) in self._sums.items()}
        self._sums = {}
        return means

    def state_dict(self) -> dict[str, list[float]]:
        """Sum and count of each metric since the last report."""
        return {key: list(value) for key, value in self._sums.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        """Put them back."""
        self._sums = {key: (total, int(count)) for key, (total, count) in state.items()}


@dataclass(frozen=True)
class Every:
    """True once each time the count passes a multiple of `n` steps; never for n = 0."""

    n: int

    def passed(self, before: int, after: int) -> bool:
        """Whether a multiple lies in (before, after]."""
        return self.n > 0 and after // self.n > before // self.n
