"""What is told of KL divergences on text, against the divergence over every answer there is."""

from dataclasses import replace
from itertools import product
from math import sqrt
from statistics import mean, stdev
from typing import Any

import pytest
import torch

import pgrad as pg
from pgrad.models.language.generate import Completions
from pgrad.run.assemble import make_training
from pgrad.run.config import RunConfig, RunOptions, settled
from pgrad.training.completions import as_trajectory
from pgrad.training.loop import Training
from tests.run.texts import TINY

ROUNDS = 20
PROMPTS = ["ab=", "b="]
FAST: dict[str, Any] = {"learning_rate": 2e-2, "beta": 0.05}
"""So far does a step go that the policy of the second is another."""

GROUPS = pg.GRPO(n_prompts=2, num_generations=32, n_epochs=2, **FAST)
ALGORITHMS: dict[str, tuple[Any, Any]] = {
    "grpo": (GROUPS, TINY),
    "grpo, k1 in the reward": (replace(GROUPS, kl="k1-in-reward"), TINY),
    "grpo, adapters": (GROUPS, replace(TINY, lora=2)),
    "grpo, corrected": (replace(GROUPS, rho_max=2.0), replace(TINY, dtype="bfloat16", temperature=0.7)),
    "ppo": (pg.PPO(n_steps=64, n_epochs=2, batch_size=128, **FAST), TINY),
    "a2c": (pg.A2C(n_steps=64, **FAST), TINY),
    "reinforce": (pg.Reinforce(n_episodes=64, **FAST), TINY),
    "reinforce, old episodes": (pg.Reinforce(n_episodes=64, reuse=2, **FAST), TINY),
}


def by_length(completions: list[str], **_: Any) -> list[float]:
    return [float(len(text)) for text in completions]


def made(name: str) -> Training:
    """A training whose policy is no longer its reference."""
    algorithm, spec = ALGORITHMS[name]
    options = RunOptions(total_timesteps=10**6, n_envs=2, seed=3, threads=1)
    given: tuple[Any, ...] = ({"max_completion_length": 2}, by_length)
    training = make_training(RunConfig(settled(algorithm, spec), PROMPTS, spec, options, *given))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in training.agent.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return training


def enumerated(training: Training) -> float:
    """E[log π − log π_ref] per token: the sum over all answers to all prompts over their mean length."""
    network: Any = training.agent.network
    words, ends = range(network.model.config.vocab_size), network.eos
    answers: list[tuple[int, ...]] = [(w,) for w in words if w in ends]
    answers += [pair for pair in product(words, repeat=2) if pair[0] not in ends]
    tokens = torch.tensor([[*answer, *[0] * (2 - len(answer))] for answer in answers])
    length, blank = torch.tensor([*map(len, answers)]), torch.zeros(tokens.shape)
    found = Completions(tokens, length, blank, blank, length > 0)
    total = count = 0.0
    for prompt in PROMPTS:
        ids = network.tokenizer(prompt)["input_ids"]
        traj = as_trajectory([ids] * len(answers), found, torch.zeros(len(answers)))
        with torch.no_grad():
            logp, other = (
                of(traj.decisions).log_prob(traj.action).double().sum(0)
                for of in (training.agent.policy, training.agent.reference)
            )
        p = logp.exp()
        assert float(p.sum()) == pytest.approx(1.0, abs=1e-5 if network.dtype == torch.float32 else 1e-2)
        total += float((p * (logp - other)).sum())
        count += float((p * length).sum())
    return total / count


@pytest.mark.parametrize("name", ALGORITHMS)
def test_k1_and_k3_are_the_divergence_of_the_policy_that_wrote(name: str) -> None:
    """Over many updates, each from the same policy with other answers, however far the update then goes."""
    training = made(name)
    if training.learner.recent.capacity:  # let there be episodes that another policy wrote
        training.iterate()
    truth = enumerated(training)
    assert truth > 0.01
    agent = {key: x.clone() for key, x in training.agent.state_dict().items()}
    recent = training.learner.recent.state_dict()
    told: dict[str, list[float]] = {"kl": [], "kl/k3": []}
    for _ in range(ROUNDS):
        metrics = training.iterate()
        for key, values in told.items():
            values.append(metrics[key])
        single = name in ("a2c", "reinforce")  # step on fresh answers: nothing has moved yet
        assert metrics["train/approx_kl"] >= 0.0 if not single else "train/approx_kl" not in metrics
        training.agent.load_state_dict(agent)
        training.learner.recent.load_state_dict(recent)
    for values in told.values():
        error = stdev(values) / sqrt(ROUNDS)
        assert error < 0.2 * truth, "the mean tells something"
        assert abs(mean(values) - truth) < 4.0 * error
