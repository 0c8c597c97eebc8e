"""What a worker process does."""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

import cloudpickle

from pgrad.environments.batch import Environments
from pgrad.environments.create import error_line
from pgrad.environments.shared import MESSAGE, STEP, Board, Form, acquire, attach, board
from pgrad.environments.spaces import Array
from pgrad.errors import PgradError, UsageError, WorldError
from pgrad.processes import THREADS

ERRORS: dict[str, type[PgradError]] = {"UsageError": UsageError, "WorldError": WorldError}

SPIN = 300e-6
"""Seconds a worker looks out for the next step before it sleeps: about as long as an agent takes to act."""

Answer = tuple[str | None, Any]  # (None, value) or (type of the error, text)


def serve(
    connection: Connection,
    go: Any,
    done: Any,
    source: bytes,
    seeds: list[int],
    first: int,
    environment: dict[str, str],
) -> None:
    """Say what the environments are, then do what is asked for each time that `go` is released.

    A message (command, arguments) is answered by a message; a step through the shared memory, then `done` is
    released. Ctrl-C and SIGTERM often reach every process of a run: they are for the parent to handle. A
    worker ends when the parent's end of the connection is closed, by the parent or by its death.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.environ.update(environment | THREADS)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        kind, envs = _attempt(lambda: Environments(cloudpickle.loads(source), seeds, first=first))
        if kind is not None:
            connection.send((kind, envs))
            return
        try:
            connection.send((None, (envs.name, envs.observation_space, envs.action_space)))
            _Worker(envs, connection).work(go, done)
        finally:
            with suppress(Exception):
                envs.close()


def _attempt(call: Callable[[], Any]) -> Answer:
    try:
        return None, call()
    except Exception as error:
        kind = type(error).__name__ if type(error).__name__ in ERRORS else "WorldError"
        return kind, str(error) if isinstance(error, PgradError) else error_line(error)


class _Worker:
    """Some of the environments, and where their part of the shared arrays is."""

    def __init__(self, envs: Environments, connection: Connection) -> None:
        self._envs, self._connection = envs, connection
        self._place = 0  # which worker this is
        self._part = slice(0)  # its environments
        self._board: Board | None = None
        self._actions: list[Array] = []

    def work(self, go: Any, done: Any) -> None:
        """Until the connection is closed, which raises EOFError."""
        while True:
            while not acquire(go, SPIN, 1.0):
                if self._connection.poll():  # nothing is sent unasked: the parent is gone
                    self._connection.recv()
            seen = self._board
            if seen is None or seen.call[self._place] == MESSAGE:
                command, arguments = self._connection.recv()
                self._connection.send(_attempt(partial(getattr(self, command), *arguments)))
                continue
            active = None if seen.call[self._place] == STEP else seen.active
            answer = _attempt(partial(self._step, seen, active))
            seen.failed[self._place] = answer[0] is not None
            done.release()
            if answer[0] is not None:
                self._connection.send(answer)

    def share(self, forms: Sequence[Form], place: int, part: slice) -> None:
        """Find the board: its descriptor comes next."""
        self._place, self._part = place, part
        self._board = board(attach(recv_handle(self._connection), forms), part)

    def share_actions(self, forms: Sequence[Form]) -> None:
        """Find the actions: their descriptor comes next."""
        self._actions = [x[self._part] for x in attach(recv_handle(self._connection), forms)]

    def reset(self, group: int) -> bool:
        """Whether the environments forbid actions."""
        self._envs.reset(group)
        return self._begun()

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Whether the environments forbid actions."""
        self._envs.load_state_dict(state)
        return self._begun()

    def state_dict(self) -> Any:
        """That of these environments."""
        return self._envs.state_dict()

    def render(self) -> Any:
        """A picture of the first of them."""
        return self._envs.render()

    def _begun(self) -> bool:
        assert self._board is not None
        self._show(self._board)
        return self._envs.masks.given

    def _step(self, board: Board, active: Array | None) -> None:
        self._envs.step(self._actions, active)
        self._show(board)

    def _show(self, board: Board) -> None:
        envs = self._envs
        for shared, x in zip(board.obs, envs.obs, strict=True):
            shared[:] = x
        if envs.masks.given:
            board.allowed[:] = envs.masks.rows
        board.reward[:] = envs.reward
        board.flags[:] = envs.flags
