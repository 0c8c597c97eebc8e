"""SAC on MuJoCo: one world, a gradient step for every decision, 10,000 decisions before the first."""

from pgrad.algorithms import SAC
from pgrad.recipes.recipe import Recipe
from pgrad.run.config import default_spec

ALGORITHM = SAC(learning_starts=10_000)

RECIPES = tuple(
    Recipe(
        f"sac-{name}",
        ALGORITHM,
        world,
        total_timesteps=1_000_000,
        n_envs=1,
        agent=default_spec(ALGORITHM),
        reach=reach,
    )
    for name, world, reach in (("halfcheetah", "HalfCheetah-v5", 10_000.0), ("hopper", "Hopper-v5", 2400.0))
)
