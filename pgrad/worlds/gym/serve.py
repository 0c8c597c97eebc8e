"""What a worker process does, and what travels between it and its parent."""

import os
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import Tensor

from pgrad.data.tree import leaves
from pgrad.errors import PgradError, UsageError, WorldError
from pgrad.worlds.gym.create import error_line
from pgrad.worlds.gym.gymnasium import GymnasiumWorld
from pgrad.worlds.protocol import Step

THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Environment variables of a worker: many small processes, one thread each."""

ERRORS: dict[str, type[PgradError]] = {"UsageError": UsageError, "WorldError": WorldError}


def serve(
    connection: Connection, source: bytes, seeds: list[int], first: int, environment: dict[str, str]
) -> None:
    """Answer each (command, arguments) with (None, value) or (type of the error, text).

    Ctrl-C and SIGTERM often reach every process of a run: they are for the parent to handle. A worker ends
    when the parent's end of the connection is closed, by the parent or by its death.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ.update(environment | THREADS)
    torch.set_num_threads(1)
    world: GymnasiumWorld | None = None
    command, arguments = "", ()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            try:
                if world is None:
                    world = GymnasiumWorld(cloudpickle.loads(source), seeds, first=first)
                    value: Any = (world.name, world.observation_space, world.action_space)
                else:
                    value = _answer(world, command, arguments)
                answer: tuple[str | None, Any] = (None, value)
            except Exception as error:
                kind = type(error).__name__ if type(error).__name__ in ERRORS else "WorldError"
                answer = (kind, str(error) if isinstance(error, PgradError) else error_line(error))
            connection.send(answer)
            command, arguments = connection.recv()
    if world is not None:
        with suppress(Exception):
            world.close()


def _answer(world: GymnasiumWorld, command: str, arguments: tuple[Any, ...]) -> Any:
    if command == "state_dict":
        return to_numpy(world.state_dict())
    if command == "render":
        return world.render()
    if command == "step":
        action, active = to_tensors(arguments)
        step = world.step(action, active)
    else:
        obs = getattr(world, command)(*to_tensors(arguments))
        off = torch.zeros(world.n_envs, dtype=torch.bool)
        step = Step(obs, torch.zeros(world.n_envs), off, off)
    return [x.numpy() for x in (*leaves(step.obs), *step[1:], world.ended)]


def to_numpy(value: Any) -> Any:
    """A nested value with arrays for tensors, which would travel through shared memory otherwise."""
    if isinstance(value, dict):
        return {key: to_numpy(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(to_numpy(part) for part in value)
    if isinstance(value, Tensor):
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return value


def to_tensors(value: Any) -> Any:
    """The inverse of `to_numpy`."""
    if isinstance(value, dict):
        return {key: to_tensors(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(to_tensors(part) for part in value)
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
