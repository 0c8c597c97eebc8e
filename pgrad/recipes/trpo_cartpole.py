"""TRPO on CartPole, with its defaults."""

from pgrad.algorithms import TRPO
from pgrad.recipes.recipe import Recipe

RECIPES = (Recipe("trpo-cartpole", TRPO(), "CartPole-v1", total_timesteps=100_000, reach=490.0),)
