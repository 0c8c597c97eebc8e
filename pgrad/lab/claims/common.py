"""What claims of more than one theme need."""

from collections.abc import Callable
from math import isclose
from typing import NamedTuple

import torch
from torch import Tensor

from pgrad.data import Batch
from pgrad.lab import exact
from pgrad.lab.agent import TabularAgent
from pgrad.lab.claim import ZERO
from pgrad.lab.problems import Case
from pgrad.math.reduce import constant

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""objective(logp, logp_old, advantage) → one number per decision, to be maximised."""


def several(case: Case) -> bool:
    """Whether there is more than one decision."""
    return case.steps > 1


def every_decision(case: Case) -> Batch:
    """Every decision (t, s, a) once, [T, S, A], with mask = γᵗ·P(s_t = s)·μ(a|s) of the policy μ that acted.

    Advantage, value and target are the exact A_t, V_t and Q_t of μ. A sum over it is an expectation over
    trajectories of whatever depends on (t, s, a) only, and far cheaper than one over trajectories.
    """
    problem, T = case.problem, case.steps
    pi, now = exact.policy(problem, case.actor), exact.values(problem, case.actor, case.gamma, T)
    discount = case.gamma ** torch.arange(T, dtype=torch.float64)
    reached = discount.unsqueeze(1) * exact.marginals(problem, case.actor, T)
    shape = now.Q.shape
    return Batch(
        obs=torch.arange(T * problem.n_states).reshape(T, -1, 1).expand(shape),
        action=torch.arange(problem.n_actions).expand(shape),
        logp=pi.log().expand(shape),
        mask=reached.unsqueeze(-1) * pi,
        advantage=now.A,
        value=now.V[:-1].unsqueeze(-1).expand(shape),
        target=now.Q,
    )


def table_agent(case: Case, theta: Tensor, batch: Batch) -> TabularAgent:
    """The policy softmax(theta) on a case's problem, its critic the values of the policy that acted."""
    assert case.problem.observation is not None
    assert batch.value is not None
    return TabularAgent(theta, batch.value[..., 0], case.problem.observation)


def log_prob(case: Case, theta: Tensor, batch: Batch) -> Tensor:
    """log π(a|s) of softmax(theta) for the decisions of `every_decision`, [T, S, A]."""
    return table_agent(case, theta, batch).policy(batch.obs).log_prob(batch.action)


def surrogate(case: Case, batch: Batch, objective: Objective) -> Callable[[Tensor], Tensor]:
    """θ ↦ E_μ Σ_t γᵗ objective(log π_θ, log μ, A), exact."""
    return lambda theta: constant(
        objective(log_prob(case, theta, batch), batch.logp, batch.advantage), batch.mask, 1.0
    )


def gradient_of(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """∇ function at a point, by autograd."""
    leaf = at.detach().clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


class Given(NamedTuple):
    """What is known of x for every value 0 … n−1 of a key, [n] each; 0 where the key never has that value."""

    mass: Tensor
    mean: Tensor
    variance: Tensor


def given(x: Tensor, key: Tensor, weight: Tensor, n: int) -> Given:
    """Total weight, mean and variance of x by key; all three [...] alike. With mask = p(τ) they are exact.

    Values are given traj.decisions (= t·S + s) as a key for E[x|s_t], traj.decisions·A + action for
    E[x|s_t, a_t].
    """
    flat, keys, weights = x.flatten(), key.flatten(), weight.flatten()
    zero = torch.zeros(n, dtype=x.dtype)
    mass = zero.index_add(0, keys, weights)
    share = weights / mass.clamp_min(torch.finfo(mass.dtype).tiny)[keys]
    mean = zero.index_add(0, keys, share * flat)
    return Given(mass, mean, zero.index_add(0, keys, share * (flat - mean[keys]).square()))


def relative_error(found: Tensor, truth: Tensor) -> float:
    """|found − truth| / |truth|, over all their numbers; |found − truth| where the truth is zero."""
    size = float(truth.norm())
    return float((found - truth).norm()) / (size if size > ZERO else 1.0)


def same(x: float, y: float, unit: float = 1.0) -> bool:
    """Whether two numbers differ by rounding only, of what they are themselves or of their `unit`."""
    return isclose(x, y, rel_tol=ZERO, abs_tol=ZERO * unit)


def at_most(x: float, bound: float, unit: float = 1.0) -> bool:
    """Whether a number is no greater than another, but for rounding of it or of its `unit`."""
    return x <= bound or same(x, bound, unit)


ROUNDING = 1e-13
"""Of a float64 sum, relative to the size of its terms, with room for thousands of them."""


def size(case: Case) -> float:
    """The largest return there can be, T·max|r|, or 1 where nothing is paid: the scale of J, V, Q and A."""
    largest = float(case.problem.r.abs().max()) * case.steps
    return largest if largest > 0 else 1.0


def room(case: Case, largest: float = 0.0) -> float:
    """What may be left of a zero that is a difference of returns, or of terms that are `largest`."""
    return ZERO * max(size(case), largest)


def gradient_error(found: Tensor, case: Case, largest: float = 0.0) -> float:
    """|found − ∇J| / |∇J|, and 0 where the difference is rounding of the terms summed.

    Those are scores times something like returns, or as large as `largest`.
    """
    truth = true_gradient(case)
    return rounded_error(found.reshape(truth.shape), truth, case.steps * max(size(case), largest))


def rounded_error(found: Tensor, truth: Tensor, scale: float) -> float:
    """`relative_error`, and 0 where the difference is rounding of a sum of terms of this scale."""
    gap = float((found - truth).norm())
    return 0.0 if gap <= ROUNDING * scale else relative_error(found, truth)


def true_gradient(case: Case) -> Tensor:
    """∇J [O, A] of the policy asked about."""
    return exact.gradient(case.problem, case.theta, case.gamma, case.steps)


def row(*x: float) -> Tensor:
    """A row of float64 numbers."""
    return torch.tensor(x, dtype=torch.float64)
