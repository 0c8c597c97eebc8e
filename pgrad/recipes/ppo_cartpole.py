"""PPO on CartPole-v1 with nothing but defaults."""

from pgrad.algorithms import PPO
from pgrad.recipes.recipe import Recipe

RECIPES = (
    Recipe("ppo-cartpole", PPO(), "CartPole-v1", total_timesteps=100_000, reach=490.0, every_seed=475.0),
)
