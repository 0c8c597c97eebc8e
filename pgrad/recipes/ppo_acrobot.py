"""PPO on Acrobot-v1: sixteen worlds, normalised; the reward is −1 until the tip is up."""

from pgrad.algorithms import PPO
from pgrad.models import AgentSpec
from pgrad.recipes.recipe import Recipe

RECIPES = (
    Recipe(
        "ppo-acrobot",
        PPO(n_steps=128, n_epochs=4, gae_lambda=0.94, ent_coef=0.0),
        "Acrobot-v1",
        total_timesteps=500_000,
        n_envs=16,
        agent=AgentSpec(normalize_obs=True, normalize_reward=True),
        reach=-85.0,
    ),
)
