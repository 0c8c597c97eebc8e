"""The algorithms, one page each: how good was a decision (`credit`), what to make likelier (`loss`), how to spend
both (`update`)."""

from pgrad.algorithms.a2c import A2C
from pgrad.algorithms.actor_critic import ActorCritic
from pgrad.algorithms.ppo import PPO
from pgrad.algorithms.ppo_kl import PPOKL
from pgrad.algorithms.protocol import Algorithm
from pgrad.algorithms.reinforce import Reinforce

ALGORITHMS: dict[str, type[Algorithm]] = {
    "ppo": PPO,
    "ppo-kl": PPOKL,
    "a2c": A2C,
    "reinforce": Reinforce,
    "actor-critic": ActorCritic,
}
"""The command line's names."""

__all__ = ["ALGORITHMS", "A2C", "PPO", "PPOKL", "ActorCritic", "Algorithm", "Reinforce"]
