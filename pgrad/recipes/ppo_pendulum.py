"""PPO on Pendulum-v1: a short horizon, and a large step that falls to zero."""

from pgrad.algorithms import PPO
from pgrad.recipes.recipe import Recipe

RECIPES = (
    Recipe(
        "ppo-pendulum",
        PPO(learning_rate=1e-3, gamma=0.9, ent_coef=0.0, learning_rate_schedule="linear"),
        "Pendulum-v1",
        total_timesteps=300_000,
        reach=-200.0,
    ),
)
