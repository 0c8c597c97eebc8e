"""Ctrl-C, SIGTERM and a closed terminal as a request: training stops soon, saves, and exits as usual."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What asks for a stop: Ctrl-C, a scheduler, a terminal that is closed (which not every system tells)."""


class StopOnSignal:
    """In a `with` statement, the first of `SIGNALS` only sets `requested` to its number.

    A SIGINT after that stops at once, with KeyboardInterrupt. Poll `requested` in every loop that takes
    long. The earlier handlers are back at the end. Does nothing outside the main thread, where Python
    handles no signals, nor for a signal that the program was started to ignore (as a shell's background
    job).
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells count: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP; 0 without one."""
        return 0 if self.requested is None else 128 + self.requested

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            _in_worker(number)
        elif self.requested is not None and number == signal.SIGINT:
            self._restore()
            raise KeyboardInterrupt
        elif self.requested is None:
            self.requested = number
            if number not in (signal.SIGINT, signal.SIGTERM):
                _let_go_of_terminal()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _let_go_of_terminal() -> None:
    """Where the terminal is gone, what is still said goes nowhere, and is no error."""
    for number in (1, 2):
        try:
            os.write(number, b"")
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)


def _in_worker(number: int) -> None:
    """A forked worker inherits the handler: SIGTERM is its parent's and ends it, the rest is not for it."""
    if number == signal.SIGTERM:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
