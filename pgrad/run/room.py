"""Whether what a training keeps fits into memory: told before anything of it is made."""

from typing import Any

import torch

from pgrad.data import Demonstrations, Episodes, Steps
from pgrad.data.room import room_on, size_of, too_large
from pgrad.errors import UsageError
from pgrad.training.demonstrator import action_zeros
from pgrad.worlds import World
from pgrad.worlds.buffers import zeros

FACTS = 14
"""Bytes of what is kept of a decision beside its observation and its action."""

ENVIRONMENT = 400
"""Bytes that an environment takes at the very least, where it is not a row of tensors."""

MANY = 1024
"""Fewer environments than these are made at once, and what they need is known then."""


def require_room_for_many(n_envs: int, request: Steps | Episodes | Demonstrations, of_tensors: bool) -> None:
    """Raise UsageError for so many environments that whatever they show they would not fit into memory.

    To be asked before they are made, which may take long.
    """
    rows = request.n + 1 if isinstance(request, Steps) else 1
    each = rows * FACTS + (0 if of_tensors else ENVIRONMENT)
    room = room_on(torch.device("cpu"))
    if n_envs >= MANY and n_envs * each > room:
        raise UsageError(
            f"n_envs {n_envs} needs more than {n_envs * each / 1e9:,.1f} GB, this machine has "
            f"{room / 1e9:,.1f} GB to spare: give fewer than {int(room / each)}"
        )


def require_room(
    algorithm: Any,
    request: Steps | Episodes | Demonstrations,
    world: World,
    frames: int,
    device: torch.device,
) -> None:
    """Raise UsageError where a window of the world, or the replay, is larger than the memory of `device`.

    frames: how many observations are shown together.
    """
    with torch.device("meta"):
        seen, done = size_of(zeros(world.observation_space, 1)), size_of(action_zeros(world.action_space))
    row = (seen + done + FACTS) * world.n_envs
    room = room_on(device)
    if isinstance(request, Steps) and (request.n + 1) * row > room:
        window = f"a window of n_steps · n_envs = {request.n} · {world.n_envs} decisions"
        if frames > 1:
            most = int(room / (request.n + 1) / (row / frames))
            what, fits = f"{window}, each with frame_stack = {frames} observations,", f"frame_stack {most}"
        else:
            what, fits = window, f"n_steps {int(room / row) - 1}"
        raise UsageError(too_large(what, (request.n + 1) * row, device, fits))
    capacity = getattr(algorithm, "buffer_size", 0)
    needed = (capacity // world.n_envs + 1) * row
    if capacity and needed > room:
        most = (int(room / row) - 1) * world.n_envs
        raise UsageError(too_large(f"buffer_size {capacity}", needed, device, f"buffer_size {most}"))
