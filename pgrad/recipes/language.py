"""Language without a hub: small models with random weights, and the rewards of a verifier.

`grpo-copy` begins with random weights and nobody shows it anything. The others are shown a little first;
"longer" is what supervised training alone comes to: of what the warm start sees, and then of as many tokens
more as the others learn from by reward.
"""

from dataclasses import replace

from pgrad.algorithms import GRPO, PPO, Imitate, Reinforce
from pgrad.algorithms.protocol import Algorithm
from pgrad.models.language.spec import LanguageSpec
from pgrad.recipes.recipe import Recipe

TINY, SMALL = LanguageSpec("scratch:tiny"), LanguageSpec("scratch:small")
EPS = 1e-5
"""Of the optimiser: gradients of models this small are large."""

IMITATE = Imitate(batch_size=64, learning_rate=1e-3, ent_coef=0.0, max_grad_norm=0.5, optimizer_eps=EPS)
TAUGHT = Recipe("imitate-reverse", IMITATE, "reverse", total_timesteps=60_000, agent=TINY)
FEW = replace(TAUGHT, name="imitate-reverse-few", world_kwargs={"n_prompts": 500})
"""Problems are without end, answers to them are not: these were shown 500."""
SUMS = Recipe("imitate-addition", IMITATE, "addition", total_timesteps=150_000, agent=SMALL)

GROUPS = GRPO(
    n_prompts=32,
    num_generations=8,
    n_epochs=1,
    clip_range=0.2,
    scale_rewards="group",
    average="token",
    learning_rate=3e-4,
    max_grad_norm=1.0,
    optimizer_eps=EPS,
    beta=0.0,
    ent_coef=0.0,
    gamma=1.0,
)
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
        gae_lambda=0.95,
        clip_range=0.2,
        normalize_advantage=True,
        ent_coef=0.0,
        vf_coef=0.5,
        max_grad_norm=0.5,
        learning_rate=3e-4,
        critic_learning_rate=1e-3,
        optimizer_eps=EPS,
    ),
    "reinforce": Reinforce(
        n_episodes=256,
        gamma=1.0,
        baseline="leave-one-out",
        ent_coef=0.0,
        max_grad_norm=0.5,
        learning_rate=3e-4,
        optimizer_eps=EPS,
    ),
}

COPY = Recipe(
    "grpo-copy",
    replace(GROUPS, n_prompts=64, num_generations=16, learning_rate=1e-3, ent_coef=0.02),
    "copy",
    total_timesteps=900_000,
    agent=TINY,
    world_kwargs={"letters": "abcdefgh", "sizes": (3, 3), "larger": (4, 4), "max_completion_length": 3},
    evaluations=30,
    reach=0.9,
)
"""Of 512 strings 99 are never trained on; of answers drawn uniformly one in 2,000 is right."""

RECIPES = (
    COPY,
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
    Recipe(
        "grpo-reverse-few", GROUPS, "reverse", total_timesteps=1_500_000, agent=TINY, warm=FEW, evaluations=30
    ),
    replace(FEW, name="imitate-reverse-few-longer", total_timesteps=1_560_000, evaluations=30),
    Recipe("grpo-addition", GROUPS, "addition", total_timesteps=400_000, agent=SMALL, warm=SUMS),
    Recipe("imitate-addition-longer", IMITATE, "addition", total_timesteps=550_000, agent=SMALL),
)
