"""PPO with a memory where the present observation is not enough, and the same without one beside it.

In the maze 0 is provably the best without a memory. On the cart-pole without velocities no bound is proven: a
direct search over memoryless policies (`examples/without_memory.py`) ends at 45 of 500, near where PPO does;
with velocities the same search ends at 500.
"""

from pgrad.algorithms import PPO
from pgrad.models import AgentSpec
from pgrad.recipes.recipe import Recipe

MAZE = PPO(
    learning_rate=1e-3,
    n_steps=128,
    batch_size=256,
    n_epochs=4,
    normalize_advantage=False,
    learning_rate_schedule="linear",
)
"""A return of 1 is best, and 0 is best without a memory (`pgrad.worlds.tensors.tmaze`)."""

POLE = PPO(
    learning_rate=1e-3,
    batch_size=256,
    gamma=0.98,
    gae_lambda=0.9,
    ent_coef=0.0,
    target_kl=0.02,
    learning_rate_schedule="linear",
)

RECIPES = (
    Recipe(
        "ppo-memory-t-maze",
        MAZE,
        "t-maze",
        total_timesteps=150_000,
        agent=AgentSpec(net_arch=(32,), memory="gru", memory_size=32),
        reach=1.0,
        every_seed=1.0,
    ),
    Recipe(
        "ppo-no-memory-t-maze", MAZE, "t-maze", total_timesteps=150_000, agent=AgentSpec(net_arch=(32, 32))
    ),
    Recipe(
        "ppo-memory-cartpole-masked",
        POLE,
        "cartpole-masked",
        total_timesteps=200_000,
        agent=AgentSpec(memory="gru", normalize_obs=True),
        reach=475.0,
    ),
    Recipe(
        "ppo-no-memory-cartpole-masked",
        POLE,
        "cartpole-masked",
        total_timesteps=200_000,
        agent=AgentSpec(normalize_obs=True),
    ),
)
