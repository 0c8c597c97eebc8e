"""A2C on HalfCheetah-v5: normalised, Adam, the step size falling to zero; the seeds differ widely."""

from pgrad.algorithms import A2C
from pgrad.models import AgentSpec
from pgrad.recipes.recipe import Recipe

RECIPES = (
    Recipe(
        "a2c-halfcheetah",
        A2C(
            learning_rate=1e-3,
            gae_lambda=0.9,
            ent_coef=0.0,
            learning_rate_schedule="linear",
            optimizer="adam",
        ),
        "HalfCheetah-v5",
        total_timesteps=1_000_000,
        agent=AgentSpec(log_std_init=-1.0, normalize_obs=True, normalize_reward=True),
        reach=1800.0,
    ),
)
