"""How a training is stopped in the middle of something: by asking, where nothing is half done."""

from collections.abc import Callable


class Stopped(Exception):  # noqa: N818  it is none
    """A training was asked to stop, and does so here: what was begun is undone or kept, never half of it."""


Stop = Callable[[], None]
"""Called wherever work can be left exactly, at least every second; raises Stopped if that is wanted."""


def go_on() -> None:
    """The `Stop` of what nobody stops."""
