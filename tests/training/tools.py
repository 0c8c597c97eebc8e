"""A training in memory."""

from dataclasses import replace
from typing import Any

import torch

import pgrad as pg
from pgrad.models import build_agent
from pgrad.training.loop import Training
from pgrad.training.streams import Seeds, generator
from pgrad.worlds import make

NORMALIZED = pg.AgentSpec(net_arch=(4,), normalize_obs=True, normalize_reward=True)
CODED = replace(NORMALIZED, activation="silu")  # numpy does not know it: where there is machine code it acts


def training(
    algorithm: Any, world: Any = "cartpole", *, agent: Any = NORMALIZED, n_envs: int = 2
) -> Training:
    seeds = Seeds.spawn(0)
    made = make(world, n_envs=n_envs, seed=seeds.world)
    spaces_ = made.observation_space, made.action_space
    built = build_agent(
        *spaces_,
        agent,
        gamma=algorithm.gamma,
        critic=algorithm.critic,
        generator=generator(seeds.agent),
    )
    return Training(algorithm, made, built, seeds, 10_000, torch.device("cpu"))
