"""One function that makes a world from whatever names or makes environments."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import gymnasium
import torch
from gymnasium.vector import VectorEnv

from pgrad.data.room import room_on, size_of, too_large
from pgrad.environments.atari import FRAMES, is_preprocessed
from pgrad.environments.create import Recipe, find
from pgrad.environments.history import environment_seeds
from pgrad.errors import UsageError
from pgrad.worlds.buffers import zeros
from pgrad.worlds.gym.envpool import PREFIX, EnvPool, is_envpool
from pgrad.worlds.gym.gymnasium import GymnasiumWorld
from pgrad.worlds.gym.vector import VectorWorld
from pgrad.worlds.gym.workers import WorkerWorld
from pgrad.worlds.protocol import World
from pgrad.worlds.stacked import StackedWorld


def make(
    world: str | Callable[..., gymnasium.Env] | VectorEnv | World | Any,
    *,
    n_envs: int = 1,
    seed: int = 0,
    workers: int = 0,
    frame_stack: int = 0,
    device: torch.device | str = "cpu",
    render: bool = False,
    kwargs: dict[str, Any] | None = None,
) -> World:
    """A world of `n_envs` environments.

    world: a tensor world ("cartpole", "probe-both"), a Gymnasium id ("CartPole-v1", "ALE/Pong-v5",
        "module:Name-v0"), a task of EnvPool ("envpool:HalfCheetah-v4"), a factory of a gymnasium.Env, the
        Dynamics of a tensor world (such as a Tabular), a gymnasium.vector.VectorEnv, or a World, which is
        returned as it is.
    seed: environment i draws from the i-th child of this seed.
    workers: how many processes share the environments (threads, in EnvPool); 0 steps them here. The numbers
        are the same for any.
    frame_stack: how many observations are shown together; 0 for what is usual: 4 for Atari games, else 1.
    device: where observations and rewards are handed out.
    render: make environments that can draw a picture of themselves (for `World.render`).
    kwargs: further arguments for the environment; for a tensor world the numbers of its dynamics.

    Raises UsageError for an unknown name (with the nearest ones), a missing extra, wrong arguments or spaces.
    """
    if isinstance(world, gymnasium.Env) and not isinstance(world, VectorEnv):  # EnvPool's are both
        raise UsageError(
            f"got one environment ({world}): give its id, or a function that makes it, for n_envs of it"
        )
    if not isinstance(world, str | VectorEnv) and isinstance(world, World):
        if frame_stack > 1:
            raise UsageError(f"{world.name} is a world already: leave out frame_stack")
        return world
    _check(n_envs=(n_envs, 1), seed=(seed, 0), workers=(workers, 0), frame_stack=(frame_stack, 0))
    made = _make(world, n_envs, seed, workers, frame_stack, device, render, dict(kwargs or {}))
    k = frame_stack or usual_stack(world, kwargs)
    if k == 1:
        return made
    try:
        _require_room(made, k)
    except UsageError:
        made.close()
        raise
    return StackedWorld(made, k)


def _require_room(world: World, k: int) -> None:
    """Raise UsageError where `k` observations of every environment are more than fits into memory."""
    with torch.device("meta"):
        frame = size_of(zeros(world.observation_space, world.n_envs))
    if k * frame > (room := room_on(world.device)):
        what = f"frame_stack {k} for {world.n_envs} environments"
        raise UsageError(too_large(what, k * frame, world.device, f"frame_stack {int(room / frame)}"))


def usual_stack(world: Any, kwargs: dict[str, Any] | None) -> int:
    """How many observations are shown together where nobody says."""
    return FRAMES if plays_atari(world, kwargs) else 1


def plays_atari(world: Any, kwargs: dict[str, Any] | None) -> bool:
    """Whether `make` would make an Atari game of this that is preprocessed (see `gym/atari.py`)."""
    spec = gymnasium.registry.get(world.rpartition(":")[2]) if isinstance(world, str) else None
    return is_preprocessed(spec, dict(kwargs or {}))


def _make(
    world: Any,
    n_envs: int,
    seed: int,
    workers: int,
    frame_stack: int,
    device: torch.device | str,
    render: bool,
    kwargs: dict[str, Any],
) -> World:
    where = _device(device)
    if isinstance(world, VectorEnv):
        if n_envs not in (1, world.num_envs) or workers or kwargs or frame_stack > 1:
            raise UsageError(
                f"a vector environment brings its own {world.num_envs} environments, workers and arguments: "
                f"leave out n_envs, workers, kwargs and frame_stack"
            )
        return VectorWorld(world, seed=seed, device=where)
    if is_envpool(world):
        _require_workers(workers, n_envs)
        return _make_envpool(world, n_envs, seed, workers, frame_stack, where, kwargs)
    tensor = import_module("pgrad.worlds.tensors.tensor")
    dynamics = tensor.dynamics_of(world) if isinstance(world, str) else world
    if isinstance(dynamics, tensor.Dynamics):
        if workers:
            raise UsageError(f"{dynamics.name} is one tensor program: it takes no workers")
        settings = import_module("pgrad.worlds.tensors.settings")
        program: World = tensor.TensorWorld(settings.with_settings(dynamics, kwargs), n_envs, seed, where)
        return program
    if isinstance(world, str):
        tasks = import_module("pgrad.worlds.language.tasks").TASKS
        recipe = Recipe(find(world, (*tensor.TENSOR_WORLDS, *tasks)), kwargs, render)
    elif callable(world):
        recipe = Recipe(world, kwargs, render)
    else:
        raise UsageError(
            f"a world is an id, a factory, a Dynamics, a VectorEnv or a World, got a {type(world).__name__}"
        )
    _require_workers(workers, n_envs)
    seeds = environment_seeds(seed, n_envs)
    if workers:
        return WorkerWorld(recipe, seeds, workers, device=where)
    return GymnasiumWorld(recipe, seeds, device=where)


def _make_envpool(
    name: str,
    n_envs: int,
    seed: int,
    workers: int,
    frame_stack: int,
    device: torch.device,
    kwargs: dict[str, Any],
) -> World:
    if frame_stack > 1:
        raise UsageError(f"{name}: EnvPool stacks frames itself, see its stack_num or frame_stack (kwargs)")
    env = EnvPool(name.removeprefix(PREFIX), n_envs, seed, max(1, workers), kwargs)
    return VectorWorld(env, device=device, name=name)


def _require_workers(workers: int, n_envs: int) -> None:
    if workers > n_envs:
        raise UsageError(f"{workers} workers cannot share {n_envs} environments: at most one worker for each")


def _check(**limits: tuple[int, int]) -> None:
    for name, (value, least) in limits.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UsageError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _device(device: torch.device | str) -> torch.device:
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from None
    return where
