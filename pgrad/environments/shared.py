"""Arrays that two processes see, and how one of them waits for the other."""

import math
import mmap
import os
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pgrad.environments.spaces import Array

Form = tuple[tuple[int, ...], np.dtype[Any]]

MESSAGE, STEP, STEP_ACTIVE = 0, 1, 2
"""What a worker is asked for: what the next message says, or a step of all environments or of active ones."""

_LINE = 64  # bytes of a cache line: no two arrays share one


class Board(NamedTuple):
    """What the worker processes and their parent write down for each other, of all B environments."""

    call: Array  # [workers] int64  what each is asked for
    failed: Array  # [workers] bool  whether it did not end well: what was wrong comes as a message
    active: Array  # [B] bool
    allowed: Array  # [B, choices] bool  the action masks
    reward: Array  # [B] float32
    flags: Array  # [3, B] bool  terminated, truncated, ended
    obs: list[Array]  # the parts of the observations, each [B, ...]


def board_forms(workers: int, n_envs: int, choices: int, obs: Sequence[Array]) -> list[Form]:
    """The forms of the arrays of a `Board`, in its order."""
    yes, number, count = np.dtype(np.bool_), np.dtype(np.float32), np.dtype(np.int64)
    fixed: list[Form] = [((workers,), count), ((workers,), yes), ((n_envs,), yes), ((n_envs, choices), yes)]
    return [*fixed, ((n_envs,), number), ((3, n_envs), yes), *forms_of(obs)]


def board(arrays: Sequence[Array], part: slice = slice(None)) -> Board:
    """The board in arrays of `board_forms`, as far as it is of the environments in `part`."""
    call, failed, active, allowed, reward, flags, *obs = arrays
    mine = active[part], allowed[part], reward[part], flags[:, part]
    return Board(call, failed, *mine, [x[part] for x in obs])


def forms_of(arrays: Sequence[Array]) -> list[Form]:
    """Shape and dtype of each."""
    return [(x.shape, x.dtype) for x in arrays]


def reserve(forms: Sequence[Form]) -> int:
    """A file descriptor of memory for arrays of these forms. It has no name, so nothing can be left of it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pgrad")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _LINE + sum(_room(form) for form in forms))
    return descriptor


def attach(descriptor: int, forms: Sequence[Form]) -> list[Array]:
    """The arrays in that memory, zeros at first. Closes the descriptor: the arrays keep the memory."""
    try:
        memory = mmap.mmap(descriptor, 0)
    finally:
        os.close(descriptor)
    starts = np.cumsum([0, *(_room(form) for form in forms)]).tolist()
    return [np.ndarray(*form, memory, start) for form, start in zip(forms, starts[:-1], strict=True)]


def _room(form: Form) -> int:
    shape, dtype = form
    return -(-math.prod(shape) * dtype.itemsize // _LINE) * _LINE


def acquire(semaphore: Any, spin: float, timeout: float) -> bool:
    """Whether `semaphore` was released within `timeout` seconds, the first `spin` of them awake.

    A process that sleeps takes tens of microseconds to wake, as long as many a step of an environment takes.
    Between two looks the core is offered to whoever else wants it.
    """
    if semaphore.acquire(False):
        return True
    end = time.perf_counter() + spin
    while time.perf_counter() < end:
        os.sched_yield()
        if semaphore.acquire(False):
            return True
    return bool(semaphore.acquire(True, timeout))
