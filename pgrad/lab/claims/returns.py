"""Scores weighted by returns, less a table of baselines: what claims about baselines are made of."""

from collections.abc import Callable
from dataclasses import replace
from math import comb

import torch
from torch import Tensor

from pgrad.data import Trajectory
from pgrad.lab import exact
from pgrad.lab.claim import ZERO
from pgrad.lab.claims.common import gradient_error, true_gradient
from pgrad.lab.estimate import Estimates, Estimator, estimates, expectation, weighted_scores
from pgrad.lab.problems import Case
from pgrad.math import baselines
from pgrad.math.credit import discount_weight, reward_to_go
from pgrad.worlds.tensors.tabular import Tabular

BATCHES = 200_000
"""More than this many batches take too long."""

Weight = Callable[[Trajectory], Tensor]
"""What ∇log π of a decision is multiplied by, [T, B]."""


def scored(weight: Weight) -> Estimator:
    """Σ_t weight_t·∇log π(a_t|s_t)."""
    return weighted_scores(lambda agent, traj: weight(traj))


def discounted(case: Case, weight: Weight) -> Estimator:
    """Σ_t γᵗ·weight_t·∇log π(a_t|s_t)."""
    return scored(lambda traj: weight(traj) * discount_weight(traj.done, case.gamma, torch.float64))


def to_go(case: Case, traj: Trajectory) -> Tensor:
    """G_t at the discount of the case."""
    return reward_to_go(traj.reward, traj.done, case.gamma)


def look_up(case: Case, table: Tensor, traj: Trajectory) -> Tensor:
    """x(t, s_t) or x(t, s_t, a_t) of every decision, for a table [T, S] or [T, S, A]."""
    return table.flatten()[traj.decisions if table.dim() == 2 else decision_key(case, traj)]


def decision_key(case: Case, traj: Trajectory) -> Tensor:
    """(t, s, a) of every decision as one number."""
    return traj.decisions * case.problem.n_actions + traj.action


def return_minus(case: Case, table: Tensor) -> Estimator:
    """Σ_t γᵗ·∇log π·(G_t − b) for a table b(t, s), or b(t, s, a) where it should not be."""
    return discounted(case, lambda traj: to_go(case, traj) - look_up(case, table, traj))


def action_values(case: Case, table: Tensor) -> Estimator:
    """Σ_t γᵗ·∇log π·x for a table x(t, s, a), such as Q or A."""
    return discounted(case, lambda traj: look_up(case, table, traj))


def values_of(case: Case) -> exact.Values:
    """V, Q and A of the policy of a case."""
    return exact.values(case.problem, case.theta, case.gamma, case.steps)


def return_variance(case: Case) -> Tensor:
    """Var[G_t | s_t, a_t] [T, S, A]: what the discounted rest of an episode adds to a known decision."""
    problem, pi, values = case.problem, exact.policy(case.problem, case.theta), values_of(case)
    ahead, rows = torch.zeros_like(problem.rho0), list[Tensor]()
    for t in reversed(range(case.steps)):
        V = values.V[t + 1].expand_as(problem.P)
        spread = (V - (problem.P * V).sum(-1, keepdim=True)).square()
        rows.insert(0, case.gamma**2 * (problem.P * (ahead + spread)).sum(-1))
        ahead = (pi * (rows[0] + values.A[t].square())).sum(1) * ~problem.terminal
    return torch.stack(rows)


def early(case: Case) -> bool:
    """Whether J has a gradient where episodes are so short that pairs of them can be enumerated."""
    return float(true_gradient(shortened(case, 2, 2)).norm()) > ZERO


def error_of(case: Case, how: Estimator) -> float:
    """|E ĝ − ∇J| / |∇J|."""
    return gradient_error(expectation(how, case), case)


def step_optimum(case: Case, Q: Tensor) -> Tensor:
    """b*(s) = E[|∇log π|²·Q]/E[|∇log π|²] [..., S], by the function that ships, for Q [..., S, A]."""
    square = exact.scores(case.theta).square().sum(-1)[case.problem.observation]
    pi = exact.policy(case.problem, case.theta)
    return baselines.optimal(square.expand_as(Q), Q, pi.expand_as(Q)).squeeze(-1)


def returns_and_features(case: Case) -> tuple[Estimates, Tensor]:
    """Σ γᵗ·∇log π·G of every trajectory, and φ: what a unit of b(t, s) takes from it, [K, T·S, P]."""
    traj, S = case.trajectory, case.problem.n_states
    zero = torch.zeros(case.steps, S, dtype=torch.float64)
    score = exact.scores(case.theta)[case.problem.observation[traj.decisions % S], traj.action]
    weight = discount_weight(traj.done, case.gamma, torch.float64) * (traj.mask > 0)
    where = torch.nn.functional.one_hot(traj.decisions, case.steps * S).to(torch.float64)
    return estimates(return_minus(case, zero), case), torch.einsum("tk,tkx,tkp->kxp", weight, where, score)


def best_table(case: Case) -> Tensor:
    """The b(t, s) [T, S] of least variance: E|ĝ − Σ b(t, s)·φ(t, s)|² is a least-squares problem."""
    returns, phi = returns_and_features(case)
    root = returns.probability.sqrt()
    design = (root[:, None, None] * phi).transpose(1, 2).flatten(0, 1)  # [K·P, T·S]
    target = (root[:, None] * returns.gradient).flatten()
    return torch.linalg.lstsq(design, target, driver="gelsd").solution.reshape(case.steps, -1)


def shortened(case: Case, horizon: int, episodes: int = 1) -> Case:
    """The same problem with fewer decisions, where batches of several episodes are to be enumerated.

    Where there are too many batches even so: with fewer still, and at last from its likeliest start alone.
    """
    for steps in range(min(horizon, case.steps), 0, -1):
        short = replace(case, problem=replace(case.problem, horizon=steps))
        if episodes == 1 or comb(short.trajectory.mask.shape[1] + episodes - 1, episodes) <= BATCHES:
            return short
    return starting(short, int(case.problem.rho0.argmax()))


def starting(case: Case, s: int) -> Case:
    """The same problem, always started in one state."""
    alone = torch.arange(case.problem.n_states) == s
    return replace(case, problem=replace(case.problem, rho0=alone.to(torch.float64)))


def solvable(case: Case) -> bool:
    """Whether `best_table` is a matter of seconds."""
    K = case.trajectory.mask.shape[1]
    return K * case.steps * case.problem.n_states * case.theta.numel() <= 1e8


def bandit(pi: Tensor, reward: Tensor) -> Case:
    """One decision, from one state."""
    problem = Tabular(torch.ones(1, len(pi), 1), reward.unsqueeze(0), torch.ones(1), horizon=1, name="bandit")
    return Case(problem, pi.log().unsqueeze(0), torch.zeros(1, len(pi), dtype=pi.dtype), gamma=1.0)
