"""PPO and TRPO on the bicycle: a mean return of 495 means that at least 95 of 100 rides stay up.

A ride that stays up for its 500 steps returns 500, one that falls 399 at most: a mean of 495 allows fewer
than five falls in a hundred.
"""

from pgrad.algorithms import PPO, TRPO
from pgrad.models import AgentSpec
from pgrad.recipes.recipe import Recipe

RECIPES = tuple(
    Recipe(
        f"{name}-bicycle",
        algorithm,
        "bicycle",
        total_timesteps=150_000,
        agent=AgentSpec(log_std_init=-1.0),
        reach=495.0,
        every_seed=495.0,
    )
    for name, algorithm in (("ppo", PPO(ent_coef=0.0)), ("trpo", TRPO()))
)
