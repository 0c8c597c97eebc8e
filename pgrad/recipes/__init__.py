"""Published results that anyone can run again: one file each, with its numbers, seeds and what it must reach."""

from pgrad.recipes import a2c_cartpole, ppo_cartpole, ppo_mujoco, reinforce_cartpole
from pgrad.recipes.recipe import Recipe

MODULES = (ppo_cartpole, ppo_mujoco, a2c_cartpole, reinforce_cartpole)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for module in MODULES for recipe in module.RECIPES}
"""All recipes by name."""

__all__ = ["RECIPES", "Recipe"]
