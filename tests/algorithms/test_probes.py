"""Every algorithm finds the exact answers of the probe worlds; `probes.py` tells what each world isolates.

Networks are small and learning rates large and falling: each run takes a fraction of a second.
"""

from typing import Any

import pytest
import torch

import pgrad as pg
from pgrad.algorithms.reinforce import Baseline
from pgrad.worlds.tensors.probes import PROBES

GAMMA = 0.5
COMMON: dict[str, Any] = {
    "gamma": GAMMA,
    "learning_rate_schedule": "linear",
    "ent_coef": 0.0,
    "learning_rate": 0.05,
}
BASELINES: tuple[Baseline, ...] = ("none", "mean", "leave-one-out", "optimal", "value")

SOFT: dict[str, Any] = COMMON | {
    "ent_coef": 0.05,  # so little that the soft values are nearly the values
    "learning_rate": 0.01,
    "critic_learning_rate": 0.02,
    "tau": 0.1,
    "gradient_steps": 4,
    "batch_size": 128,
    "learning_starts": 128,
}

# Algorithm and the steps it needs for a discrete and a continuous world.
ALGORITHMS: dict[str, tuple[Any, int, int]] = {
    "ppo": (pg.PPO(n_steps=4, batch_size=64, n_epochs=3, **COMMON), 700, 1800),
    "ppo-kl": (pg.PPOKL(n_steps=4, batch_size=64, n_epochs=3, **COMMON), 700, 1500),
    "trpo": (
        pg.TRPO(
            n_steps=4,
            batch_size=64,
            n_critic_updates=3,
            target_kl=0.05,
            **{key: x for key, x in COMMON.items() if key != "ent_coef"},
        ),
        1400,
        2500,
    ),
    "sac": (pg.SAC(**SOFT), 1200, 2500),
    "discrete-sac": (pg.DiscreteSAC(**SOFT), 1200, 0),
    "a2c": (pg.A2C(n_steps=4, optimizer="adam", **COMMON), 2500, 3000),
    "grpo": (pg.GRPO(n_prompts=4, num_generations=4, batch_size=8, n_epochs=2, **COMMON), 1600, 3000),
    "actor-critic, TD": (pg.ActorCritic(n_steps=4, n_critic_updates=3, **COMMON), 1500, 2500),
    "actor-critic, MC": (
        pg.ActorCritic(n_steps=4, bootstrap_steps=None, n_critic_updates=3, **COMMON),
        1500,
        2500,
    ),
    "actor-critic, online": (pg.ActorCritic(n_steps=1, n_critic_updates=2, **COMMON), 1200, 1800),
}
for baseline in BASELINES:
    reinforce = pg.Reinforce(baseline=baseline, n_episodes=32, n_critic_updates=4, **COMMON)
    ALGORITHMS[f"reinforce, {baseline}"] = (reinforce, 1200, 1800)

CASES = [
    (name, probe)
    for name, (algorithm, _, _) in ALGORITHMS.items()
    for probe in PROBES
    if getattr(algorithm, "actions", None) in (None, type(PROBES[probe].action_space).__name__)
    and (algorithm.critic != "none" or PROBES[probe].action is not None)  # else there is nothing to find out
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "world"), CASES)
def test_the_exact_answer_is_found(name: str, world: str, seed: int) -> None:
    algorithm, discrete, continuous = ALGORITHMS[name]
    probe = PROBES[world]
    solution = probe.solution(GAMMA)
    run = pg.train(
        algorithm,
        world,
        total_timesteps=continuous if probe.continuous and probe.action else discrete,
        n_envs=32,
        seed=seed,
        agent=pg.AgentSpec(net_arch=(16,), log_std_init=-1.5),
    )
    with torch.no_grad():
        policy = run.agent.policy(solution.obs)
        if solution.action is not None and probe.continuous:
            assert policy.mode == pytest.approx(solution.action, abs=0.15)
        elif solution.action is not None:
            assert policy.log_prob(solution.action).exp().min() > 0.95
        if algorithm.critic == "value":
            assert run.agent.value(solution.obs) == pytest.approx(solution.value, abs=0.1)
        elif algorithm.critic == "q":
            q = run.agent.q(solution.obs, policy.mode if probe.continuous else None)
            best = q if probe.continuous else q.amax(-1)
            assert best[0] == pytest.approx(solution.value, abs=0.1)
            assert best[1] == pytest.approx(solution.value, abs=0.1)
