"""pgrad: policy-gradient reinforcement learning, from REINFORCE to GRPO.

    import pgrad as pg
    run = pg.train(pg.PPO(clip_range=0.1), "CartPole-v1", total_timesteps=100_000, seed=1)
    run.evaluate(episodes=100)

Names are imported when they are first used, so that the command line answers before PyTorch is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pgrad.errors import CheckpointError, PgradError, TrainingError, UsageError, WorldError

if TYPE_CHECKING:
    from pgrad.algorithms import (
        A2C,
        GRPO,
        PPO,
        PPOKL,
        SAC,
        TRPO,
        ActorCritic,
        DiscreteSAC,
        Imitate,
        OffPolicyActorCritic,
        Reinforce,
    )
    from pgrad.models import Agent, AgentSpec
    from pgrad.models.language.spec import LanguageSpec
    from pgrad.run import Run, load, resume, train

__version__ = "0.1.0"

__all__ = [
    "A2C",
    "GRPO",
    "PPO",
    "PPOKL",
    "SAC",
    "TRPO",
    "ActorCritic",
    "Agent",
    "AgentSpec",
    "CheckpointError",
    "DiscreteSAC",
    "Imitate",
    "LanguageSpec",
    "OffPolicyActorCritic",
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

HOMES = {
    "pgrad.algorithms": (
        "A2C",
        "GRPO",
        "PPO",
        "PPOKL",
        "SAC",
        "TRPO",
        "ActorCritic",
        "DiscreteSAC",
        "Imitate",
        "OffPolicyActorCritic",
        "Reinforce",
    ),
    "pgrad.models": ("Agent", "AgentSpec"),
    "pgrad.models.language.spec": ("LanguageSpec",),
    "pgrad.run": ("Run", "load", "resume", "train"),
}


def __getattr__(name: str) -> Any:
    for module, names in HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'pgrad' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
