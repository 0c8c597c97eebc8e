"""The exact side: objective, gradient, values and the like of a tabular policy, by dynamic programming.

float64 throughout. θ is [O, A] with O observations; π(a|s) = softmax(θ[observation[s]])[a]. `steps` is T, the
number of decisions: the problem's horizon, or a window of an endless problem, behind which the value of the
policy counts as it is (and its change with θ does not). Everything is differentiable in θ unless it says so.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pgrad.errors import UsageError
from pgrad.worlds.tensors.tabular import Tabular


class Values(NamedTuple):
    """What a policy is worth, by time: rows t = 0 … T−1, and a last one behind the last decision in V."""

    V: Tensor  # [T+1, S]
    Q: Tensor  # [T, S, A]

    @property
    def A(self) -> Tensor:  # noqa: N802
        """A_t(s, a) = Q_t(s, a) − V_t(s), [T, S, A]."""
        return self.Q - self.V[:-1].unsqueeze(-1)


def policy(problem: Tabular, theta: Tensor) -> Tensor:
    """π(a|s), [S, A]."""
    return theta.softmax(1)[problem.observation]


def objective(problem: Tabular, theta: Tensor, gamma: float) -> Tensor:
    """J(θ) = Σ_s rho0(s)·V₀(s) = E Σ_t γᵗ r_t. Raises UsageError for γ = 1 without a horizon."""
    if problem.horizon is None:
        return problem.rho0 @ stationary_value(problem, theta, gamma)
    return problem.rho0 @ values(problem, theta, gamma, problem.horizon).V[0]


def gradient(problem: Tabular, theta: Tensor, gamma: float, steps: int | None = None) -> Tensor:
    """∇J(θ) [O, A], by differentiating the dynamic programme.

    With `steps` in an endless problem: what the first `steps` decisions contribute,
    Σ_{t<steps} γᵗ E[∇log π(a_t|s_t)·A(s_t, a_t)].
    """
    leaf = theta.detach().clone().requires_grad_()
    if problem.horizon is None and steps is not None:
        J = problem.rho0 @ values(problem, leaf, gamma, steps).V[0]
    else:
        J = objective(problem, leaf, gamma)
    return torch.autograd.grad(J, leaf)[0]


def values(problem: Tabular, theta: Tensor, gamma: float, steps: int) -> Values:
    """V_t and Q_t by backward induction: Q = r + γ·P·V', V = Σ_a π·Q; a terminal state is worth 0.

    Behind the last decision V is 0 if the problem has a horizon, and V^π, as a constant, if it has none.
    """
    pi, alive = policy(problem, theta), _alive(problem)
    if problem.horizon is None:
        last = stationary_value(problem, theta, gamma).detach()
    else:
        last = torch.zeros_like(problem.rho0)
    V, Q = [last], list[Tensor]()
    for _ in range(steps):
        q = (problem.r + gamma * problem.P @ V[0]) * alive.unsqueeze(1)
        V.insert(0, (pi * q).sum(1))
        Q.insert(0, q)
    return Values(torch.stack(V), torch.stack(Q))


def stationary_value(problem: Tabular, theta: Tensor, gamma: float) -> Tensor:
    """V^π of the endless problem [S]: (I − γP_π)⁻¹ r_π. Raises UsageError for γ = 1."""
    if not 0 <= gamma < 1:
        raise UsageError(f"an endless problem needs gamma below 1, got {gamma}")
    pi, alive = policy(problem, theta), _alive(problem)
    P = torch.einsum("sa,sax->sx", pi, problem.P) * alive.unsqueeze(1)
    r = (pi * problem.r).sum(1) * alive
    return torch.linalg.solve(torch.eye(len(r), dtype=r.dtype) - gamma * P, r)


def marginals(problem: Tabular, theta: Tensor, steps: int) -> Tensor:
    """P(s_t = s) of episodes still running, t = 0 … T−1, [T, S]."""
    pi, alive, rows = policy(problem, theta), _alive(problem), [problem.rho0]
    for _ in range(steps - 1):
        rows.append(torch.einsum("s,sa,sax->x", rows[-1], pi, problem.P) * alive)
    return torch.stack(rows)


def visitation(problem: Tabular, theta: Tensor, gamma: float, steps: int) -> Tensor:
    """dᵖⁱ(s) = Σ_{t<T} γᵗ P(s_t = s) [S]: a measure of mass (1 − γᵀ)/(1 − γ) where nothing ends earlier."""
    discount = gamma ** torch.arange(steps, dtype=torch.float64)
    return discount @ marginals(problem, theta, steps)


def fisher(problem: Tabular, theta: Tensor, weight: Tensor) -> Tensor:
    """F = Σ_s weight(s) Σ_a π(a|s) ∇log π ∇log πᵀ, [O·A, O·A], not differentiable. Kakade 2001, eq. (2)."""
    score = scores(theta)[problem.observation]  # [S, A, O·A]
    return torch.einsum("s,sa,sai,saj->ij", weight, policy(problem, theta.detach()), score, score)


def scores(theta: Tensor) -> Tensor:
    """∇θ log π(a|o) of the softmax, [O, A, O·A]: 1[o' = o]·(1[a' = a] − π(a'|o))."""
    O, A = theta.shape  # noqa: E741
    own = torch.eye(A, dtype=theta.dtype) - theta.detach().softmax(1).unsqueeze(1)  # [O, A, A]
    return torch.einsum("oab,op->oapb", own, torch.eye(O, dtype=theta.dtype)).reshape(O, A, O * A)


def soft_optimum(problem: Tabular, gamma: float, alpha: float) -> tuple[Tensor, Tensor]:
    """π* [S, A] and V* [S] of the endless problem with reward r + α·H(π), by value iteration.

    V*(s) = α log Σ_a exp(Q*(s, a)/α), π* = exp((Q* − V*)/α). Haarnoja et al. 2018, arXiv 1801.01290, §3.
    """
    if not 0 <= gamma < 1 or alpha <= 0:
        raise UsageError(f"the soft optimum needs gamma in [0, 1) and alpha > 0, got {gamma} and {alpha}")
    alive, V = _alive(problem), torch.zeros_like(problem.rho0)
    change = torch.inf
    while change > 1e-13:
        Q = (problem.r + gamma * problem.P @ V) * alive.unsqueeze(1)
        new = alpha * (Q / alpha).logsumexp(1) * alive
        change = float((new - V).abs().max()) / max(1.0, float(new.abs().max()))
        V = new
    return (Q / alpha).softmax(1), V


def optimal_step_baseline(pi: Tensor, Q: Tensor) -> Tensor:
    """b*(s) = E_a[|∇log π|²·Q] / E_a[|∇log π|²], [...] for π and Q [..., A] of a tabular softmax.

    It minimises the variance of ∇log π(a|s)·(Q(s, a) − b), a single decision's; |∇log π(a|·)|² is
    1 − 2π(a) + Σπ².
    """
    weight = pi * (1 - 2 * pi + pi.square().sum(-1, keepdim=True))
    return (weight * Q).sum(-1) / weight.sum(-1)


def _alive(problem: Tabular) -> Tensor:
    return (~problem.terminal).to(torch.float64)
