"""A training in memory, and what is trained by machine code."""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

import pgrad as pg
from pgrad.models import build_agent
from pgrad.training.loop import Training
from pgrad.training.streams import Seeds, generator
from pgrad.worlds import make

NORMALIZED = pg.AgentSpec(net_arch=(4,), normalize_obs=True, normalize_reward=True)
CODED = replace(NORMALIZED, activation="silu")  # numpy does not know it: where there is machine code it acts
RELU = pg.AgentSpec(net_arch=(16, 16), activation="relu", normalize_obs=True)
CONSTRAINED = pg.TRPO(n_steps=5, batch_size=10, n_critic_updates=2)
"""In windows of as many decisions as the tests of its derivatives have: one compilation serves both."""


class Parts(gymnasium.Env[Any, Any]):
    """Turn the way the first number points, and push by the second; six decisions."""

    observation_space = spaces.Box(-1.0, 1.0, (3,))
    action_space = spaces.Dict({"turn": spaces.Discrete(2), "push": spaces.Box(-1.0, 1.0, (1,))})

    def observe(self) -> Any:
        self.seen = self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32)
        return self.seen

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        turned, missed = action["turn"] == (self.seen[0] > 0), action["push"][0] - self.seen[1]
        self.t += 1
        return self.observe(), float(turned - missed**2), self.t == 6, False, {}


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
