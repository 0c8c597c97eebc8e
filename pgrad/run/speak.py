"""What a trained language model says: completions of any prompt, and its answers to those of its world."""

from collections.abc import Sequence
from typing import Any

import torch

from pgrad.errors import UsageError
from pgrad.models import Agent
from pgrad.models.language.generate import generate
from pgrad.report.evaluate import eval_mode
from pgrad.run.config import RunConfig
from pgrad.run.language import completion_length, fit, held_out, language_spec, language_world_of
from pgrad.training.completions import Completer, completion_seeds
from pgrad.worlds.language.encoding import decode, encode_prompt
from pgrad.worlds.language.prompts import Content, Prompt
from pgrad.worlds.language.rewards import Rewards


def unjudged(completions: list[Any]) -> list[None]:
    """A reward where there is none."""
    return [None] * len(completions)


@torch.no_grad()
def complete(
    config: RunConfig,
    agent: Agent,
    prompts: Sequence[Content],
    *,
    n: int,
    greedy: bool,
    temperature: float | None,
    max_completion_length: int,
    seed: int,
) -> list[list[str]]:
    """`n` completions of each prompt, a text or a conversation; see `Run.complete`."""
    language_spec(config)
    if n < 1 or not prompts:
        raise UsageError(f"there must be a prompt and n ≥ 1, got {len(prompts)} prompts and n = {n}")
    network: Any = agent.network
    texts = [encode_prompt(network.tokenizer, Prompt(text, i)) for i, text in enumerate(prompts)]
    with eval_mode(agent):
        found = generate(
            network,
            texts,
            num_generations=n,
            max_completion_length=max_completion_length or completion_length(config),
            seeds=completion_seeds(seed, 0, len(texts) * n),
            temperature=temperature,
            greedy=greedy,
        )
    rows = zip(found.tokens.tolist(), found.length.tolist(), strict=True)
    said = [decode(network.tokenizer, row[:length], network.eos) for row, length in rows]
    return [said[i : i + n] for i in range(0, len(said), n)]


def answers(
    config: RunConfig, agent: Agent, *, n: int, deterministic: bool, seed: int
) -> list[dict[str, Any]]:
    """Prompts of the world (held-out ones where there are any), completions and rewards, None if unjudged."""
    world = language_world_of(config, agent, seed)
    try:
        fit(world, agent)
        if world.rewards is None:
            world.rewards = Rewards(unjudged)
        try:
            prompts = held_out(world, n)
        except UsageError:  # nothing was set aside
            prompts = world.next(n)
        with eval_mode(agent):
            found = Completer(world, agent, seed, n_envs=1, deterministic=deterministic).answer(prompts)
        paid = [None if reward != reward else reward for reward in found.reward.tolist()]
        rows = zip(prompts, found.texts, paid, strict=True)
        return [{"prompt": p.content, "completion": text, "reward": reward} for p, text, reward in rows]
    finally:
        world.close()
