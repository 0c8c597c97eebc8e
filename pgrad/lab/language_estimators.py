"""GRPO and its relatives on a language that can be written down, held against the exact gradient."""

from dataclasses import replace
from typing import get_args

import torch

from pgrad.algorithms import GRPO, PPO, Algorithm, Reinforce
from pgrad.algorithms.grpo import Average, Divergence
from pgrad.algorithms.reinforce import Baseline
from pgrad.lab.language import Language, LanguageCase, estimates, gradient, language_case
from pgrad.lab.rows import Group, row_of, sorted_group

SIZE, GROUPS = 3, 2


def parity() -> LanguageCase:
    """Two prompts of bits; right is their sum modulo 2 and then EOS.

    The reward is 1 for the right completion, ½ for any other that ends with EOS, and 0 for one that is cut.
    """
    language = Language(prompts=((0,), (1, 0)), n_tokens=3, eos=(2,), length=2)

    def reward(prompt: tuple[int, ...], answer: tuple[int, ...]) -> float:
        if answer[-1] not in language.eos:
            return 0.0
        return 1.0 if answer == (sum(prompt) % 2, 2) else 0.5

    table = [[reward(prompt, answer) for answer in language.completions] for prompt in language.prompts]
    return replace(language_case(language), reward=torch.tensor(table, dtype=torch.float64))


def variants() -> Group:
    """What GRPO's settings make of one update, beside algorithms that compare nothing within groups."""
    case, two = parity(), GRPO(num_generations=SIZE)
    plain = replace(two, scale_rewards="none")
    constant = replace(plain, average="constant", max_length=case.language.length)
    settings = {
        "GRPO": two,
        "scaled by the batch": replace(two, scale_rewards="batch"),
        "not scaled": plain,
        "per token": replace(two, average="token"),
        "per token, not scaled (DAPO's average)": replace(plain, average="token"),
        "constant, not scaled (Dr. GRPO)": constant,
        "constant, leave-one-out (RLOO)": replace(constant, baseline="leave-one-out", max_length=1),
        "per sequence, leave-one-out": replace(plain, baseline="leave-one-out"),
        "constant, not scaled, truncated masked": replace(constant, mask_truncated=True),
    }
    truth = gradient(case.objective, case)
    rows = [row_of(name, estimates(one, case, SIZE, GROUPS), truth) for name, one in settings.items()]
    for name in ("GRPO", "constant, not scaled (Dr. GRPO)"):
        found = estimates(settings[name], case, SIZE, GROUPS, only_unequal=True)
        rows.append(row_of(f"{name}, dynamic sampling", found, truth))
    for word, learner in _others().items():
        rows.append(row_of(word, estimates(learner, case, 1, SIZE * GROUPS), truth))
    note = (
        f"Updates of {GROUPS} groups of {SIZE} completions; Reinforce and PPO (γ = λ = 1, exact V, 0 "
        f"behind a cut) of {SIZE * GROUPS} to independent prompts. {case.language.n_tokens} tokens, at most "
        f"{case.language.length} in a completion. At π = π_old the clip and the ratios of GSPO and CISPO "
        "change nothing."
    )
    return sorted_group("language: GRPO and its relatives", note, rows)


def penalties() -> Group:
    """Of what GRPO's penalties for straying from the reference are the gradient, where nothing is earned."""
    case = parity()
    case = replace(case, reward=torch.zeros_like(case.reward))
    averages: dict[str, Average] = {"summed": "constant", "per sequence": "sequence"}
    settings = {
        f"{kind}, {word}": GRPO(num_generations=2, beta=1.0, kl=kind, average=average, max_length=1)
        for kind in get_args(Divergence)
        for word, average in averages.items()
    }
    truth = gradient(lambda theta: -case.divergence(theta), case)
    rows = [row_of(name, estimates(one, case, 2), truth) for name, one in settings.items()]
    note = "Against −∇KL(p_π‖p_ref) of whole completions, from 2 of them. On-policy."
    return sorted_group("language: GRPO's penalty for the KL to a reference", note, rows)


def _others() -> dict[str, Algorithm]:
    baselines: tuple[Baseline, ...] = ("mean", "leave-one-out", "value")
    learners: dict[str, Algorithm] = {
        f"Reinforce, {'V' if one == 'value' else one}": Reinforce(baseline=one, gamma=1.0)
        for one in baselines
    }
    ppo = PPO(gamma=1.0, gae_lambda=1.0, normalize_advantage=False, ent_coef=0.0)
    return learners | {"PPO, V": ppo}
