"""Actor-critic on CartPole-v1: batch, with returns as far as the window shows them, and online."""

from pgrad.algorithms import ActorCritic
from pgrad.recipes.recipe import Recipe

RECIPES = (
    Recipe(
        "actor-critic-batch-cartpole",
        ActorCritic(n_steps=64, bootstrap_steps=None, ent_coef=0.0),
        "CartPole-v1",
        total_timesteps=300_000,
        reach=475.0,
    ),
    Recipe(
        "actor-critic-online-cartpole",
        ActorCritic(n_steps=1, n_critic_updates=1),
        "CartPole-v1",
        total_timesteps=300_000,
    ),
)
