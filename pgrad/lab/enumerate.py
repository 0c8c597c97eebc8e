"""Everything that can happen as one `Trajectory`: with mask = p(τ), sums are exact expectations."""

from collections import Counter
from itertools import combinations_with_replacement
from math import factorial, prod

import torch
from torch import Tensor

from pgrad.data import Trajectory
from pgrad.errors import UsageError
from pgrad.worlds.tensors.tabular import Tabular

LONGEST = 1000
"""Decisions, where there are few enough trajectories."""


def every_trajectory(problem: Tabular, theta: Tensor, steps: int, limit: int) -> Trajectory:
    """All K trajectories of `steps` decisions under π = softmax(theta), columns of a Trajectory [T, K].

    An observation is t·S + s, of which the policy sees observation[s] and a critic everything. What cannot
    happen (probability 0) is left out. Where a terminal state ends an episode early the rest of its column is
    padding: done, mask 0. The last row is terminated if the problem has a horizon, and truncated by the
    window if it has none.

    Raises UsageError for more than `limit` trajectories.
    """
    if steps > LONGEST:
        raise UsageError(f"{problem.name} has {steps} decisions: too many to enumerate")
    S = problem.n_states
    dynamics = torch.where(problem.terminal[:, None, None], _stay(problem), problem.P)
    log_pi = theta.log_softmax(1)[problem.observation]  # [S, A]
    state = problem.rho0.nonzero()[:, 0].unsqueeze(0)  # [1, K]
    action = torch.zeros(0, state.shape[1], dtype=torch.int64)
    p = problem.rho0[state[0]]
    for t in range(steps):
        if t + 1 == problem.horizon:  # what follows is worth nothing, so one column stands for all of it
            dynamics = dynamics.sum(2, keepdim=True) * torch.eye(S, dtype=dynamics.dtype)[:, None]
        after = dynamics[state[-1]]
        column, a, s = after.nonzero().unbind(1)  # [K'] every continuation with p > 0
        if len(column) > limit:
            raise UsageError(
                f"{problem.name} has more than {limit:,} trajectories of {steps} decisions: too many to "
                f"enumerate; shorten the horizon, or make more transitions impossible"
            )
        ended = problem.terminal[state[-1]][column]
        chosen = log_pi.exp()[state[-1][column], a]
        p = p[column] * after[column, a, s] * torch.where(ended, 1.0, chosen)
        state = torch.cat([state[:, column], s.unsqueeze(0)])
        action = torch.cat([action[:, column], a.unsqueeze(0)])
    padding = problem.terminal[state[:-1]]
    terminated = problem.terminal[state[1:]] & ~padding
    if problem.horizon == steps:
        terminated[-1] |= ~padding[-1]
    done = terminated | padding
    done[-1] = True
    return Trajectory(
        obs=state + S * torch.arange(steps + 1).unsqueeze(1),
        action=action,
        logp=log_pi[state[:-1], action],
        reward=problem.r[state[:-1], action].masked_fill(padding, 0.0),
        terminated=terminated,
        done=done,
        mask=p * ~padding,
    )


def every_group(n_trajectories: int, episodes: int, limit: int) -> tuple[Tensor, Tensor]:
    """All unordered choices of `episodes` columns with repetition [G, N], and in how many orders each comes.

    For estimators that do not care about the order of episodes, their probability is this number times the
    product of the columns'. Raises UsageError for more than `limit`.
    """
    count = prod(range(n_trajectories, n_trajectories + episodes)) // factorial(episodes)
    if count > limit:
        raise UsageError(
            f"{count:,} groups of {episodes} out of {n_trajectories:,} trajectories are more than {limit:,}: "
            f"take a smaller problem or fewer episodes"
        )
    if episodes == 1:
        return torch.arange(n_trajectories).unsqueeze(1), torch.ones(n_trajectories, dtype=torch.float64)
    if episodes == 2:
        columns = torch.combinations(torch.arange(n_trajectories), 2, with_replacement=True)
        return columns, 2.0 - (columns[:, 0] == columns[:, 1]).to(torch.float64)
    groups = list(combinations_with_replacement(range(n_trajectories), episodes))
    orders = [factorial(episodes) / prod(map(factorial, Counter(group).values())) for group in groups]
    return torch.tensor(groups), torch.tensor(orders, dtype=torch.float64)


def _stay(problem: Tabular) -> Tensor:
    """[S, A, S]: action 0, for certain, and no change. What padding does."""
    stay = torch.zeros_like(problem.P)
    stay[:, 0] = torch.eye(problem.n_states, dtype=stay.dtype)
    return stay
