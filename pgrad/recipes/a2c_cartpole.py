"""A2C on CartPole-v1 with nothing but defaults."""

from pgrad.algorithms import A2C
from pgrad.recipes.recipe import Recipe

RECIPES = (Recipe("a2c-cartpole", A2C(), "CartPole-v1", total_timesteps=200_000, reach=475.0),)
