"""PPO on Pong from pixels: the numbers of the reference implementations, with a step size that stays.

Nothing depends on the total, so that a run can be made longer. Matrices and convolutions are multiplied in
bfloat16, which takes half the time on a processor that can; ten million decisions are what the field trains,
and more than a processor has time for.
"""

from pgrad.algorithms import PPO
from pgrad.models import AgentSpec
from pgrad.recipes.recipe import Recipe

RECIPES = (
    Recipe(
        "ppo-pong",
        PPO(
            learning_rate=2.5e-4,
            n_steps=128,
            batch_size=256,
            n_epochs=4,
            clip_range=0.1,
            ent_coef=0.01,
        ),
        "ALE/Pong-v5",
        total_timesteps=3_000_000,
        agent=AgentSpec(dtype="bfloat16"),
        seeds=1,
    ),
)
