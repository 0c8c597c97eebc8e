"""SAC on MuJoCo: one world, a gradient step for every decision, 10,000 decisions before the first.

The step size is that of Spinning Up and Tianshou: HalfCheetah's training returns after 230,000 decisions are
about 6900 with it and 5650 with 3e-4. A decision costs some milliseconds, so there are fewer of them, and of
seeds, than elsewhere. HalfCheetah's ε is that of the on-policy algorithms.
"""

from dataclasses import replace

from pgrad.algorithms import SAC
from pgrad.recipes.recipe import Recipe
from pgrad.run.config import default_spec

ALGORITHM = SAC(learning_rate=1e-3, learning_starts=10_000)

RECIPES = tuple(
    Recipe(
        f"sac-{name}",
        algorithm,
        world,
        total_timesteps=total_timesteps,
        n_envs=1,
        agent=default_spec(algorithm),
        reach=reach,
        seeds=3,
    )
    for name, algorithm, world, total_timesteps, reach in (
        (
            "halfcheetah",
            replace(ALGORITHM, optimizer_eps=1e-5),
            "HalfCheetah-v5",
            1_000_000,
            10_000.0,
        ),
        ("hopper", ALGORITHM, "Hopper-v5", 200_000, 2400.0),
    )
)
