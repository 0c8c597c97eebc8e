"""A grade for an estimator of one's own: bias, direction and variance on problems whose gradient is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pgrad.data import Trajectory, map_tree
from pgrad.errors import UsageError
from pgrad.lab import exact
from pgrad.lab.agent import TabularAgent
from pgrad.lab.claim import ZERO
from pgrad.lab.estimate import (
    Estimator,
    agent_of,
    episode_sum,
    estimates,
    estimator,
    estimator_of,
    expectation,
)
from pgrad.lab.problems import Case, random_case, reference
from pgrad.math.credit import discount_weight, gae
from pgrad.math.objectives import score_function

Credit = Callable[[TabularAgent, Any, float], Tensor]
"""credit(agent, traj, gamma) → Â [T, B]: how good was each decision?"""

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""objective(logp, logp_old, advantage) → [T, B], to be maximised."""


@dataclass(frozen=True)
class Grade:
    """How an estimator does on one problem."""

    problem: str
    bias: float  # |E ĝ − ∇J| / |∇J|
    cosine: float  # between E ĝ and ∇J
    scale: float  # ⟨E ĝ, ∇J⟩ / |∇J|²: how much too long or short
    variance: float  # trace of the covariance of the estimate from `episodes` episodes
    leak: float  # largest derivative that reaches the critic through the policy's objective
    growth: float  # how much longer the estimate is from twice the batch: 0 for a mean, 1 for a sum

    @property
    def unbiased(self) -> bool:
        """E ĝ = ∇J."""
        return self.bias < ZERO

    @property
    def keeps_direction(self) -> bool:
        """E ĝ = c·∇J with c > 0."""
        return self.cosine > 1 - ZERO

    @property
    def sound(self) -> bool:
        """Unbiased, nothing but the policy is moved, and the size of the batch does not matter."""
        return self.unbiased and self.leak < ZERO and abs(self.growth) < ZERO


@dataclass(frozen=True)
class Report:
    """The grades of an estimator on several problems; `print` shows them as a table."""

    grades: tuple[Grade, ...]

    @property
    def unbiased(self) -> bool:
        """On every problem."""
        return all(grade.unbiased for grade in self.grades)

    @property
    def keeps_direction(self) -> bool:
        """On every problem."""
        return all(grade.keeps_direction for grade in self.grades)

    @property
    def sound(self) -> bool:
        """On every problem."""
        return all(grade.sound for grade in self.grades)

    @property
    def verdict(self) -> str:
        """In a few words."""
        if self.sound:
            return "sound: unbiased on every problem"
        faults = []
        if not self.unbiased:
            faults.append("biased, with the right direction" if self.keeps_direction else "biased")
        if not all(grade.leak < ZERO for grade in self.grades):
            faults.append("the objective reaches the critic: the advantage is attached to the graph")
        if not all(abs(grade.growth) < ZERO for grade in self.grades):
            faults.append("the estimate grows with the batch: a sum where a mean should be")
        return "; ".join(faults)

    def __str__(self) -> str:
        columns = ("bias", "cosine", "scale", "variance", "leak", "growth")
        lines = [f"{'problem':28}" + "".join(f"{name:>10}" for name in columns)]
        for g in self.grades:
            shown = (_exactly(g.bias), f"{g.cosine:.6f}", f"{g.scale:.4f}", f"{g.variance:.4f}")
            cells = (*shown, _exactly(g.leak), _exactly(g.growth))
            lines.append(f"{g.problem:28}" + "".join(f"{cell:>10}" for cell in cells))
        return "\n".join([*lines, self.verdict])


def standard_cases(off_policy: float = 0.0, gamma: float | None = None) -> tuple[Case, ...]:
    """Six problems that tell estimators apart.

    The reference; one with three actions; episodes of different length; states that look alike; no discount;
    and windows of a problem that never ends, which are truncated and must be bootstrapped. `off_policy` c > 0
    asks about the policy theta + c·direction while theta acts (and leaves the truncated windows out: no
    importance weight makes up for the value of another policy behind the window). With a `gamma` that one is
    used in all, and the problems that would need another are left out.
    """
    cases = {
        "the reference problem": reference(),
        "3 actions": random_case(1, n_states=3, n_actions=3, horizon=3),
        "episodes of different length": random_case(2, n_states=3, n_terminal=1, horizon=3),
        "states that look alike": random_case(3, n_states=3, n_observations=2, horizon=3),
        "no discount": random_case(4, gamma=1.0, horizon=3),
        "truncated windows": random_case(5, endless=True, n_states=3, horizon=3),
    }
    if off_policy != 0.0 or gamma == 1.0:
        del cases["truncated windows"]
    if gamma not in (None, 1.0):
        del cases["no discount"]
    named = [
        replace(case, name=name, gamma=case.gamma if gamma is None else gamma) for name, case in cases.items()
    ]
    return tuple(named if off_policy == 0.0 else [case.at(off_policy) for case in named])


