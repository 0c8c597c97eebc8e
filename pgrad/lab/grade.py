"""A grade for an estimator of one's own: bias, direction and variance on problems whose gradient is known."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pgrad.errors import UsageError
from pgrad.lab import exact
from pgrad.lab.agent import TabularAgent
from pgrad.lab.claim import ZERO
from pgrad.lab.estimate import Estimator, agent_of, episode_sum, estimates, estimator, estimator_of, expectation
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
        """Unbiased, and nothing but the policy is moved."""
        return self.unbiased and self.leak < ZERO


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

    def __str__(self) -> str:
        lines = [f"{'problem':32} {'bias':>9} {'cosine':>9} {'scale':>8} {'variance':>9} {'leak':>8}"]
        for g in self.grades:
            bias = "0" if g.unbiased else f"{g.bias:.2e}"
            leak = "0" if g.leak < ZERO else f"{g.leak:.1e}"
            lines.append(
                f"{g.problem:32} {bias:>9} {g.cosine:9.6f} {g.scale:8.4f} {g.variance:9.4f} {leak:>8}"
            )
        verdict = (
            "sound: unbiased on every problem"
            if self.sound
            else "unbiased, but the objective reaches the critic"
            if self.unbiased
            else "biased, with the right direction"
            if self.keeps_direction
            else "biased"
        )
        return "\n".join([*lines, verdict])


def standard_cases(off_policy: float = 0.0) -> tuple[Case, ...]:
    """Six problems that tell estimators apart.

    The reference; one with three actions; episodes of different length; states that look alike; no discount;
    and windows of a problem that never ends, which are truncated and must be bootstrapped. `off_policy` c > 0
    asks about the policy theta + c·direction while theta acts (and leaves the truncated windows out: no
    importance weight makes up for the value of another policy behind the window).
    """
    cases = (
        reference(),
        _named(random_case(1, n_states=3, n_actions=3, horizon=3), "3 actions"),
        _named(random_case(2, n_states=3, n_terminal=1, horizon=3), "episodes of different length"),
        _named(random_case(3, n_states=3, n_observations=2, horizon=3), "states that look alike"),
        _named(random_case(4, gamma=1.0, horizon=3), "no discount"),
        _named(random_case(5, endless=True, n_states=3, horizon=3), "truncated windows"),
    )
    return cases if off_policy == 0.0 else tuple(case.at(off_policy) for case in cases[:-1])


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
    reduce: reduce(x, mask) → scalar; by default the sum over decisions and the mean over episodes.
    critic: critic(case) → V_t(s) [T+1, S]; by default the exact values of the policy that acted.
    cases: problems to try, by default `standard_cases(off_policy)`.
    episodes: how many episodes one estimate is made of; more than one only on small problems.

    Raises UsageError where neither or both of an algorithm and parts are given.
    """
    if (algorithm is None) == (credit is None and objective is None):
        raise UsageError("grade takes an algorithm, or a credit and/or an objective of your own")
    cases = standard_cases(off_policy) if cases is None else cases
    if algorithm is not None:
        cases = [dataclasses.replace(case, gamma=algorithm.gamma) for case in cases]
    rows = []
    for case in cases:
        table = None if critic is None else critic(case)
        how = estimator_of(algorithm) if algorithm is not None else _own(credit, objective, reduce, case)
        mean = expectation(how, case, table) if episodes == 1 else None
        spread = estimates(how, case, table, episodes)
        mean = spread.mean if mean is None else mean.flatten()
        truth = exact.gradient(case.problem, case.theta, case.gamma, case.steps).flatten()
        rows.append(
            Grade(
                problem=case.name,
                bias=float((mean - truth).norm() / truth.norm()),
                cosine=float(torch.cosine_similarity(mean, truth, dim=0)),
                scale=float(mean @ truth / truth.square().sum()),
                variance=spread.variance,
                leak=0.0 if algorithm is not None else _leak(how, case, table),
            )
        )
    return Report(tuple(rows))


def _own(credit: Credit | None, objective: Objective | None, reduce: Any, case: Case) -> Estimator:
    def scored(logp: Tensor, logp_old: Tensor, advantage: Tensor) -> Tensor:
        return score_function(logp, advantage)

    how = default_credit if credit is None else credit
    return estimator(lambda agent, traj: how(agent, traj, case.gamma), objective or scored, reduce)


def default_credit(agent: TabularAgent, traj: Any, gamma: float) -> Tensor:
    """γᵗ·Âₜ with Â of GAE at λ = .95."""
    advantage = gae(traj.reward, agent.value(traj.obs), traj.terminated, traj.done, gamma, 0.95)
    return advantage * discount_weight(traj.done, gamma, advantage.dtype)


def _leak(how: Estimator, case: Case, critic: Tensor | None) -> float:
    agent = agent_of(case, critic)
    agent.theta = agent.theta.detach().clone().requires_grad_()
    agent.critic = agent.critic.detach().clone().requires_grad_()
    found = torch.autograd.grad(how(agent, case.trajectory), agent.critic, allow_unused=True)[0]
    return 0.0 if found is None else float(found.abs().max())


def _named(case: Case, name: str) -> Case:
    return dataclasses.replace(case, name=name)
