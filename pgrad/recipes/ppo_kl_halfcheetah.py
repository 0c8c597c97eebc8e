"""PPO with the adaptive KL penalty on HalfCheetah, with the clipped one's settings where both have them."""

from pgrad.algorithms import PPOKL
from pgrad.models import AgentSpec
from pgrad.recipes.recipe import Recipe

RECIPES = (
    Recipe(
        "ppo-kl-halfcheetah",
        PPOKL(
            n_steps=32,
            ent_coef=0.0,
            vf_coef=0.25,
            normalize_advantage=False,
            learning_rate_schedule="linear",
        ),
        "HalfCheetah-v5",
        total_timesteps=1_000_000,
        n_envs=64,
        agent=AgentSpec(log_std_init=-0.5, normalize_obs=True, normalize_reward=True),
        reach=5457.0,  # 80% of the clipped objective's 6821
    ),
)
