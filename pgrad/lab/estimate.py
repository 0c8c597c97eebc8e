"""Expectation and variance of an estimator: the very functions that train, on all that can happen."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pgrad.algorithms import Algorithm
from pgrad.data import Trajectory, leaves, map_tree
from pgrad.lab import exact
from pgrad.lab.agent import TabularAgent
from pgrad.lab.enumerate import every_group
from pgrad.lab.problems import Case
from pgrad.math.objectives import score_function
from pgrad.math.reduce import constant

Estimator = Callable[[TabularAgent, Trajectory], Tensor]
"""A scalar whose gradient in the policy's parameters is the estimate (to be ascended)."""

MAX_GROUPS = 1_000_000
CHUNK = 400_000  # decisions differentiated at once


@dataclass(frozen=True, eq=False)
class Estimates:
    """Every value an estimator can take, and how likely each is."""

    gradient: Tensor  # [G, P]  P = O·A
    probability: Tensor  # [G]

    @property
    def mean(self) -> Tensor:
        """E[ĝ], [P]."""
        return self.probability @ self.gradient

    @property
    def covariance(self) -> Tensor:
        """Cov[ĝ], [P, P]."""
        centred = self.gradient - self.mean
        return (centred * self.probability.unsqueeze(1)).T @ centred

    @property
    def variance(self) -> float:
        """The trace of the covariance, E|ĝ − E ĝ|²."""
        return float(self.probability @ (self.gradient - self.mean).square().sum(1))


def estimator_of(algorithm: Algorithm) -> Estimator:
    """The gradient that one `loss` of an algorithm gives on fresh experience: −∇loss(credit)."""
    return lambda agent, traj: -algorithm.loss(agent, algorithm.credit(agent, traj))[0]


def estimator(
    credit: Callable[[TabularAgent, Trajectory], Tensor],
    objective: Callable[[Tensor, Tensor, Tensor], Tensor],
    reduce: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Estimator:
    """From functions of floor 0: Σ_t objective(log π, log μ, Â), averaged over episodes.

    credit(agent, traj) → Â [T, B], a constant; objective(logp, logp_old, advantage) → [T, B], with the
    paper's sign (to be maximised); reduce(x, mask) → a scalar; by default the sum over decisions and the mean
    over episodes, whose expectation should be ∇J.
    """

    def estimate(agent: TabularAgent, traj: Trajectory) -> Tensor:
        advantage = credit(agent, traj)
        logp = agent.policy(traj.decisions).log_prob(traj.action)
        x = objective(logp, traj.logp, advantage)
        return (reduce or episode_sum)(x, traj.mask)

    return estimate


def weighted_scores(credit: Callable[[TabularAgent, Trajectory], Tensor]) -> Estimator:
    """Σ_t log π·Â: the score function's estimator with this credit."""
    return estimator(credit, lambda logp, logp_old, advantage: score_function(logp, advantage))


def episode_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Σ over decisions, mean over episodes: Σ m·x / Σ m₀, where m₀ weighs first decisions.

    Those are the first row, and each that comes right behind a row of weight 0.
    """
    behind = torch.cat([torch.ones_like(mask[:1]), (mask[:-1] == 0).to(mask.dtype)])
    return constant(x, mask, (mask * behind).sum())


def agent_of(case: Case, critic: Tensor | None = None) -> TabularAgent:
    """The policy of a case with a critic V_t(s) [T+1, S]: by default V of the policy that acted."""
    if critic is None:
        critic = exact.values(case.problem, case.actor, case.gamma, case.steps).V
    return TabularAgent(case.theta, critic, case.problem.observation)


def expectation(estimator: Estimator | Algorithm, case: Case, critic: Tensor | None = None) -> Tensor:
    """The gradient [O, A] on everything that can happen at once, mask = p(τ): one call of autograd.

    E[ĝ] for estimators that are sums over episodes, and for batch means and standardisation the limit of
    large batches. What treats columns as single samples (leave-one-out, groups) has no such reading:
    `estimates(..., episodes=N)` has E[ĝ] for batches of N, for all of them.
    """
    estimate, agent = _callable(estimator), agent_of(case, critic)

    def all_at_once(theta: Tensor) -> Tensor:
        return estimate(TabularAgent(theta, agent.critic, agent.observation), case.trajectory)

    return _gradient(all_at_once, case.theta)


def variance(
    estimator: Estimator | Algorithm, case: Case, critic: Tensor | None = None, episodes: int = 1
) -> float:
    """The trace of the covariance of the estimate from `episodes` episodes."""
    return estimates(estimator, case, critic, episodes).variance


def estimates(
    estimator: Estimator | Algorithm, case: Case, critic: Tensor | None = None, episodes: int = 1
) -> Estimates:
    """The estimate from every possible batch of `episodes` episodes, with its probability.

    Vectorised where the estimator can be; one batch after the other where it cannot (it branches on
    numbers). Its order of episodes must not matter.
    Raises UsageError for more batches than can be enumerated.
    """
    estimate, agent, traj = _callable(estimator), agent_of(case, critic), case.trajectory
    p = traj.mask[0]
    columns, orders = every_group(len(p), episodes, MAX_GROUPS)

    def one(theta: Tensor, batch: Trajectory) -> Tensor:
        return estimate(TabularAgent(theta, agent.critic, agent.observation), batch)

    return of_batches(one, agent.theta, traj, columns, orders * p[columns].prod(1))


def of_batches(
    estimate: Callable[[Tensor, Trajectory], Tensor],
    theta: Tensor,
    traj: Trajectory,
    columns: Tensor,
    probability: Tensor,
) -> Estimates:
    """The gradient of estimate(theta, batch) for batches of these columns [G, N], each column of weight 1."""
    everything = replace(traj, mask=(traj.mask > 0).to(traj.mask.dtype))

    def one(theta: Tensor, parts: list[Tensor]) -> Tensor:
        given = iter(parts)
        return estimate(theta, map_tree(lambda _: next(given), everything))

    rows = []
    size = max(1, CHUNK // (len(traj.reward) * columns.shape[1]))
    for part in torch.split(columns, size):
        groups = [x[:, part] for x in leaves(everything)]  # each [T, G, N]
        try:
            each = torch.func.vmap(torch.func.grad(one), in_dims=(None, 1))(theta, groups)
        except RuntimeError:
            single = [[x[:, i] for x in groups] for i in range(len(part))]
            each = torch.stack([_gradient(lambda theta: one(theta, x), theta) for x in single])  # noqa: B023
        rows.append(each.flatten(1))
    return Estimates(torch.cat(rows), probability)


def cosine(x: Tensor, y: Tensor) -> float:
    """Of the angle between two gradients of any shape, however short; 0 where one is zero."""
    tiny = torch.finfo(x.dtype).tiny  # by default what is shorter than 1e-8 is taken to be that long
    return float(torch.cosine_similarity(x.flatten(), y.flatten(), dim=0, eps=tiny))


def _gradient(function: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    leaf = theta.detach().clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


def _callable(given: Estimator | Algorithm) -> Estimator:
    return estimator_of(given) if isinstance(given, Algorithm) else given
