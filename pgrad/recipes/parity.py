"""The parity of 50 bits: rare chains of thought that imitation never prefers and reward does.

Demonstrations are a mixture: nine in ten say the answer alone, one in ten writes all running parities first.
The answer alone cannot be learned, the chain can. With a share p of chains the first token is the first bit
with probability p + (1−p)/2, and after it a chain goes on with probability 2p/(1+p): below one half for
p < 1/3. There the most likely text of the very distribution that is imitated is a guess. Sampled, it is right
with probability (1+p)/2, a chain always and a guess every other time: so reward makes chains frequent.

Source: Tsilivis et al. 2025, arXiv 2510.11495 (the task, the mixture, and the bound of 1/3).
"""

from dataclasses import replace

from pgrad.recipes.language import GROUPS, IMITATE, TINY
from pgrad.recipes.recipe import Recipe

MIXED = Recipe(
    "imitate-parity",
    replace(IMITATE, learning_rate_schedule="linear"),
    "parity",
    total_timesteps=300_000,
    agent=TINY,
    world_kwargs={"sizes": (50, 50), "larger": (51, 52), "chain": 0.1},
)
REWARDED = replace(
    MIXED,
    name="grpo-parity",
    algorithm=GROUPS,
    total_timesteps=300_000,
    warm=MIXED,
    evaluations=20,
    reach=0.95,
    every_seed=0.9,
)
LONGER = replace(MIXED, name="imitate-parity-longer", total_timesteps=600_000, evaluations=30)
"""As many tokens to learn from as the warm start and GRPO together; as its answers are short, with their
prompts it reads three times as many as GRPO does."""

RECIPES = (REWARDED, LONGER)
