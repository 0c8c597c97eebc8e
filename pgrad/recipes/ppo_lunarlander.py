"""PPO on LunarLander-v3: long rollouts of sixteen worlds and a horizon that sees the landing."""

from pgrad.algorithms import PPO
from pgrad.recipes.recipe import Recipe

RECIPES = (
    Recipe(
        "ppo-lunarlander",
        PPO(n_steps=1024, n_epochs=4, gamma=0.999, gae_lambda=0.98),
        "LunarLander-v3",
        total_timesteps=1_000_000,
        n_envs=16,
        reach=230.0,
    ),
)
