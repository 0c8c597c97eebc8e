"""DiscreteSAC on CartPole-v1: small networks, a gradient step for every four decisions."""

from pgrad.algorithms import DiscreteSAC
from pgrad.models import AgentSpec
from pgrad.recipes.recipe import Recipe

RECIPES = (
    Recipe(
        "discrete-sac-cartpole",
        DiscreteSAC(learning_rate=1e-3, gradient_steps=2, tau=0.02),
        "CartPole-v1",
        total_timesteps=100_000,
        agent=AgentSpec(net_arch=(64, 64), activation="relu"),
        reach=475.0,
    ),
)
