"""The algorithms, one page each.

`credit`: how good was each decision? `loss`: what should become likelier? `update`: how are the two spent?
"""

from pgrad.algorithms.a2c import A2C
from pgrad.algorithms.actor_critic import ActorCritic
from pgrad.algorithms.discrete_sac import DiscreteSAC
from pgrad.algorithms.grpo import GRPO
from pgrad.algorithms.imitate import Imitate
from pgrad.algorithms.off_policy_actor_critic import OffPolicyActorCritic
from pgrad.algorithms.ppo import PPO
from pgrad.algorithms.ppo_kl import PPOKL
from pgrad.algorithms.protocol import Algorithm
from pgrad.algorithms.reinforce import Reinforce
from pgrad.algorithms.sac import SAC
from pgrad.algorithms.trpo import TRPO

ALGORITHMS: dict[str, type[Algorithm]] = {
    "ppo": PPO,
    "ppo-kl": PPOKL,
    "grpo": GRPO,
    "a2c": A2C,
    "trpo": TRPO,
    "sac": SAC,
    "discrete-sac": DiscreteSAC,
    "reinforce": Reinforce,
    "actor-critic": ActorCritic,
    "off-policy-actor-critic": OffPolicyActorCritic,
    "imitate": Imitate,
}
"""The command line's names."""

__all__ = [
    "A2C",
    "ALGORITHMS",
    "GRPO",
    "PPO",
    "PPOKL",
    "SAC",
    "TRPO",
    "ActorCritic",
    "Algorithm",
    "DiscreteSAC",
    "Imitate",
    "OffPolicyActorCritic",
    "Reinforce",
]
