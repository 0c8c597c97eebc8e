"""REINFORCE on CartPole-v1, the same but for the baseline."""

from pgrad.algorithms import Reinforce
from pgrad.recipes.recipe import Recipe

RECIPES = (
    Recipe("reinforce-value-cartpole", Reinforce(), "CartPole-v1", total_timesteps=300_000, reach=475.0),
    Recipe("reinforce-none-cartpole", Reinforce(baseline="none"), "CartPole-v1", total_timesteps=300_000),
    Recipe("reinforce-mean-cartpole", Reinforce(baseline="mean"), "CartPole-v1", total_timesteps=300_000),
    Recipe(
        "reinforce-leave-one-out-cartpole",
        Reinforce(baseline="leave-one-out"),
        "CartPole-v1",
        total_timesteps=300_000,
    ),
    Recipe(
        "reinforce-optimal-cartpole", Reinforce(baseline="optimal"), "CartPole-v1", total_timesteps=300_000
    ),
)
