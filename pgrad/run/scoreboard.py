"""What a person sees of several runs at once: a row each, and the mean of them with its interval."""

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TextIO

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pgrad.report.statistics import bootstrap_interval
from pgrad.training.console import LINE_PROGRESS, LINE_SECONDS, REFRESH, WIDTH
from pgrad.training.screen import Screen
from pgrad.training.shown import duration, number, rate

STEPS, UPDATES = "time/total_timesteps", "train/n_updates"
RETURNS = {
    "rollout/ep_rew_mean": "return",
    "train/accuracy": "accuracy",
    "train/log_likelihood": "likelihood",
}
"""What is shown of a run: the first of these that it has."""

ROWS = 16
"""Of more runs than these only those are shown that are under way."""


class Scoreboard:
    """Shows the progress of several runs, between `with` and its end.

    names, totals: what the runs are called, and their steps. before: of those, the steps that were done
    earlier; none if not given. together: whether they differ in their seed only, so that they have a mean.
    """

    def __init__(
        self,
        names: Sequence[str],
        totals: Sequence[int],
        title: str = "",
        *,
        before: Sequence[int] = (),
        together: bool = True,
        enabled: bool = True,
        file: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.names, self.totals, self.title, self.together = names, totals, title, together
        self._before = list(before) or [0] * len(names)
        self._states = ["waits"] * len(names)
        self._rows: list[dict[str, float]] = [{} for _ in names]  # the newest of each
        self._clock = clock
        self._began = self._shown_at = clock()
        self._shown_part = -1.0
        self._screen = Screen(self._picture, enabled, file)

    def hear(self, k: int, row: Mapping[str, float]) -> None:
        """Take a row of metrics of run k."""
        self._rows[k].update(row)
        self._states[k] = "trains"

    def say(self, k: int, state: str) -> None:
        """Note what run k does: waits, starts, trains, done, stopped, failed."""
        self._states[k] = state
        if not self._screen.live and state == "done":
            self._screen.line(f"{self.names[k]:>{max(map(len, self.names))}}  done  {self._told(k)}".rstrip())

    def message(self, text: str) -> None:
        """Print a line."""
        self._screen.message(text)

    def refresh(self) -> None:
        """Show how things are, when it is time to."""
        now, part = self._clock(), self._part()
        if self._screen.live:
            if now - self._shown_at >= REFRESH:
                self._shown_at = now
                self._screen.refresh()
        elif any(self._rows) and (
            self._shown_part < 0
            or part - self._shown_part >= LINE_PROGRESS
            or now - self._shown_at >= LINE_SECONDS
        ):
            self._shown_at, self._shown_part = now, part
            counts = f"{part:4.0%}  {self._count('done')} of {len(self.names)} done"
            self._screen.line("  ".join(x for x in (counts, self._mean(), self._left()) if x))

    def __enter__(self) -> Self:
        self._screen.start(self.title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._screen.stop()

    def _count(self, state: str) -> int:
        return self._states.count(state)

    def _share(self, k: int) -> float:
        steps = self._rows[k].get(STEPS, self._before[k])
        return 1.0 if self._states[k] == "done" else min(steps / self.totals[k], 1.0)

    def _steps(self) -> float:
        """How many of all steps are done."""
        return sum(self._share(k) * total for k, total in enumerate(self.totals))

    def _part(self) -> float:
        """The share of all steps that are done."""
        return self._steps() / max(sum(self.totals), 1)

    def _left(self) -> str:
        """The time that what is left takes, if it takes as long as what was done since the beginning here.

        Not told while a run only fills its replay.
        """
        runs = zip(self._states, self._rows, strict=True)
        if any(state == "trains" and row.get(UPDATES) == 0 for state, row in runs):
            return ""
        steps = self._steps()
        done = steps - sum(map(min, self._before, self.totals))
        rest = (sum(self.totals) - steps) * (self._clock() - self._began)
        return f"left {duration(rest / done)}" if done > 0 else ""

    def _value(self, k: int) -> tuple[str, float] | None:
        """What run k has come to: the name and the number."""
        known = self._rows[k]
        return next(((name, known[key]) for key, name in RETURNS.items() if key in known), None)

    def _told(self, k: int) -> str:
        found = self._value(k)
        return "" if found is None else f"{found[0]} {number(found[1])}"

    def _mean(self) -> str:
        """The mean over the runs that there are numbers of, and where there are two its interval."""
        found = [value for k in range(len(self.names)) if (value := self._value(k)) is not None]
        if not found or not self.together:
            return ""
        values = [value for _, value in found]
        text = f"mean {found[0][0]} {number(sum(values) / len(values))}"
        if len(values) == 1:
            return text
        low, high = bootstrap_interval(values)
        return f"{text} [{number(low)}, {number(high)}]"

    def _picture(self) -> RenderableType:
        width = min(self._screen.width, WIDTH)
        table = Table.grid(padding=(0, 2))
        table.width = width
        table.add_column(no_wrap=True, style="dim")
        table.add_column(ratio=1)
        for _ in range(3):
            table.add_column(justify="right", no_wrap=True)
        under_way = [k for k, state in enumerate(self._states) if state in ("starts", "trains")]
        for k in under_way if len(self.names) > ROWS else range(len(self.names)):
            speed = rate(self._rows[k]["time/fps"]) + " steps/s" if "time/fps" in self._rows[k] else ""
            state = speed if self._states[k] == "trains" else self._states[k]
            share = self._share(k)
            table.add_row(
                self._screen.encodable(self.names[k]),
                ProgressBar(total=1.0, completed=share),
                f"{share:4.0%}",
                self._told(k),
                state,
            )
        counts = f"{self._count('done')} of {len(self.names)} done"
        last = "  ".join(x for x in (counts, self._mean(), self._left()) if x)
        title = Text(self._screen.encodable(self.title), style="bold", no_wrap=True, overflow="ellipsis")
        return Group(title, table, Text(self._screen.encodable(last), no_wrap=True, overflow="ellipsis"))
