"""Language runs: what the world, the agent and an evaluation are where decisions are tokens."""

import dataclasses
import inspect
from typing import Any

from gymnasium.spaces import Discrete

from pgrad.algorithms import PPOKL, TRPO, Algorithm
from pgrad.errors import UsageError, WorldError
from pgrad.models import Agent
from pgrad.models.language.load import load_tokenizer
from pgrad.models.language.network import build_network
from pgrad.models.language.spec import LanguageSpec
from pgrad.report.evaluate import Evaluation
from pgrad.run.config import RunConfig, resolve_device
from pgrad.training.completions import Completer
from pgrad.training.loop import Seeds, generator
from pgrad.worlds.language.kind import is_language, names_task
from pgrad.worlds.language.load import load_reward
from pgrad.worlds.language.prompts import Prompt
from pgrad.worlds.language.tasks import make_task
from pgrad.worlds.language.world import LanguageWorld


def make_language_world(config: RunConfig, seed: int) -> LanguageWorld:
    """The prompts of a configuration and their rewards, for the tokenizer of its model.

    Rewards given as "file.py:function" are loaded. Raises UsageError.
    """
    spec = language_spec(config)
    given = {**config.world_kwargs}
    given_rewards = given.pop("rewards", None)
    tokenizer = None if spec.is_scratch else load_tokenizer(spec.model)
    own = inspect.signature(LanguageWorld).parameters
    options = {  # JSON knows no tuples
        name: tuple(x) if isinstance(x, list) else x for name, x in given.items() if name not in own
    }
    source = make_task(config.world, **options) if names_task(config.world) else config.world
    if options and source is config.world:
        raise UsageError(
            f"{config.world_name} takes no argument {next(iter(options))!r}: prompts take "
            f"{', '.join(name for name in own if name not in ('source', 'tokenizer', 'rewards', 'seed'))}"
        )
    given = {name: x for name, x in given.items() if name in own}
    length = given.get("max_completion_length") or getattr(source, "longest", 0) + 1
    rewards = _rewards(given_rewards if config.reward is None else config.reward, length)
    return LanguageWorld(source, tokenizer, rewards, seed=seed, **given)


def _rewards(rewards: Any, max_completion_length: int) -> Any:
    """Functions for the names of functions; what is one already stays as it is."""
    if isinstance(rewards, str):
        return load_reward(rewards, max_completion_length)
    if isinstance(rewards, list | tuple):
        return [load_reward(x, max_completion_length) if isinstance(x, str) else x for x in rewards]
    return rewards


def with_length(config: RunConfig) -> RunConfig:
    """The configuration with the length that the algorithm averages by, where it leaves that to the world."""
    algorithm: Any = config.algorithm
    open_ = getattr(algorithm, "average", "") == "constant" and algorithm.max_length is None
    if not open_ or not is_language(config.world):
        return config
    settled = dataclasses.replace(algorithm, max_length=completion_length(config))
    return dataclasses.replace(config, algorithm=settled)


def completion_length(config: RunConfig) -> int:
    """Tokens that a completion may have, its end among them."""
    given = config.world_kwargs.get("max_completion_length")
    if isinstance(given, int) and given > 0:
        return given
    world = make_language_world(config, 0)
    world.close()
    return world.max_completion_length


def make_language_agent(config: RunConfig, world: LanguageWorld) -> Agent:
    """The agent for a world of prompts, on its device, with what is drawn from the run's seed."""
    algorithm, spec = config.algorithm, language_spec(config)
    require_tokens(algorithm)
    spec = dataclasses.replace(spec, reference=bool(getattr(algorithm, "reference", False)))
    noise = generator(Seeds.spawn(config.options.seed).agent)
    network = build_network(spec, world.tokenizer, critic=algorithm.critic == "value", generator=noise)
    words = Discrete(network.model.config.vocab_size)
    agent = Agent(network, words, words).to(resolve_device(config.options.device, not spec.is_scratch))
    fit(world, agent)
    return agent


def language_spec(config: RunConfig) -> LanguageSpec:
    """How the language model is made. Raises UsageError for an agent of another kind."""
    if not is_language(config.world):
        raise UsageError(f"{config.world_name} is no world of language: its agent writes nothing")
    if not isinstance(config.agent, LanguageSpec):
        raise UsageError(
            f"{config.world_name} is a world of language: its agent is a LanguageSpec(model=…), on the "
            "command line --model"
        )
    return config.agent


def require_tokens(algorithm: Algorithm) -> None:
    """Raise UsageError for algorithms that are not for tokens."""
    name = type(algorithm).__name__
    why = ""
    if algorithm.critic == "q" or hasattr(algorithm, "buffer_size"):
        why = "replays single decisions, which tokens are not"
    elif isinstance(algorithm, TRPO):
        why = "needs second derivatives, which a model's attention does not have"
    elif isinstance(algorithm, PPOKL):
        why = "keeps all probabilities of the policy that acted, which are too many over a vocabulary"
    if why:
        raise UsageError(f"{name} {why}: use GRPO, PPO, A2C, ActorCritic or Reinforce for tokens")
    if getattr(algorithm, "baseline", None) == "optimal":
        raise UsageError(f"{name}: the baseline 'optimal' takes a backward pass per text: use leave-one-out")


def evaluate_language(
    config: RunConfig, agent: Agent, *, episodes: int, deterministic: bool, seed: int, split: str = "held_out"
) -> Evaluation:
    """Answers to prompts that are never trained on: their rewards as returns, their tokens as lengths.

    Where fewer prompts were set aside than `episodes`, all of them are asked. Answers that no reward could
    judge are left out, and counted. Raises UsageError where no prompts were set
    aside, WorldError where none could be judged.
    """
    world = make_language_world(config, seed)
    try:
        fit(world, agent)
        prompts = held_out(world, episodes, split)
        completer = Completer(world, agent, seed, n_envs=1, deterministic=deterministic)
        found = completer.answer(prompts)
        judged = [i for i, reward in enumerate(found.reward.tolist()) if reward == reward]
        if not judged:
            raise WorldError(f"{world.name}: no reward could judge any of {len(prompts)} answers")
        returns, lengths = ([x[i] for i in judged] for x in (found.reward.tolist(), found.lengths))
        unjudged = len(prompts) - len(judged)
        return Evaluation(tuple(returns), tuple(lengths), deterministic, texts=True, unjudged=unjudged)
    finally:
        world.close()


def require_held_out(config: RunConfig) -> None:
    """Raise UsageError where evaluations are wanted and no prompts were set aside."""
    world = make_language_world(config, 0)
    try:
        world.held_out()
    except UsageError as error:
        raise UsageError(f"eval_every: {error}") from error
    finally:
        world.close()


def held_out(world: LanguageWorld, n: int, split: str = "held_out") -> list[Prompt]:
    """The first n prompts that were set aside, or all where there are fewer. Raises UsageError for none."""
    try:
        return world.held_out(n, split)
    except UsageError:  # more than there are
        return world.held_out(0, split)


def fit(world: LanguageWorld, agent: Agent) -> None:
    """Let the world know how much the agent reads."""
    network: Any = agent.network
    if network.context is not None:
        world.fit(network.context)
