"""Grade an idea of your own against the exact gradient, before training with it.

The idea on trial: no decision should count for more than 1, so cut the advantage off at ±1.
"""

import torch

from pgrad import lab
from pgrad.math.credit import discount_weight, gae


def my_credit(agent, traj, gamma):  # type: ignore[no-untyped-def]
    """How good was each decision? γᵗ·Â, with the Â of GAE cut off."""
    advantage = gae(traj.reward, agent.value(traj.obs), traj.terminated, traj.done, gamma, 0.95)
    return discount_weight(traj.done, gamma, advantage.dtype) * advantage.clamp(-1.0, 1.0)


def my_objective(logp, logp_old, advantage):  # type: ignore[no-untyped-def]
    """What should become likelier? The ratio of probabilities times a constant."""
    return torch.exp(logp - logp_old) * advantage.detach()


if __name__ == "__main__":
    print(lab.grade(credit=my_credit, objective=my_objective))
    print("\nand without the cut:")
    print(lab.grade(objective=my_objective))
