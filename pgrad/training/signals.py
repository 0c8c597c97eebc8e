"""Ctrl-C and SIGTERM as a request: the loop finishes its iteration, saves, and exits with the usual code."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class StopOnSignal:
    """In a `with` statement, the first SIGINT or SIGTERM only sets `requested` to its number.

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
        """128 + the signal's number, as shells count: 130 for Ctrl-C, 143 for SIGTERM; 0 without a signal."""
        return 0 if self.requested is None else 128 + self.requested

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
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

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _in_worker(number: int) -> None:
    """A forked worker inherits the handler: Ctrl-C is for its parent, SIGTERM is its parent's and ends it."""
    if number == signal.SIGTERM:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
