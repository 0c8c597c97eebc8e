"""TRPO on MuJoCo: normalised observations, scaled rewards, advantages as they are.

As with PPO, not standardising advantages is what lets HalfCheetah out of its slow gaits.
"""

from pgrad.algorithms import TRPO
from pgrad.models import AgentSpec
from pgrad.recipes.recipe import Recipe

ALGORITHM = TRPO(cg_max_steps=25, n_critic_updates=20, normalize_advantage=False)
AGENT = AgentSpec(log_std_init=-0.5, normalize_obs=True, normalize_reward=True)

RECIPES = tuple(
    Recipe(f"trpo-{name}", ALGORITHM, world, total_timesteps=1_000_000, agent=AGENT, reach=reach)
    for name, world, reach in (("halfcheetah", "HalfCheetah-v5", 4400.0), ("hopper", "Hopper-v5", 2500.0))
)
