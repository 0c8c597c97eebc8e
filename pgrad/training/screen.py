"""Where progress is shown: a picture that is drawn again in place on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Callable
from typing import TextIO

import rich.console
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text


class Screen:
    """Draws what `picture()` returns, or prints lines where no cursor can move; nothing unless `enabled`.

    What the terminal's encoding lacks becomes "?". A stdout that went away only ends the showing.
    """

    def __init__(
        self, picture: Callable[[], RenderableType], enabled: bool = True, file: TextIO | None = None
    ) -> None:
        self.enabled = enabled
        self._file = sys.stdout if file is None else file
        self._console = rich.console.Console(file=file, highlight=False)
        self._picture = picture
        self._live: Live | None = None
        self.live = enabled and self._file.isatty() and not self._console.is_dumb_terminal
        """whether there is a picture; there are lines otherwise"""

    @property
    def width(self) -> int:
        """Characters of a line."""
        return self._console.width

    def start(self, title: str) -> None:
        """Draw the first picture; where there are lines instead, `title` is the first, unless it is empty."""
        if self.live:
            self._live = Live(console=self._console, auto_refresh=False, get_renderable=self._picture)
            self._safely(self._live.start, True)
        elif title:
            self.line(title)

    def refresh(self) -> None:
        """Draw the picture as it is now."""
        if self._live is not None:
            self._safely(self._live.refresh)

    def stop(self) -> None:
        """Draw the last picture and leave it standing."""
        if self._live is not None:
            self._safely(self._live.stop)
        self._live, self.live = None, False

    def message(self, text: str) -> None:
        """Print a line, above the picture where there is one."""
        if not self.live:
            self.line(text)
        elif self.enabled:
            self._safely(self._console.print, Text(self.encodable(text)))

    def line(self, text: str) -> None:
        """Print a plain line."""
        if self.enabled:
            self._safely(print, self.encodable(text), file=self._file, flush=True)

    def encodable(self, text: str) -> str:
        """The text with "?" for what the terminal's encoding lacks."""
        encoding = getattr(self._file, "encoding", None) or "utf-8"
        return text.encode(encoding, "replace").decode(encoding)

    def _safely(self, show: Callable[..., object], *args: object, **options: object) -> None:
        try:
            show(*args, **options)
        except (OSError, ValueError):  # the reader of a pipe ended, the terminal or the file was closed
            self.enabled = False
