"""Language runs: what the world, the agent and an evaluation are where decisions are tokens."""

import dataclasses

from gymnasium.spaces import Discrete

from pgrad.algorithms import Algorithm
from pgrad.errors import UsageError
from pgrad.models import Agent
from pgrad.models.language.load import load_tokenizer
from pgrad.models.language.network import build_network
from pgrad.models.language.spec import LanguageSpec
from pgrad.report.evaluate import Evaluation
from pgrad.run.config import RunConfig, resolve_device
from pgrad.training.completions import Completer
from pgrad.training.loop import Seeds, generator
from pgrad.worlds.language.load import load_reward
from pgrad.worlds.language.world import LanguageWorld


def make_language_world(config: RunConfig, seed: int) -> LanguageWorld:
    """The prompts of a configuration and their rewards, for the tokenizer of its model.

    Rewards given as "file.py:function" are loaded. Raises UsageError.
    """
    spec = language_spec(config)
    given = {**config.world_kwargs}
    rewards = given.pop("rewards", None) if config.reward is None else config.reward
    if isinstance(rewards, str):
        rewards = [rewards]
    if isinstance(rewards, list | tuple):
        rewards = [load_reward(one) if isinstance(one, str) else one for one in rewards]
    tokenizer = None if spec.is_scratch else load_tokenizer(spec.model)
    try:
        return LanguageWorld(config.world, tokenizer, rewards, seed=seed, **given)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise UsageError(f"the world of prompts takes no such argument: {str(error).split()[-1]}") from None


def make_language_agent(config: RunConfig, world: LanguageWorld) -> Agent:
    """The agent for a world of prompts, on its device, with what is drawn from the run's seed."""
    algorithm, spec = config.algorithm, language_spec(config)
    require_tokens(algorithm)
    spec = dataclasses.replace(spec, reference=bool(getattr(algorithm, "reference", False)))
    noise = generator(Seeds.spawn(config.options.seed).agent)
    network = build_network(spec, world.tokenizer, critic=algorithm.critic == "value", generator=noise)
    if network.context is not None:
        world.fit(network.context)
    words = Discrete(network.model.config.vocab_size)
    return Agent(network, words, words).to(resolve_device(config.options.device, not spec.is_scratch))


def language_spec(config: RunConfig) -> LanguageSpec:
    """How the language model is made. Raises UsageError for an agent of another kind."""
    if not isinstance(config.agent, LanguageSpec):
        raise UsageError(
            f"{config.world_name} is a world of language: its agent is a LanguageSpec(model=…), on the "
            "command line --model"
        )
    return config.agent


def require_tokens(algorithm: Algorithm) -> None:
    """Raise UsageError for algorithms that are not for tokens."""
    name = type(algorithm).__name__
    if algorithm.critic == "q" or hasattr(algorithm, "buffer_size"):
        raise UsageError(
            f"{name} replays old decisions, which tokens are not: use GRPO, PPO, A2C or Reinforce"
        )
    if getattr(algorithm, "baseline", None) == "optimal":
        raise UsageError(f"{name}: the baseline 'optimal' takes a backward pass per text: use leave-one-out")


def evaluate_language(
    config: RunConfig, agent: Agent, *, episodes: int, deterministic: bool, seed: int, split: str = "held_out"
) -> Evaluation:
    """Answers to prompts that are never trained on: their rewards as returns, their tokens as lengths."""
    world = make_language_world(config, seed)
    try:
        prompts = world.held_out(episodes, split)
        completer = Completer(world, agent, seed, n_envs=1, deterministic=deterministic)
        found = completer.answer(prompts)
        returns = found.reward.nan_to_num(0.0).tolist()
        return Evaluation(tuple(returns), tuple(found.lengths), deterministic)
    finally:
        world.close()
