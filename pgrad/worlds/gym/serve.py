"""What a worker process does, and what travels between it and its parent."""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import Tensor

from pgrad.data.masked import Masked, bare
from pgrad.data.tree import Tree, leaves, map_tree
from pgrad.errors import PgradError, UsageError, WorldError
from pgrad.worlds.gym.create import error_line
from pgrad.worlds.gym.gymnasium import GymnasiumWorld
from pgrad.worlds.gym.shared import MESSAGE, STEP, Board, Form, acquire, attach, board
from pgrad.worlds.processes import THREADS
from pgrad.worlds.protocol import Step

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
    torch.set_num_threads(1)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        kind, world = _attempt(lambda: GymnasiumWorld(cloudpickle.loads(source), seeds, first=first))
        if kind is not None:
            connection.send((kind, world))
            return
        try:
            connection.send((None, (world.name, world.observation_space, world.action_space)))
            _Worker(world, connection).work(go, done)
        finally:
            with suppress(Exception):
                world.close()


def _attempt(call: Callable[[], Any]) -> Answer:
    try:
        return None, call()
    except Exception as error:
        kind = type(error).__name__ if type(error).__name__ in ERRORS else "WorldError"
        return kind, str(error) if isinstance(error, PgradError) else error_line(error)


class _Worker:
    """Some of the environments, and where their part of the shared arrays is."""

    def __init__(self, world: GymnasiumWorld, connection: Connection) -> None:
        self._world, self._connection = world, connection
        self._place = 0  # which worker this is
        self._part = slice(0)  # its environments
        self._board: Board | None = None
        self._action: Tree = None
        self._active = torch.empty(0)

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
            active = None if seen.call[self._place] == STEP else self._active
            answer = _attempt(partial(self._step, active))
            seen.failed[self._place] = answer[0] is not None
            done.release()
            if answer[0] is not None:
                self._connection.send(answer)

    def share(self, forms: Sequence[Form], place: int, part: slice) -> None:
        """Find the board: its descriptor comes next."""
        self._place, self._part = place, part
        self._board = board(attach(recv_handle(self._connection), forms), part)
        self._active = torch.from_numpy(self._board.active)

    def share_actions(self, forms: Sequence[Form], like: Tree) -> None:
        """Find the actions, of the structure of the tree `like`: their descriptor comes next."""
        arrays = iter(attach(recv_handle(self._connection), forms))
        self._action = map_tree(lambda _: torch.from_numpy(next(arrays)[self._part]), to_tensors(like))

    def reset(self, group: int) -> bool:
        """Whether the environments forbid actions."""
        return self._show_obs(self._world.reset(group))

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Whether the environments forbid actions."""
        return self._show_obs(self._world.load_state_dict(to_tensors(state)))

    def state_dict(self) -> Any:
        """That of these environments."""
        return to_numpy(self._world.state_dict())

    def render(self) -> Any:
        """A picture of the first of them."""
        return self._world.render()

    def _step(self, active: Tensor | None) -> None:
        self._show(self._world.step(self._action, active))

    def _show_obs(self, obs: Tree) -> bool:
        off = torch.zeros(self._world.n_envs, dtype=torch.bool)
        self._show(Step(obs, off.float(), off, off))
        return isinstance(obs, Masked)

    def _show(self, step: Step) -> None:
        mine, obs = self._board, step.obs
        assert mine is not None
        for shared, x in zip(mine.obs, leaves(bare(obs)), strict=True):
            shared[:] = x.numpy()
        if isinstance(obs, Masked):
            mine.allowed[:] = obs.allowed.numpy()
        mine.reward[:] = step.reward.numpy()
        for flag, x in zip(mine.flags, (step.terminated, step.truncated, self._world.ended), strict=True):
            flag[:] = x.numpy()


def to_numpy(value: Any) -> Any:
    """A nested value with arrays for tensors, which would travel through shared memory otherwise."""
    if isinstance(value, dict):
        return {key: to_numpy(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(to_numpy(part) for part in value)
    return value.numpy() if isinstance(value, Tensor) else value


def to_tensors(value: Any) -> Any:
    """The inverse of `to_numpy`."""
    if isinstance(value, dict):
        return {key: to_tensors(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(to_tensors(part) for part in value)
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
