"""PPO on MuJoCo: normalised observations, scaled rewards, advantages as they are and anew for each pass.

Not standardising advantages is what lets HalfCheetah out of its slow gaits; the choices are those of
Tianshou's MuJoCo benchmark (Weng et al. 2022), which has the best published returns. Hopper has its falling
step size too, which keeps seeds from poor gaits, and HalfCheetah also its 64 environments; in 8, with a step
size that stays, it is reported beside it, for PPO-KL to be compared with.
"""

from dataclasses import replace

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

FALLING = replace(ALGORITHM, learning_rate_schedule="linear")

RECIPES = tuple(
    Recipe(f"ppo-{name}", algorithm, world, 1_000_000, n_envs, AGENT, reach=reach)
    for name, algorithm, n_envs, world, reach in (
        ("halfcheetah", replace(FALLING, n_steps=32), 64, "HalfCheetah-v5", 5000.0),
        ("halfcheetah-8", ALGORITHM, 8, "HalfCheetah-v5", None),
        ("hopper", FALLING, 8, "Hopper-v5", 2400.0),
        ("walker2d", ALGORITHM, 8, "Walker2d-v5", 3600.0),
    )
)
