"""SAC on Pendulum-v1: one world, a gradient step for every decision, a larger step size."""

from pgrad.algorithms import SAC
from pgrad.recipes.recipe import Recipe
from pgrad.run.config import default_spec

ALGORITHM = SAC(learning_rate=1e-3, learning_starts=100)

RECIPES = (
    Recipe(
        "sac-pendulum",
        ALGORITHM,
        "Pendulum-v1",
        total_timesteps=20_000,
        n_envs=1,
        agent=default_spec(ALGORITHM),
        reach=-170.0,
    ),
)
