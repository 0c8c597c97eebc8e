"""pgrad: policy-gradient reinforcement learning, from REINFORCE to GRPO.

import pgrad as pg
run = pg.train(pg.PPO(clip_range=0.1), "CartPole-v1", total_timesteps=100_000, seed=1)
run.evaluate(episodes=100)
"""

from pgrad.algorithms import A2C, PPO, PPOKL, ActorCritic, Reinforce
from pgrad.errors import CheckpointError, PgradError, TrainingError, UsageError, WorldError
from pgrad.models import Agent, AgentSpec
from pgrad.run import Run, load, resume, train

__version__ = "0.1.0"

__all__ = [
    "A2C",
    "PPO",
    "PPOKL",
    "ActorCritic",
    "Agent",
    "AgentSpec",
    "CheckpointError",
    "PgradError",
    "Reinforce",
    "Run",
    "TrainingError",
    "UsageError",
    "WorldError",
    "load",
    "resume",
    "train",
]
