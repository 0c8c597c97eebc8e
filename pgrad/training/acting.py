"""How an agent chooses, as functions of tensors alone."""

from typing import Any

from torch import Generator, Tensor

from pgrad.data import Tree

Choice = tuple[Tree, Tensor, dict[str, Tensor]]
"""The actions of every environment, log π(a|s), and the memories after them (none without a memory)."""


def sampled(agent: Any, seen: Tree, generator: Generator) -> Choice:
    """a ~ π(·|s)."""
    policy, state = agent.respond(seen)
    action = policy.sample(generator)
    return action, policy.log_prob(action), state


def likeliest(agent: Any, seen: Tree) -> Choice:
    """The policy's mode."""
    policy, state = agent.respond(seen)
    return policy.mode, policy.log_prob(policy.mode), state
