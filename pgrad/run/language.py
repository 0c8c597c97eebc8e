"""Language runs: what the world and an evaluation are where decisions are tokens."""

import dataclasses
import inspect
from collections.abc import Collection
from typing import Any

from pgrad.algorithms.usual import counts_completions, for_completions
from pgrad.data import Demonstrations
from pgrad.errors import UsageError, WorldError
from pgrad.models import Agent
from pgrad.models.language.load import load_tokenizer, read_context, read_ends
from pgrad.models.language.spec import LanguageSpec
from pgrad.report.evaluate import Evaluation
from pgrad.run.config import RunConfig
from pgrad.stopping import Stop, go_on
from pgrad.training.completions import Completer
from pgrad.worlds.language.isolated import TIMEOUT
from pgrad.worlds.language.kind import is_language, names_task
from pgrad.worlds.language.load import load_reward
from pgrad.worlds.language.prompts import Prompt
from pgrad.worlds.language.task import Task
from pgrad.worlds.language.tasks import make_task
from pgrad.worlds.language.world import LanguageWorld, usual_length

NO_REWARD = "there is no reward"


def make_language_world(config: RunConfig, seed: int, tokenizer: Any = None) -> LanguageWorld:
    """The prompts of a configuration and their rewards, for the tokenizer of its model.

    tokenizer: of an agent that is there; None for the model's own, or one of the prompts' characters. Rewards
    given as "file.py:function" are loaded. Raises UsageError.
    """
    spec = language_spec(config)
    given = {**config.world_kwargs}
    given_rewards = given.pop("rewards", None)
    own = inspect.signature(LanguageWorld).parameters
    options = _options(config, own)
    source = make_task(config.world, **options) if names_task(config.world) else config.world
    if options and source is config.world:
        raise UsageError(
            f"{config.world_name} takes no argument {next(iter(options))!r}: prompts take "
            f"{', '.join(name for name in own if name not in ('source', 'tokenizer', 'rewards', 'seed'))}"
        )
    given = {name: x for name, x in given.items() if name in own}
    if not spec.is_scratch:
        tokenizer = load_tokenizer(spec.model) if tokenizer is None else tokenizer
        given["eos"] = ends_of(given.get("eos"), tokenizer, spec.model)
    rewards = _rewards(
        given_rewards if config.reward is None else config.reward,
        completion_length(config),
        given.get("reward_timeout", TIMEOUT),
    )
    return LanguageWorld(source, tokenizer, rewards, seed=seed, **given)


def _options(config: RunConfig, own: Collection[str]) -> dict[str, Any]:
    """Of a task: what in the arguments of the world is not the world's own. JSON knows no tuples."""
    given = {name: x for name, x in config.world_kwargs.items() if name not in own}
    return {name: tuple(x) if isinstance(x, list) else x for name, x in given.items()}


def ends_of(given: Any, tokenizer: Any, model: str) -> list[int]:
    """What ends a text: as given, then the tokenizer's, then the model's where the tokenizer has them."""
    chosen = [given] if isinstance(given, int) else list(given or ())
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return [*chosen, *own, *(i for i in read_ends(model) if 0 <= i < len(tokenizer))]


def _rewards(rewards: Any, max_completion_length: int, timeout: float) -> Any:
    """Functions for the names of functions; what is one already stays as it is."""
    if isinstance(rewards, str):
        return load_reward(rewards, max_completion_length, timeout)
    if isinstance(rewards, list | tuple):
        return [_rewards(x, max_completion_length, timeout) for x in rewards]
    return rewards


def with_length(config: RunConfig) -> RunConfig:
    """The configuration with what the algorithm makes of the length of completions, where that is open."""
    algorithm: Any = config.algorithm
    averages = getattr(algorithm, "average", "") == "constant" and algorithm.max_length is None
    if not is_language(config.world) or not (averages or counts_completions(algorithm)):
        return config
    length = completion_length(config)
    algorithm = for_completions(algorithm, length)
    settled = dataclasses.replace(algorithm, max_length=length) if averages else algorithm
    return dataclasses.replace(config, algorithm=settled)


def completion_length(config: RunConfig) -> int:
    """Tokens that a completion may have, its end among them: what the world will say, without making it."""
    given = config.world_kwargs.get("max_completion_length")
    if isinstance(given, int) and given > 0:
        return given
    longest = _longest(config)
    return longest + 1 if longest else usual_length(read_context(language_spec(config)))


