"""Off-policy actor-critic on CartPole-v1, every decision in five batches, the same but for the weighting."""

from pgrad.algorithms import OffPolicyActorCritic
from pgrad.recipes.recipe import Recipe

RECIPES = (
    Recipe(
        "off-policy-vtrace-cartpole",
        OffPolicyActorCritic(),
        "CartPole-v1",
        total_timesteps=100_000,
        reach=475.0,
    ),
    Recipe(
        "off-policy-step-cartpole",
        OffPolicyActorCritic(weighting="step"),
        "CartPole-v1",
        total_timesteps=100_000,
    ),
    Recipe(
        "off-policy-prefix-cartpole",
        OffPolicyActorCritic(weighting="prefix"),
        "CartPole-v1",
        total_timesteps=100_000,
    ),
    Recipe(
        "off-policy-per-decision-cartpole",
        OffPolicyActorCritic(weighting="per-decision"),
        "CartPole-v1",
        total_timesteps=100_000,
    ),
    Recipe(
        "off-policy-trajectory-cartpole",
        OffPolicyActorCritic(weighting="trajectory"),
        "CartPole-v1",
        total_timesteps=100_000,
    ),
)
