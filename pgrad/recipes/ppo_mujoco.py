"""PPO on MuJoCo: normalised observations, scaled rewards, advantages as they are and anew for each pass.

Not standardising advantages is what lets HalfCheetah out of its slow gaits; the choices are those of
Tianshou's MuJoCo benchmark (Weng et al. 2022), which has the best published returns.
"""

from pgrad.algorithms import PPO
from pgrad.models import AgentSpec
from pgrad.recipes.recipe import Recipe

ALGORITHM = PPO(
    ent_coef=0.0,
    vf_coef=0.25,
    normalize_advantage=False,
    recompute_advantage=True,
)
AGENT = AgentSpec(log_std_init=-0.5, normalize_obs=True, normalize_reward=True)

RECIPES = tuple(
    Recipe(f"ppo-{name}", ALGORITHM, world, total_timesteps=1_000_000, agent=AGENT, reach=reach)
    for name, world, reach in (
        ("halfcheetah", "HalfCheetah-v5", 5000.0),
        ("hopper", "Hopper-v5", 2400.0),
        ("walker2d", "Walker2d-v5", 3600.0),
    )
)
