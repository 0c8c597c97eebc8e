"""How a training is stopped in the middle of something: by asking, where nothing is half done."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(Exception):  # noqa: N818  it is none
    """A training was asked to stop, and does so here: what was begun is undone or kept, never half of it."""


Stop = Callable[[], None]
"""Called wherever work can be left exactly, at least every second; raises Stopped if that is wanted."""


def go_on() -> None:
    """The `Stop` of what nobody stops."""


@contextmanager
def signals_later() -> Iterator[None]:
    """Keep signals that ask to stop from this thread, and from the programs that it starts, until the end."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
