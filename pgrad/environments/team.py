"""The worker processes of a world: started, asked, heard, and ended whatever they do."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from multiprocessing.util import Finalize
from typing import Any, NoReturn

import cloudpickle

from pgrad.environments.create import Recipe, error_line, simulator
from pgrad.environments.serve import ERRORS, serve
from pgrad.environments.shared import MESSAGE, Board, Form, acquire, attach, reserve
from pgrad.environments.spaces import Array
from pgrad.errors import PgradError, UsageError, WorldError
from pgrad.processes import starting

SPIN = 100e-6
"""Seconds to look out for the end of a step before sleeping."""


class Team:
    """Processes that have a slice of the environments each.

    WorldError tells of one that died or did not answer within `timeout` seconds; all are ended then.
    """

    def __init__(self, recipe: Recipe, seeds: Sequence[int], workers: int, timeout: float) -> None:
        """In slices of nearly the same size. Raises UsageError for a recipe that cannot be sent to them."""
        try:
            source = cloudpickle.dumps(recipe)
        except Exception as error:
            raise UsageError(
                f"{recipe.name} cannot be sent to worker processes, use workers=0: {error_line(error)}"
            ) from error
        self.timeout = timeout
        ends = [(len(seeds) * (k + 1)) // workers for k in range(workers)]
        self.slices = [slice(start, end) for start, end in zip((0, *ends), ends, strict=False)]
        self.processes: list[Any] = []
        self._name = recipe.name
        self._connections: list[Connection] = []
        self._go: list[Any] = []  # one semaphore each: released, a worker looks what it is asked for
        self._done: list[Any] = []  # released by a worker that ended a step
        self._calls: list[Array] = []  # where they are asked for steps, once there is shared memory
        self._closed = ""  # why they cannot be asked any more
        held = self._connections, self.processes, self._go, self._calls
        self._stop = Finalize(self, _stop, held, exitpriority=10)
        try:
            self._start(source, seeds, simulator(recipe))
        except BaseException:
            self._stop()
            raise

    def _start(self, source: bytes, seeds: Sequence[int], also: Sequence[str]) -> None:
        with starting(serve.__module__, *also) as context:
            for part in self.slices:
                mine, theirs = context.Pipe()
                go, done = context.Semaphore(0), context.Semaphore(0)
                arguments = (theirs, go, done, source, list(seeds[part]), part.start, dict(os.environ))
                process = context.Process(target=serve, args=arguments, daemon=False)
                process.start()
                theirs.close()
                self._connections.append(mine)
                self._go.append(go)
                self._done.append(done)
                self.processes.append(process)

    def hear(self, which: Sequence[int] | None = None) -> list[Any]:
        """One message from each worker; all are read before the first error among them is raised."""
        answers = []
        deadline = time.monotonic() + self.timeout
        for k in range(len(self.slices)) if which is None else which:
            try:
                if not self._connections[k].poll(max(0.0, deadline - time.monotonic())):
                    self._fail(k, f"did not answer within {self.timeout:g} s")
                answers.append(self._connections[k].recv())
            except (EOFError, ConnectionResetError):
                self._fail(k, self._death(k))
        for kind, value in answers:
            if kind is not None:
                raise ERRORS[kind](value)
        return [value for _, value in answers]

    def ask(self, command: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What each worker that there are arguments for answers to a command."""
        with self._whole():
            for k, argument in enumerate(arguments):
                self._send(k, (command, argument))
            return self.hear(range(len(arguments)))

    def _send(self, k: int, message: Any, memory: int | None = None) -> None:
        """Ask worker k something, or show it memory by its file descriptor."""
        self._require_open()
        for calls in self._calls:
            calls[k] = MESSAGE
        self._go[k].release()
        try:
            self._connections[k].send(message)
            if memory is not None:
                send_handle(self._connections[k], memory, self.processes[k].pid)
        except (BrokenPipeError, ConnectionResetError, EOFError):
            self._fail(k, self._death(k))

    def share(self, command: str, forms: Sequence[Form], arguments: Sequence[tuple[Any, ...]]) -> list[Array]:
        """New arrays of these forms, which all workers see; `command` tells them, with arguments for each."""
        memory = reserve(forms)
        try:
            with self._whole():
                for k, argument in enumerate(arguments):
                    self._send(k, (command, (forms, *argument)), memory)
                self.hear()
        except BaseException:
            os.close(memory)
            raise
        return attach(memory, forms)

    def step(self, what: int, board: Board) -> None:
        """Let all workers step (STEP or STEP_ACTIVE) and wait; then raise the first error among them."""
        self._require_open()
        if not self._calls:
            self._calls.append(board.call)
        deadline = time.monotonic() + self.timeout
        with self._whole():
            board.call[:] = what
            for go in self._go:
                go.release()
            for k, done in enumerate(self._done):
                while not acquire(done, SPIN, 0.1):
                    self._require_alive(k, deadline)
            if board.failed.any():
                self.hear(board.failed.nonzero()[0].tolist())

    def close(self) -> None:
        """End the processes, within seconds whatever they do."""
        self._closed = self._closed or "the world is closed"
        self._stop()

    def _require_open(self) -> None:
        if self._closed:
            raise WorldError(f"{self._name}: {self._closed}")

    def _require_alive(self, k: int, deadline: float) -> None:
        if not self.processes[k].is_alive():
            self._fail(k, self._death(k))
        if time.monotonic() > deadline:
            self._fail(k, f"did not answer within {self.timeout:g} s")

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """What is interrupted inside cannot go on: answers may still be under way."""
        try:
            yield
        except PgradError:
            raise
        except BaseException:
            self._closed = self._closed or "the world was interrupted in the middle of a step"
            self._stop()
            raise

    def _death(self, k: int) -> str:
        self.processes[k].join(5.0)
        code = self.processes[k].exitcode
        if code is None or code >= 0:
            return f"ended with exit code {code}"
        often = ", often out of memory" if -code == signal.SIGKILL else ""
        return f"was killed by signal {-code} ({signal.Signals(-code).name}{often})"

    def _fail(self, k: int, what: str) -> NoReturn:
        part = self.slices[k]
        who = f"worker {k} (pid {self.processes[k].pid}, environments {part.start} to {part.stop - 1})"
        self._closed = self._closed or f"{who} {what}"
        self._stop()
        raise WorldError(f"{self._name}: {self._closed}")


def _stop(connections: list[Connection], processes: list[Any], go: list[Any], calls: list[Array]) -> None:
    """End the workers: woken, they look for a message and find the end of the connection."""
    for call in calls:
        call[:] = MESSAGE
    for connection in connections:
        connection.close()
    for semaphore in go:
        semaphore.release()
    deadline = time.monotonic() + 2.0
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join(5.0)