def _longest(config: RunConfig) -> int:
    """Characters of the longest solution of a task; 0 where nobody knows."""
    if isinstance(config.world, Task):
        return config.world.longest
    if not names_task(config.world):
        return 0
    return make_task(config.world, **_options(config, inspect.signature(LanguageWorld).parameters)).longest


def opening(config: RunConfig) -> list[str]:
    """What was settled for prompts and nobody asked for, and what is probably not meant, to be told once."""
    if not is_language(config.world):
        return []
    told = []
    if not (config.world_kwargs.get("max_completion_length") or _longest(config)):
        told.append(
            f"completions have at most {completion_length(config)} tokens, as nobody said "
            "(max_completion_length, --max-completion-length)"
        )
    spec = language_spec(config)
    if spec.is_scratch and spec.lora and config.options.init_from is None:
        told.append(f"the weights of {spec.model} are random and, below adapters, stay so: leave out lora")
    if spec.engine == "vllm":
        told.append(
            "vLLM writes the completions: a run that is repeated, or stopped and continued, is the same up "
            "to rounding; bit for bit it is with engine own"
        )
    return told


def cannot_be_judged(config: RunConfig) -> str:
    """Why answers to prompts that were not trained on have no score; empty where they have one."""
    if names_task(config.world) or isinstance(config.world, Task):
        return ""
    if config.reward is None and not config.world_kwargs.get("rewards"):
        return NO_REWARD
    return "" if config.world_kwargs.get("held_out") else "no prompts were set aside"


def language_world_of(config: RunConfig, agent: Agent, seed: int) -> LanguageWorld:
    """The world of a configuration as an agent that is there reads it."""
    network: Any = agent.network
    return make_language_world(config, seed, network.tokenizer)


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


def evaluate_language(
    config: RunConfig,
    agent: Agent,
    *,
    episodes: int,
    deterministic: bool,
    seed: int,
    split: str = "held_out",
    ready: LanguageWorld | None = None,
    stop: Stop = go_on,
) -> Evaluation:
    """Answers to prompts that are never trained on: their rewards as returns, their tokens as lengths.

    Where fewer prompts were set aside than `episodes`, all of them are asked. Answers that no reward could
    judge are left out, and counted. `ready` is the world, where it is there already; where it is in its
    prompts stays as it was. Raises UsageError where no prompts were set aside, WorldError where none could be
    judged.
    """
    world = language_world_of(config, agent, seed) if ready is None else ready
    try:
        fit(world, agent)
        world.require_rewards()
        prompts = held_out(world, episodes, split)
        completer = Completer(world, agent, seed, n_envs=1, deterministic=deterministic)
        found = completer.answer(prompts, stop=stop)
        judged = [i for i, reward in enumerate(found.reward.tolist()) if reward == reward]
        if not judged:
            raise WorldError(f"{world.name}: no reward could judge any of {len(prompts)} answers")
        returns, lengths = ([x[i] for i in judged] for x in (found.reward.tolist(), found.lengths))
        unjudged = len(prompts) - len(judged)
        return Evaluation(tuple(returns), tuple(lengths), deterministic, texts=True, unjudged=unjudged)
    finally:
        if ready is None:
            world.close()


def require_judged(config: RunConfig, world: LanguageWorld) -> None:
    """Raise UsageError where there is no reward and one is needed, or evaluations are wanted and no prompts
    were set aside."""
    options = config.options
    if not isinstance(config.algorithm.collects(options.n_envs), Demonstrations):
        world.require_rewards()
    if options.eval_every:
        try:
            world.require_rewards()
            world.held_out()
        except UsageError as error:
            raise UsageError(f"eval_every: {error}") from error


def held_out(world: LanguageWorld, n: int, split: str = "held_out") -> list[Prompt]:
    """The first n prompts that were set aside, or all where there are fewer. Raises UsageError for none."""
    try:
        return world.held_out(n, split)
    except UsageError:  # more than there are
        return world.held_out(0, split)


def fit(world: LanguageWorld, agent: Agent) -> None:
    """Let the world know how much the agent reads, and what ends its texts."""
    network: Any = agent.network
    world.fit(network.context, network.eos)
