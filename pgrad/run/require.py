"""What a configuration must be before anything of it is made: told in one line with what is allowed."""

from pgrad.algorithms import TRPO, Algorithm
from pgrad.data import Demonstrations, Episodes, Steps
from pgrad.data.sequence import sequence_rows, sequences_per_batch
from pgrad.errors import UsageError
from pgrad.extras import nearest
from pgrad.models import AgentSpec
from pgrad.models.language.spec import LanguageSpec
from pgrad.run.config import RunConfig
from pgrad.worlds import World
from pgrad.worlds.language.tasks import TASKS


def require_sequences(
    algorithm: Algorithm, spec: AgentSpec, request: Steps | Episodes | Demonstrations
) -> None:
    """Raise UsageError where what is learned from cannot be cut into sequences for a memory."""
    name, batch_size = type(algorithm).__name__, getattr(algorithm, "batch_size", None)
    if hasattr(algorithm, "buffer_size"):
        raise UsageError(
            f"{name} replays decisions of older agents, whose memories are not its own: train it with "
            "memory='none', or a memory with PPO, PPOKL, TRPO, A2C, ActorCritic or Reinforce"
        )
    if isinstance(request, Steps) and getattr(algorithm, "reference", False):
        raise UsageError(
            f"{name}: beta needs a reference policy, whose memory is its own, and windows begin with the "
            "memory of the policy that acted: leave out beta, or take GRPO or Reinforce, which learn from "
            "whole episodes"
        )
    if isinstance(request, Steps) and batch_size is not None:
        sequences_per_batch(batch_size, sequence_rows(request.n, spec.sequence_length))


def require_one_scale(config: RunConfig) -> None:
    """Raise UsageError where rewards that were scaled differently would be learned from together."""
    algorithm, agent = config.algorithm, config.agent
    scaled = getattr(agent, "normalize_reward", False) or getattr(agent, "reward_scaler", None) is not None
    for name in ("buffer_size", "reuse"):
        if scaled and getattr(algorithm, name, 0):
            raise UsageError(
                f"normalize_reward does not go with {type(algorithm).__name__} and its {name}: old rewards "
                "would keep the scale of the time when they came; leave it out, or scale them in the world"
            )


def require_precision(config: RunConfig) -> None:
    """Raise UsageError where half of the digits are too few."""
    if isinstance(config.agent, AgentSpec) and config.agent.half and isinstance(config.algorithm, TRPO):
        raise UsageError(
            "TRPO solves equations with second derivatives, for which bfloat16 has too few digits: leave out "
            "dtype, or take PPO"
        )


def require_steps(config: RunConfig) -> None:
    """Raise UsageError for what is only for prompts."""
    if isinstance(config.agent, LanguageSpec):
        near = nearest(config.world_name, TASKS) if isinstance(config.world, str) else ""
        hint = f"; {near}" if near else ""
        raise UsageError(
            f"{config.world_name} is no world of language, for a LanguageSpec (--model): those are tasks "
            f"({', '.join(TASKS)}), files and lists of prompts{hint}"
        )
    if config.reward is not None:
        raise UsageError(f"{config.world_name} has rewards of its own: reward is for prompts")


def require_actions(config: RunConfig, world: World) -> None:
    """Raise UsageError where an algorithm that is made for one kind of action meets another."""
    kind, here = getattr(config.algorithm, "actions", None), type(world.action_space).__name__
    if kind is not None and here != kind:
        other = {"Box": "SAC (sac)", "Discrete": "DiscreteSAC (discrete-sac)"}.get(here, "PPO or TRPO")
        raise UsageError(
            f"{type(config.algorithm).__name__} is for {kind} actions, {world.name} has "
            f"{world.action_space}: use {other}"
        )


def require_start(config: RunConfig) -> None:
    """Raise UsageError where a replay would not be learned from before the end."""
    starts, total = getattr(config.algorithm, "learning_starts", 0), config.options.total_timesteps
    if starts >= total:
        raise UsageError(
            f"learning_starts must be less than total_timesteps, {total}, or nothing is learned; got {starts}"
        )
