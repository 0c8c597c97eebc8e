"""The agent of a language run: from its prompts, or from what is in its run directory."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gymnasium.spaces import Discrete

from pgrad.algorithms import PPOKL, TRPO, Algorithm
from pgrad.errors import UsageError
from pgrad.models import Agent
from pgrad.models.language.load import load_tokenizer
from pgrad.models.language.network import build_network
from pgrad.models.language.spec import LanguageSpec
from pgrad.models.language.vllm import require_vllm
from pgrad.run.config import RunConfig, resolve_device
from pgrad.run.language import ends_of, fit, language_spec
from pgrad.training.streams import Seeds, generator
from pgrad.worlds.language.tokenizer import alphabet_of, character_tokenizer
from pgrad.worlds.language.world import LanguageWorld

ALPHABET = "alphabet"
"""Where config.json keeps the characters that a model from scratch knows: it is read without prompts."""


def make_language_agent(config: RunConfig, world: LanguageWorld) -> Agent:
    """The agent for a world of prompts, on its device, with what is drawn from the run's seed."""
    agent = _agent(config, world.tokenizer, world.eos)
    fit(world, agent)
    if language_spec(config).engine == "vllm":
        require_vllm(next(agent.parameters()).device)
    return agent


def agent_without_prompts(config: RunConfig, saved: Mapping[str, Any]) -> Agent | None:
    """The agent of a run from what its config.json has; None for older ones from scratch, which need more."""
    spec, eos = language_spec(config), config.world_kwargs.get("eos")
    if not spec.is_scratch:
        tokenizer = load_tokenizer(spec.model)
        return _agent(config, tokenizer, ends_of(eos, tokenizer, spec.model))
    if ALPHABET not in saved:
        return None
    return _agent(config, character_tokenizer(saved[ALPHABET]), [eos] if isinstance(eos, int) else eos or ())


def kept_alphabet(agent: Agent, spec: Any) -> dict[str, str]:
    """What `agent_without_prompts` needs, for config.json."""
    if not (isinstance(spec, LanguageSpec) and spec.is_scratch):
        return {}
    network: Any = agent.network
    return {ALPHABET: alphabet_of(network.tokenizer)}


def _agent(config: RunConfig, tokenizer: Any, eos: Sequence[int]) -> Agent:
    algorithm, spec = config.algorithm, language_spec(config)
    require_tokens(algorithm)
    spec = dataclasses.replace(spec, reference=bool(getattr(algorithm, "reference", False)))
    noise = generator(Seeds.spawn(config.options.seed).agent)
    critic = algorithm.critic == "value"
    network = build_network(spec, tokenizer, critic=critic, generator=noise, eos=eos)
    words = Discrete(network.model.config.vocab_size)
    return Agent(network, words, words).to(resolve_device(config.options.device, not spec.is_scratch))


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
