"""What a person sees of a training: a live table on a terminal, plain lines elsewhere, nothing when quiet."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pgrad.training.screen import Screen
from pgrad.training.shown import (
    DOING,
    LEARNING,
    LINE,
    READING,
    SCORING,
    SPOKEN,
    Columns,
    duration,
    one_line,
    times,
)

REFRESH = 0.5  # seconds between two pictures of the live table
LINE_PROGRESS, LINE_SECONDS = 0.05, 10.0  # a plain line at each of these, whichever comes first
WIDTH, TWO_COLUMNS = 80, 56  # the table is at most this wide; narrower than that it has one column
RECENT = 10  # metrics over which the speed is taken that tells how much time is left
SAMPLES = 2  # completions under the table


class Console:
    """Shows the progress of one run, between `with` and its end.

    start: the timesteps done before, when a run is continued. learning_starts: those that only fill a replay,
    and tell nothing of the time that learning takes. enabled: False prints nothing at all. Without a
    terminal that can move its cursor there are plain lines. A stdout that went away does not stop a training.
    """

    def __init__(
        self,
        total_timesteps: int,
        title: str = "",
        enabled: bool = True,
        start: int = 0,
        learning_starts: int = 0,
        file: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total_timesteps, self.start = total_timesteps, start
        self._learning_starts = learning_starts
        self._screen = Screen(self._picture, enabled, file)
        self.title = self._screen.encodable(title)
        self._clock = clock
        self._began = self._shown_at = clock()
        self._timesteps = self._shown_timesteps = start
        self._marks = deque([(self._began, start)], maxlen=RECENT + 1)  # when it had come how far
        self._metrics: dict[str, float] = {}  # the newest value of each
        self._unprinted: dict[str, float] = {}  # those since the last plain line
        self._samples: Sequence[Mapping[str, Any]] = ()
        self._lines = 0
        self._closed = False

    def update(
        self,
        timesteps: int,
        metrics: Mapping[str, float] | None = None,
        samples: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Note how far the run is, and new metrics where there are any; shown when it is time to.

        samples: completions to show under the table, each with its prompt and reward.
        """
        self._timesteps = timesteps
        if not self._screen.enabled or self._closed:
            return
        now = self._clock()
        if timesteps < self._learning_starts:
            self._marks.clear()
        if metrics or not self._marks:
            self._marks.append((now, timesteps))
        if metrics:
            self._metrics.update(metrics)
            self._unprinted.update(metrics)
        self._samples = samples or self._samples
        if self._screen.live:
            if now - self._shown_at >= REFRESH:
                self._shown_at = now
                self._screen.refresh()
        elif self._unprinted:
            progress = (timesteps - self._shown_timesteps) / max(self.total_timesteps, 1)
            if self._lines == 0 or progress >= LINE_PROGRESS or now - self._shown_at >= LINE_SECONDS:
                self._print_line()

    def message(self, text: str) -> None:
        """Print a line, above the live table where there is one."""
        self._screen.message(text)

    def close(self) -> None:
        """Show the last state and leave it standing."""
        self._closed = True
        if not self._screen.live and self._unprinted:
            self._print_line()
        elif not self._screen.live and self._lines:
            self._screen.line(" ".join(self._time()))
        self._screen.stop()

    def __enter__(self) -> Self:
        self._screen.start(self.title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _time(self) -> tuple[str, str]:
        """What to say of time: what is left if it goes on as lately, at the end what it took."""
        now = self._clock()
        if self._closed:
            return "took", duration(now - self._began)
        since, first = self._marks[0]
        elapsed, done = now - since, self._timesteps - first
        rest = max(self.total_timesteps - self._timesteps, 0)
        return "left", duration(rest * elapsed / done) if done > 0 else "?"

    def _rows(self, what: Columns) -> list[tuple[str, str]]:
        known = self._metrics
        return [(label, show(known[key])) for label, key, show in what if key in known]

    def _picture(self) -> RenderableType:
        """The title, a progress bar, and the metrics in two columns, or in one on a narrow terminal."""
        width = min(self._screen.width, WIDTH)
        wide = width >= TWO_COLUMNS
        elapsed = ("elapsed", duration(self._clock() - self._began))
        left_side, right_side = (READING, SCORING) if "reward" in self._metrics else (DOING, LEARNING)
        doing, learning = [*self._rows(left_side), elapsed], self._rows(right_side)
        bar = Table.grid(padding=(0, 2))
        bar.width = width
        bar.add_column(ratio=1)
        part = min(self._timesteps / max(self.total_timesteps, 1), 1.0)
        counts = [f"{part:4.0%}", f"{self._timesteps:,}/{self.total_timesteps:,}", " ".join(self._time())]
        for _ in counts if wide else counts[:1]:
            bar.add_column(justify="right", no_wrap=True)
        bar.add_row(ProgressBar(total=1.0, completed=part), *(counts if wide else counts[:1]))
        table = Table.grid(padding=(0, 2), pad_edge=False)
        for _ in range(2 if wide else 1):
            table.add_column(style="dim", no_wrap=True)
            table.add_column(justify="right", no_wrap=True, min_width=12)
            table.add_column(width=2)
        if wide:
            for left, right in zip_longest(doing, learning, fillvalue=("", "")):
                table.add_row(*left, "", *right, "")
        else:
            for row in [("timesteps", counts[1]), self._time(), *doing, *learning]:
                table.add_row(*row, "")
        title = Text(self.title, style="bold", no_wrap=True, overflow="ellipsis")
        said = [line for line in [times(self._metrics)] if line]
        said += [one_line(sample, width) for sample in self._samples[-SAMPLES:]]
        shown = [
            Text(self._screen.encodable(text), style="dim", no_wrap=True, overflow="ellipsis")
            for text in said
        ]
        return Group(title, bar, table, *shown)

    def _print_line(self) -> None:
        """One row of metrics, aligned with the rows before it."""
        total = str(self.total_timesteps)
        parts = [f"{self._timesteps:>{len(total)}}/{total}"]
        known, line = self._unprinted, SPOKEN if "reward" in self._unprinted else LINE
        parts += [t.format(f"{show(known[k]):>{n}}") for t, k, n, show in line if k in known]
        self._screen.line("  ".join([*parts, " ".join(self._time())]))
        self._lines += 1
        self._shown_at, self._shown_timesteps = self._clock(), self._timesteps
        self._unprinted = {}