def grade(
    algorithm: Any = None,
    *,
    credit: Credit | None = None,
    objective: Objective | None = None,
    reduce: Callable[[Tensor, Tensor], Tensor] = episode_sum,
    critic: Callable[[Case], Tensor] | None = None,
    cases: Sequence[Case] | None = None,
    off_policy: float = 0.0,
    episodes: int = 1,
) -> Report:
    """Hold an estimator against the exact gradient.

    algorithm: an algorithm with `credit` and `loss`, graded as it trains, with its own γ; or, instead, the
        parts that are one's own:
    credit: credit(agent, traj, gamma) → Â [T, B]; by default γᵗ·Â of GAE with λ = .95.
    objective: objective(logp, logp_old, advantage) → [T, B], maximised; by default log π·Â.
    reduce: reduce(x, mask) → scalar; by default the sum over decisions and the mean over episodes. The mask
        is a weight: 0 for padding, and p(τ) where the batch is everything that can happen.
    critic: critic(case) → V_t(s) [T+1, S]; by default the exact values of the policy that acted.
    cases: problems to try, by default `standard_cases(off_policy)`.
    episodes: how many episodes one estimate is made of; more than one only on small problems.

    Raises UsageError where neither or both of an algorithm and parts are given.
    """
    if (algorithm is None) == (credit is None and objective is None):
        raise UsageError("grade takes an algorithm, or a credit and/or an objective of your own")
    gamma = None if algorithm is None else algorithm.gamma
    if cases is None:
        cases = standard_cases(off_policy, gamma)
    elif gamma is not None:
        cases = [replace(case, gamma=gamma) for case in cases]
    rows = []
    for case in cases:
        table = None if critic is None else critic(case)
        how = _own(credit, objective, reduce, case) if algorithm is None else estimator_of(algorithm)
        row = grade_on(case, how, table, episodes)
        rows.append(row if algorithm is None else replace(row, leak=0.0))  # an algorithm trains its critic
    return Report(tuple(rows))


def grade_on(case: Case, how: Estimator, critic: Tensor | None = None, episodes: int = 1) -> Grade:
    """The grade of one estimator on one problem.

    Of single episodes the mean is that of large batches, which is the same thing but for estimators that
    compare episodes, or average over their decisions where their lengths differ.
    """
    spread = estimates(how, case, critic, episodes)
    mean = expectation(how, case, critic).flatten() if episodes == 1 else spread.mean
    truth = exact.gradient(case.problem, case.theta, case.gamma, case.steps).flatten()
    batch = case.trajectory if episodes == 1 else _first(case.trajectory, episodes)
    gradient, leak = _gradients(how, case, critic, batch)
    doubled, _ = _gradients(how, case, critic, replace(batch, mask=2 * batch.mask))
    return Grade(
        problem=case.name,
        bias=float((mean - truth).norm() / truth.norm()),
        cosine=float(torch.cosine_similarity(mean, truth, dim=0)),
        scale=float(mean @ truth / truth.square().sum()),
        variance=spread.variance,
        leak=float(leak.abs().max()),
        growth=float((doubled - gradient).norm() / gradient.norm().clamp_min(ZERO)),
    )


def _own(credit: Credit | None, objective: Objective | None, reduce: Any, case: Case) -> Estimator:
    def scored(logp: Tensor, logp_old: Tensor, advantage: Tensor) -> Tensor:
        return score_function(logp, advantage)

    how = default_credit if credit is None else credit
    return estimator(lambda agent, traj: how(agent, traj, case.gamma), objective or scored, reduce)


def default_credit(agent: TabularAgent, traj: Any, gamma: float) -> Tensor:
    """γᵗ·Âₜ with Â of GAE at λ = .95."""
    advantage = gae(traj.reward, agent.value(traj.obs), traj.terminated, traj.done, gamma, 0.95)
    return advantage * discount_weight(traj.done, gamma, advantage.dtype)


def _gradients(how: Estimator, case: Case, critic: Tensor | None, batch: Trajectory) -> tuple[Tensor, Tensor]:
    """What reaches the policy, and what reaches the critic."""
    agent = agent_of(case, critic)
    agent.theta = agent.theta.detach().clone().requires_grad_()
    agent.critic = agent.critic.detach().clone().requires_grad_()
    leaves = [agent.theta, agent.critic]
    found = torch.autograd.grad(how(agent, batch), leaves, allow_unused=True)
    policy, values = (torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True))
    return policy, values


def _first(traj: Trajectory, n: int) -> Trajectory:
    """The first n columns, each of weight 1."""
    part = map_tree(lambda x: x[:, :n], traj)
    return replace(part, mask=(part.mask > 0).to(part.mask.dtype))


def _exactly(number: float) -> str:
    return "0" if abs(number) < ZERO else f"{number:.1e}"
