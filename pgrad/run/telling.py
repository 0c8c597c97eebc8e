"""Who is told of a row of metrics: files, the terminal, alarms, the judge of the best state, the caller."""

from collections.abc import Callable, Sequence

from pgrad.run.saver import Saver
from pgrad.training.alarms import Alarms
from pgrad.training.console import Console
from pgrad.training.disk.log import Sink
from pgrad.training.disk.samples import SampleLog
from pgrad.training.loop import Training

Callback = Callable[[dict[str, float]], bool | None]
"""Called with each row of metrics; training ends after the update where it returns False."""


class Telling:
    """Tells everyone of each row, keeps the rows, and whether the callback `wanted` more of them."""

    def __init__(
        self,
        training: Training,
        console: Console,
        alarms: Alarms,
        *,
        sinks: Sequence[Sink],
        samples: SampleLog | None,
        saver: Saver | None,
        callback: Callback | None,
    ) -> None:
        self.rows: list[dict[str, float]] = []
        self.wanted = True
        self._training, self._console, self._alarms = training, console, alarms
        self._sinks, self._samples, self._saver, self._callback = sinks, samples, saver, callback

    def report(self, metrics: dict[str, float]) -> None:
        """Tell a row."""
        timesteps, collector = self._training.timesteps, self._training.collector
        self.rows.append({"time/total_timesteps": float(timesteps), **metrics})
        for sink in self._sinks:
            sink.write(timesteps, metrics)
        samples = getattr(collector, "samples", [])
        if self._samples is not None:
            self._samples.write(timesteps, samples)
        self._console.update(timesteps, metrics, samples)
        self._alarms.hear(metrics, getattr(collector, "failures", {}))
        if self._saver is not None:
            self._saver.judge(metrics)
        self._ask()

    def _ask(self) -> None:
        try:
            self.wanted = self._callback is None or self._callback(self.rows[-1]) is not False
        except Exception:  # the caller's own mistake; what was trained is sound
            if self._saver is not None:
                self._saver.save()
            raise
