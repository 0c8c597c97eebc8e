"""Published results that anyone can run again: one file each, with its numbers and what it must reach."""

from pgrad.recipes import (
    a2c_cartpole,
    a2c_halfcheetah,
    actor_critic_cartpole,
    bicycle,
    discrete_sac_cartpole,
    language,
    memory,
    off_policy_cartpole,
    parity,
    ppo_acrobot,
    ppo_atari,
    ppo_cartpole,
    ppo_kl_halfcheetah,
    ppo_lunarlander,
    ppo_mujoco,
    ppo_pendulum,
    reinforce_cartpole,
    sac_mujoco,
    sac_pendulum,
    trpo_cartpole,
    trpo_mujoco,
)
from pgrad.recipes.recipe import Recipe

MODULES = (
    ppo_cartpole,
    ppo_acrobot,
    ppo_atari,
    ppo_pendulum,
    ppo_lunarlander,
    ppo_mujoco,
    ppo_kl_halfcheetah,
    bicycle,
    memory,
    a2c_cartpole,
    a2c_halfcheetah,
    trpo_cartpole,
    trpo_mujoco,
    sac_pendulum,
    sac_mujoco,
    discrete_sac_cartpole,
    reinforce_cartpole,
    actor_critic_cartpole,
    off_policy_cartpole,
    language,
    parity,
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for module in MODULES for recipe in module.RECIPES}
"""All recipes by name."""

__all__ = ["RECIPES", "Recipe"]
