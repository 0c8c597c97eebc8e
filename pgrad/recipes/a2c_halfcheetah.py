"""A2C on HalfCheetah-v5: sixteen worlds, normalised, the step size falling to zero."""

from pgrad.algorithms import A2C
from pgrad.models import AgentSpec
from pgrad.recipes.recipe import Recipe

RECIPES = (
    Recipe(
        "a2c-halfcheetah",
        A2C(gae_lambda=0.95, ent_coef=0.0, learning_rate_schedule="linear"),
        "HalfCheetah-v5",
        total_timesteps=1_000_000,
        n_envs=16,
        agent=AgentSpec(log_std_init=-0.5, normalize_obs=True, normalize_reward=True),
        reach=1800.0,
    ),
)
