"""From a configuration to a world, an agent and a training that can begin."""

import dataclasses
from typing import Any

import torch
from gymnasium import spaces

from pgrad.data import Steps
from pgrad.environments.spaces import space_leaves
from pgrad.errors import UsageError
from pgrad.models import Agent, AgentSpec, build_agent
from pgrad.models.encoder import has_images
from pgrad.run.config import RunConfig, resolve_device
from pgrad.run.language import make_language_world, require_judged
from pgrad.run.language_agent import make_language_agent, require_tokens
from pgrad.run.require import (
    require_actions,
    require_one_scale,
    require_precision,
    require_sequences,
    require_start,
    require_steps,
)
from pgrad.run.room import require_room, require_room_for_many
from pgrad.run.threads import LARGE_IMAGE, torch_threads
from pgrad.training.compiled import compile_after
from pgrad.training.loop import Training
from pgrad.training.streams import Seeds, generator
from pgrad.worlds import World, make
from pgrad.worlds.language.kind import is_language
from pgrad.worlds.language.world import LanguageWorld
from pgrad.worlds.make import plays_atari, usual_stack
from pgrad.worlds.tensors.tensor import TENSOR_WORLDS, Dynamics

LARGE_BATCH = 1024
"""From this many environments on, a tensor world is worth a GPU."""


def make_world(config: RunConfig, *, n_envs: int, seed: int, workers: int = 0) -> Any:
    """The world of a configuration, with other numbers: a `World`, or a `LanguageWorld`."""
    if is_language(config.world):
        return make_language_world(config, seed)
    require_steps(config)
    device = torch.device("cpu")
    if _is_of_tensors(config.world):  # all others compute on the CPU, wherever the agent is
        device = resolve_device(config.options.device, n_envs >= LARGE_BATCH)
    return make(
        config.world,
        n_envs=n_envs,
        seed=seed,
        workers=workers,
        frame_stack=config.options.frame_stack,
        device=device,
        kwargs=config.world_kwargs,
    )


def _is_of_tensors(world: Any) -> bool:
    return isinstance(world, Dynamics) or (isinstance(world, str) and world in TENSOR_WORLDS)


def make_agent(config: RunConfig, world: Any) -> Agent:
    """The agent for a world, on its device, with weights from the run's seed."""
    if isinstance(world, LanguageWorld):
        return make_language_agent(config, world)
    algorithm, seeds = config.algorithm, Seeds.spawn(config.options.seed)
    require_actions(config, world)
    spec = config.agent
    if isinstance(spec, AgentSpec) and spec.sign_reward is None:
        usual = plays_atari(config.world, config.world_kwargs) and not spec.normalize_reward
        spec = dataclasses.replace(spec, sign_reward=usual)
    with torch_threads(config, world.observation_space):  # orthogonal weights depend on the number of threads
        agent = build_agent(
            world.observation_space,
            world.action_space,
            spec,
            gamma=algorithm.gamma,
            critic=algorithm.critic,
            generator=generator(seeds.agent),
        )
    require_fit(agent, world)
    if getattr(algorithm, "reference", False):
        agent.keep_reference()
    return agent.to(_agent_device(config, world))


def _agent_device(config: RunConfig, world: World) -> torch.device:
    large = has_images(world.observation_space, LARGE_IMAGE) or world.device.type != "cpu"
    return resolve_device(config.options.device, large)


def make_training(config: RunConfig) -> Training:
    """Everything in its first state. Raises UsageError where the parts do not fit."""
    options, seeds = config.options, Seeds.spawn(config.options.seed)
    if is_language(config.world):
        require_tokens(config.algorithm)
        if options.compile == "yes":
            raise UsageError("compile='yes' is for worlds of steps: texts differ in shape every time")
    request = config.algorithm.collects(options.n_envs)  # what does not fit is told before anything is built
    if isinstance(config.agent, AgentSpec) and config.agent.memory != "none":
        require_sequences(config.algorithm, config.agent, request)
    require_one_scale(config)
    require_precision(config)
    if not is_language(config.world):
        require_room_for_many(options.n_envs, request, _is_of_tensors(config.world))
    world = make_world(config, n_envs=options.n_envs, seed=seeds.world, workers=options.workers)
    try:
        if isinstance(world, LanguageWorld):
            require_judged(config, world)
        else:
            frames = options.frame_stack or usual_stack(config.world, config.world_kwargs)
            require_room(config.algorithm, request, world, frames, _agent_device(config, world))
        agent = make_agent(config, world)
        require_start(config)  # last: another algorithm may be needed anyway
        device = next(agent.parameters()).device
        parts = config.algorithm, world, agent, seeds
        training = Training(*parts, options.total_timesteps, device, options.n_envs)
        training.learner.texts_at_once = options.texts_at_once
        training.compile_after = compile_after(options.compile, _compiles(config, request, agent, device))
        return training
    except BaseException:
        world.close()
        raise


def _compiles(config: RunConfig, request: Any, agent: Agent, device: torch.device) -> bool:
    """Whether machine code is much faster, and known to be right: small networks of pgrad's own."""
    small = isinstance(config.agent, AgentSpec) and not has_images(agent.observation_space)
    own = type(config.algorithm).__module__.startswith("pgrad.")
    return (
        isinstance(request, Steps)
        and small
        and own
        and device.type in (("cpu",) if agent.has_memory else ("cpu", "cuda"))
    )


def require_fit(agent: Agent, world: World) -> None:
    """Raise UsageError unless the agent's spaces have the form of the world's."""
    pairs = [
        (role, getattr(agent, f"{role}_space"), getattr(world, f"{role}_space"))
        for role in ("observation", "action")
    ]
    for role, own, other in pairs:
        if _form(own) != _form(other):
            raise UsageError(
                f"the agent was made for the {role} space {own}; that of {world.name} is {other}"
            )


def _form(space: spaces.Space[Any]) -> list[Any]:
    """What networks see of a space: everything but bounds."""
    sizes = ("shape", "n", "nvec", "start")
    return [
        (path, type(leaf), *(str(getattr(leaf, name, None)) for name in sizes))
        for path, leaf in space_leaves(space, "")
    ]
