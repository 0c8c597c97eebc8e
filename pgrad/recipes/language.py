"""Language without a hub: small models with random weights, a little imitation, then rewards of a verifier.

"By imitation" is what supervised training alone comes to: of what the warm start sees, and then of as many
tokens more as the others learn from by reward.
"""

from dataclasses import replace

from pgrad.algorithms import GRPO, PPO, Imitate, Reinforce
from pgrad.algorithms.protocol import Algorithm
from pgrad.models.language.spec import LanguageSpec
from pgrad.recipes.recipe import Recipe

TINY, SMALL = LanguageSpec("scratch:tiny"), LanguageSpec("scratch:small")
IMITATE = Imitate(batch_size=64, learning_rate=1e-3)
TAUGHT = Recipe("imitate-reverse", IMITATE, "reverse", total_timesteps=60_000, agent=TINY)
SUMS = Recipe("imitate-addition", IMITATE, "addition", total_timesteps=150_000, agent=SMALL)

GROUPS = GRPO(n_prompts=32, num_generations=8, average="token", learning_rate=3e-4)
VARIANTS: dict[str, Algorithm] = {
    "grpo": GROUPS,
    "dr-grpo": replace(GROUPS, average="constant", max_length=9, scale_rewards="none"),
    "dapo": replace(GROUPS, clip_range_high=0.28, dynamic_sampling=True),
    "rloo": replace(GROUPS, average="constant", max_length=9, baseline="leave-one-out", scale_rewards="none"),
    "ppo": PPO(
        n_steps=9,
        batch_size=1152,
        n_epochs=1,
        gamma=1.0,
        ent_coef=0.0,
        learning_rate=3e-4,
        critic_learning_rate=1e-3,
    ),
    "reinforce": Reinforce(n_episodes=256, gamma=1.0, baseline="leave-one-out", learning_rate=3e-4),
}

RECIPES = (
    *(
        Recipe(
            f"{name}-reverse",
            algorithm,
            "reverse",
            total_timesteps=400_000,
            n_envs=256,
            agent=TINY,
            warm=TAUGHT,
        )
        for name, algorithm in VARIANTS.items()
    ),
    Recipe("imitate-reverse-longer", IMITATE, "reverse", total_timesteps=460_000, agent=TINY),
    Recipe("grpo-addition", GROUPS, "addition", total_timesteps=400_000, agent=SMALL, warm=SUMS),
    Recipe("imitate-addition-longer", IMITATE, "addition", total_timesteps=550_000, agent=SMALL),
)
