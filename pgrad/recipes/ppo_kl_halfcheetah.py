"""PPO with the adaptive KL penalty on HalfCheetah, in 8 environments with a step size that stays.

So is the clipped objective's ppo-halfcheetah-8. With 64 environments and a step size that falls, where that
reaches 6821, this one stays at 4943 [4244, 5642].
"""

from pgrad.algorithms import PPOKL
from pgrad.models import AgentSpec
from pgrad.recipes.recipe import Recipe

RECIPES = (
    Recipe(
        "ppo-kl-halfcheetah",
        PPOKL(ent_coef=0.0, vf_coef=0.25, normalize_advantage=False),
        "HalfCheetah-v5",
        total_timesteps=1_000_000,
        agent=AgentSpec(log_std_init=-0.5, normalize_obs=True, normalize_reward=True),
        reach=3675.0,  # 80% of 4594, ppo-halfcheetah-8
    ),
)
