"""Calls with a time-out, of plain functions and of coroutines."""

import asyncio
import concurrent.futures
import functools
import inspect
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pgrad.stopping import Stop

POLL = 0.2  # seconds between two looks at whether the wait is to be given up


class Outcome(NamedTuple):
    """What a call came to: a value, or what it raised; TimeoutError where it did not end."""

    value: Any
    error: BaseException | None


Wait = Callable[[Stop], Outcome]


class Caller:
    """Makes calls beside the thread that asks, and stops waiting for them.

    Plain functions get a thread each. A thread cannot be stopped: one that hangs keeps its place, and its
    processor if it computes, until the process ends (it does not keep the process from ending). A function
    that hangs inside C code that holds Python's lock, such as `re` on a bad pattern, holds up everything,
    this time-out included: `Isolated` is for those. Coroutines share one event loop, made for the first one,
    and are cancelled; where one blocks the loop, it is abandoned and the next call gets a new one.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, function: Callable[..., Any], arguments: dict[str, Any], timeout: float) -> Wait:
        """Begin a call; what is returned waits for its end, at most `timeout` seconds from now."""
        if is_async(function):
            return self._coroutine(function, arguments, timeout)
        return _thread(function, arguments, timeout)

    def close(self) -> None:
        """End the event loop."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None

    def _coroutine(self, function: Callable[..., Any], arguments: dict[str, Any], timeout: float) -> Wait:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=_run, args=(self._loop,), daemon=True).start()
        loop = self._loop

        async def limited() -> Any:
            async with asyncio.timeout(timeout):
                return await function(**arguments)

        future = asyncio.run_coroutine_threadsafe(limited(), loop)
        deadline = time.monotonic() + timeout + 1.0  # a little later than the loop's own, which can cancel

        def wait(stop: Stop) -> Outcome:
            while not future.done() and (left := deadline - time.monotonic()) > 0.0:
                concurrent.futures.wait([future], min(left, POLL))
                if not future.done():  # an answer that is there is paid for
                    stop()
            try:
                return Outcome(future.result(0.0), None)
            except BaseException as error:  # SystemExit too: it is the reward that failed
                if isinstance(error, KeyboardInterrupt):
                    raise
                if not future.done():
                    self.close()
                    error = TimeoutError()
                return Outcome(None, error)

        return wait


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: an async function, also behind a partial or as a method."""
    while isinstance(function, functools.partial):
        function = function.func
    called = getattr(function, "__call__", None)  # noqa: B004  the method itself, not whether there is one
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def where(error: BaseException, function: Callable[..., Any]) -> str:
    """Where in the function's own file an exception was raised or called for, as " (file.py:3)"; or ""."""
    while isinstance(function, functools.partial):
        function = function.func
    own = inspect.unwrap(function)
    code = getattr(own, "__code__", None) or getattr(type(own).__call__, "__code__", None)
    file = getattr(code, "co_filename", None)
    passed = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in passed if frame.f_code.co_filename == file]
    return f" ({Path(file).name}:{lines[-1]})" if file and lines else ""


def _thread(function: Callable[..., Any], arguments: dict[str, Any], timeout: float) -> Wait:
    outcome = [Outcome(None, TimeoutError())]

    def call() -> None:
        try:
            outcome[0] = Outcome(function(**arguments), None)
        except BaseException as error:  # SystemExit too: it is the reward that failed
            outcome[0] = Outcome(None, error)

    thread = threading.Thread(target=call, daemon=True)
    deadline = time.monotonic() + timeout
    thread.start()

    def wait(stop: Stop) -> Outcome:
        while thread.is_alive() and (left := deadline - time.monotonic()) > 0.0:
            thread.join(min(left, POLL))
            if thread.is_alive():  # an answer that is there is paid for
                stop()
        return outcome[0]

    return wait


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
