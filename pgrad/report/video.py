"""Videos of an agent at work."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from pgrad.data import map_tree
from pgrad.environments.create import Recipe, create, find
from pgrad.errors import PgradError, UsageError, WorldError
from pgrad.models import Agent
from pgrad.report.evaluate import eval_mode
from pgrad.training.disk.files import reason
from pgrad.worlds import World, make
from pgrad.worlds.make import usual_stack
from pgrad.worlds.tensors.tensor import TENSOR_WORLDS

FPS = 30.0
"""Pictures per second of a world that does not say how many it shows."""

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Recording:
    """A video, with the undiscounted return and the length of each episode that it shows."""

    path: Path
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    complete: bool  # whether the last episode came to its end within `max_steps`


def record(
    agent: Agent,
    world: str | Callable[..., gymnasium.Env],
    path: str | Path,
    *,
    episodes: int = 1,
    deterministic: bool = True,
    seed: int = 0,
    world_kwargs: dict[str, Any] | None = None,
    frame_stack: int = 0,
    fps: float | None = None,
    max_steps: int = 10_000,
) -> Recording:
    """Let `agent` act for some episodes in a world of its own and write an H.264 video (.mp4) of it.

    world: a Gymnasium id, the name of a tensor world, or a factory that takes `render_mode`.
    frame_stack: as the agent was trained with; see `make`.
    fps: pictures per second; None takes the world's own `render_fps`, so that it runs at its true speed.
    max_steps: an episode that is longer ends the video.

    MuJoCo draws without a display through EGL. Raises UsageError where the world has no picture to show or
    the video cannot be written, WorldError where the environment breaks its contract.
    """
    if episodes < 1 or max_steps < 1:
        raise UsageError(f"episodes and max_steps must be at least 1, got {episodes} and {max_steps}")
    target = Path(path)
    if target.suffix.lower() != ".mp4":
        raise UsageError(f"a video is an .mp4 file, got {target}")
    stage, own_fps = _open(world, seed, world_kwargs or {}, frame_stack)
    returns: list[float] = []
    lengths: list[int] = []
    try:
        obs, total, length = stage.reset(), 0.0, 0
        picture = _first_picture(stage)
        with eval_mode(agent), _film(target, picture.shape, fps or own_fps) as show:
            show(picture)
            device = next(agent.parameters()).device
            generator, memory = torch.Generator(device).manual_seed(seed), agent.memory()
            while True:
                with torch.no_grad():
                    policy = agent.step(memory.see(map_tree(lambda x: x.to(device), obs)), memory)
                    action = policy.mode if deterministic else policy.sample(generator)
                step = stage.step(map_tree(lambda x: x.to(stage.device), action))
                show(stage.render())
                obs, total, length = step.obs, total + float(step.reward), length + 1
                over = bool(stage.ended)
                if over or length >= max_steps:
                    returns.append(total)
                    lengths.append(length)
                    if not over or len(returns) == episodes:
                        break
                    obs, total, length, memory = stage.reset(), 0.0, 0, agent.memory()
                    show(stage.render())
    finally:
        stage.close()
    return Recording(target, tuple(returns), tuple(lengths), over)


def _open(world: Any, seed: int, kwargs: dict[str, Any], frame_stack: int) -> tuple[World, float]:
    """One environment that can draw itself, and its pictures per second."""
    if isinstance(world, str) and world in TENSOR_WORLDS:
        return make(world, seed=seed, frame_stack=frame_stack, kwargs=kwargs), FPS
    if isinstance(world, VectorEnv) or not (isinstance(world, str) or callable(world)):
        raise UsageError("a video needs a world of one environment: give its id, or a function that makes it")
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # or pygame complains of the missing display
    recipe = Recipe(find(world, TENSOR_WORLDS) if isinstance(world, str) else world, kwargs, render=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*render_mode")  # it is looked at below
            env = create(recipe)
    except PgradError as error:
        if "render_mode" in str(error):
            raise UsageError(f"{recipe.name} has no picture to record: it takes no render_mode") from error
        raise
    modes = [str(mode) for mode in env.metadata.get("render_modes") or ()]
    if env.render_mode != "rgb_array" or (isinstance(world, str) and "rgb_array" not in modes):
        env.close()
        hint = "" if isinstance(world, str) else ": its function must take render_mode and hand it on"
        raise UsageError(
            f"{recipe.name} has no picture to record (its render modes: {', '.join(modes) or 'none'}){hint}"
        )
    _lighten(env)
    k = frame_stack or usual_stack(world, kwargs)
    return make(lambda: env, seed=seed, frame_stack=k), float(env.metadata.get("render_fps") or FPS)


def _lighten(env: gymnasium.Env) -> None:
    """Let MuJoCo draw with smaller shadow maps and one sample per pixel: five times as fast without a GPU."""
    quality = getattr(getattr(getattr(env.unwrapped, "model", None), "vis", None), "quality", None)
    if quality is not None:
        quality.shadowsize, quality.offsamples = 1024, 0


def _first_picture(world: World) -> Picture:
    try:
        picture: Picture = world.render()
    except WorldError as error:
        backend = os.environ.get("MUJOCO_GL")
        hint = f" (MUJOCO_GL={backend}; egl needs libEGL, osmesa libOSMesa)" if backend else ""
        raise UsageError(f"cannot record a video: {error}{hint}") from error
    return picture


@contextlib.contextmanager
def _film(path: Path, shape: tuple[int, ...], fps: float) -> Iterator[Callable[[Picture], None]]:
    """A function that adds a picture to the video at `path`, which appears when it is complete."""
    import imageio_ffmpeg

    height, width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2  # H.264 halves the colours' resolution
    temporary = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb"):  # where ffmpeg cannot write it says so in its own way, and later
            pass
        writer = imageio_ffmpeg.write_frames(
            temporary, (width, height), fps=fps, quality=7, macro_block_size=2, ffmpeg_log_level="error"
        )
        writer.send(None)

        def show(picture: Picture) -> None:
            margin = ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0))
            writer.send(np.ascontiguousarray(np.pad(picture, margin, mode="edge")))

        try:
            yield show
        finally:
            writer.close()
        os.replace(temporary, path)
    except OSError as error:
        other = "choose another place with path=..., --out FILE.mp4"
        raise UsageError(f"cannot write the video {path}: {reason(error)} ({other})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
