"""Independent definitions: one Python loop per symbol of the textbook, and a small MDP enumerated whole.

Nothing here is shared with pgrad.math: every function is the definition written out for one column of floats.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from math import prod
from typing import NamedTuple

import jaxtyping
import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

# ---------------------------------------------------------------- windows drawn by hypothesis


class Window(NamedTuple):
    """A window of experience, numpy float64 / bool, [T, *B]; `value` is [T+1, *B]."""

    reward: np.ndarray
    value: np.ndarray
    terminated: np.ndarray
    done: np.ndarray
    logp: np.ndarray
    logp_old: np.ndarray

    def tensors(self, dtype: torch.dtype) -> "Window":
        return Window(
            *(torch.tensor(x) if x.dtype == bool else torch.tensor(x, dtype=dtype) for x in self)  # type: ignore[arg-type]
        )


@st.composite
def windows(draw: st.DrawFn, max_steps: int = 11) -> Window:
    """Any mixture of terminated, truncated and neither, including all rows, no rows and a single row."""
    steps = draw(st.integers(1, max_steps))
    batch = draw(st.sampled_from([(1,), (3,), (), (2, 2)]))
    shape = (steps, *batch)
    number = st.floats(-8, 8, width=32)
    log = st.floats(-2, 0, width=32)
    pattern = draw(st.sampled_from(["any", "any", "any", "none", "all terminated", "all truncated"]))
    flags = hnp.arrays(bool, shape)
    terminated, truncated = {
        "any": lambda: (draw(flags), draw(flags)),
        "none": lambda: (np.zeros(shape, bool), np.zeros(shape, bool)),
        "all terminated": lambda: (np.ones(shape, bool), np.zeros(shape, bool)),
        "all truncated": lambda: (np.zeros(shape, bool), np.ones(shape, bool)),
    }[pattern]()
    return Window(
        draw(hnp.arrays(np.float64, shape, elements=number)),
        draw(hnp.arrays(np.float64, (steps + 1, *batch), elements=number)),
        terminated,  # both true: terminated wins, and done is either
        terminated | truncated,
        draw(hnp.arrays(np.float64, shape, elements=log)),
        draw(hnp.arrays(np.float64, shape, elements=log)),
    )


@contextmanager
def unchecked() -> Iterator[None]:
    """Without jaxtyping's run-time shape checks, which only tests have and torch.compile cannot trace.

    Their wrappers share one code object, so compiled functions of other tests are forgotten first.
    """
    torch.compiler.reset()
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def by_column(function: Callable[..., Sequence[float]], *arrays: np.ndarray) -> np.ndarray:
    """`function` of lists of floats, applied to every column of [T, *B] arrays."""
    shape = arrays[0].shape
    columns = [x.reshape(x.shape[0], -1) for x in arrays]
    out = [function(*(c[:, i].tolist() for c in columns)) for i in range(columns[0].shape[1])]
    return np.array(out).T.reshape(shape)


# ---------------------------------------------------------------- definitions, one column at a time


def start_of(t: int, done: Sequence[bool]) -> int:
    while t > 0 and not done[t - 1]:
        t -= 1
    return t


def end_of(t: int, done: Sequence[bool]) -> int:
    """Last row of t's episode, at most the last of the window."""
    while t < len(done) - 1 and not done[t]:
        t += 1
    return t


def reward_to_go(r, done, gamma):
    return [sum(gamma ** (k - t) * r[k] for k in range(t, end_of(t, done) + 1)) for t in range(len(r))]


def full_return(r, done, gamma):
    out = []
    for t in range(len(r)):
        s = start_of(t, done)
        out.append(sum(gamma ** (k - s) * r[k] for k in range(s, end_of(t, done) + 1)))
    return out


def discount_weight(done, gamma):
    return [gamma ** (t - start_of(t, done)) for t in range(len(done))]


def td_error(r, v, terminated, gamma):
    return [r[t] + (0 if terminated[t] else gamma * v[t + 1]) - v[t] for t in range(len(r))]


def n_step_return(r, v, terminated, done, gamma, n):
    out = []
    for t in range(len(r)):
        m = min(n, end_of(t, done) - t + 1)
        last = t + m - 1
        bootstrap = 0.0 if terminated[last] else gamma**m * v[t + m]
        out.append(sum(gamma**k * r[t + k] for k in range(m)) + bootstrap)
    return out


def gae(r, v, terminated, done, gamma, lam):
    d = td_error(r, v, terminated, gamma)
    return [
        sum((gamma * lam) ** (k - t) * d[k] for k in range(t, end_of(t, done) + 1)) for t in range(len(r))
    ]


def lambda_return(r, v, terminated, done, gamma, lam):
    """The mixture of n-step returns, not GAE plus a value."""
    out = []
    for t in range(len(r)):
        m = end_of(t, done) - t + 1
        g = [n_step_return(r, v, terminated, done, gamma, n)[t] for n in range(1, m + 1)]
        out.append((1 - lam) * sum(lam**i * g[i] for i in range(m - 1)) + lam ** (m - 1) * g[-1])
    return out


def vtrace_target(r, v, terminated, done, ratio, gamma, lam, rho_max, c_max):
    """Eq. (1) of IMPALA, the sum over t and the product over i written out."""
    d = td_error(r, v, terminated, gamma)
    c = [lam * min(c_max, x) for x in ratio]
    rho = [min(rho_max, x) for x in ratio]
    return [
        v[s] + sum(gamma ** (t - s) * prod(c[s:t]) * rho[t] * d[t] for t in range(s, end_of(s, done) + 1))
        for s in range(len(r))
    ]


def vtrace_advantage(r, v, terminated, done, ratio, gamma, lam, rho_max, c_max):
    target = vtrace_target(r, v, terminated, done, ratio, gamma, lam, rho_max, c_max)
    out = []
    for t in range(len(r)):
        if terminated[t]:
            after = 0.0
        elif done[t] or t == len(r) - 1:
            after = v[t + 1]
        else:
            after = lam * target[t + 1] + (1 - lam) * v[t + 1]
        out.append(min(rho_max, ratio[t]) * (r[t] + gamma * after - v[t]))
    return out


def prefix_ratio(logp, logp_old, done):
    ratio = [np.exp(a) / np.exp(b) for a, b in zip(logp, logp_old, strict=True)]
    return [prod(ratio[start_of(t, done) : t + 1]) for t in range(len(ratio))]


def trajectory_ratio(logp, logp_old, done):
    ratio = [np.exp(a) / np.exp(b) for a, b in zip(logp, logp_old, strict=True)]
    return [prod(ratio[start_of(t, done) : end_of(t, done) + 1]) for t in range(len(ratio))]


def per_decision_return(r, logp, logp_old, done, gamma):
    rho = prefix_ratio(logp, logp_old, done)
    return [
        sum(gamma ** (k - t) * rho[k] * r[k] for k in range(t, end_of(t, done) + 1)) for t in range(len(r))
    ]


# ---------------------------------------------------------------- the reference MDP, enumerated whole

THETA_OLD = torch.tensor([[0.3, -0.2], [-0.5, 0.4], [0.8, -0.6]], dtype=torch.float64)
DELTA = torch.tensor([[0.5, -0.5], [0.6, -0.6], [-0.7, 0.7]], dtype=torch.float64)


class Lab:
    """3 states, 2 actions, 4 decisions: all 3·2·(3·2)³ = 1296 trajectories as columns [4, 1296], in float64.

    The policy is a tabular softmax, theta [3, 2]. Every trajectory terminates after its fourth decision.
    """

    steps = 4
    transition = torch.tensor(
        [
            [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]],
            [[0.3, 0.4, 0.3], [0.1, 0.1, 0.8]],
            [[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]],
        ],
        dtype=torch.float64,
    )
    rewards = torch.tensor([[1.0, 0.0], [0.5, -0.5], [-1.0, 2.0]], dtype=torch.float64)
    initial = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)

    def __init__(self) -> None:
        pairs = list(product(product(range(3), range(2)), repeat=self.steps))
        table = torch.tensor(pairs).permute(1, 0, 2)  # [4, 1296, 2]
        self.state, self.action = table[..., 0], table[..., 1]
        self.reward = self.rewards[self.state, self.action]
        self.done = torch.zeros_like(self.state, dtype=torch.bool)
        self.done[-1] = True
        self.dynamics = self.initial[self.state[0]]
        for t in range(self.steps - 1):
            self.dynamics = self.dynamics * self.transition[self.state[t], self.action[t], self.state[t + 1]]

    def logp(self, theta: Tensor) -> Tensor:
        """log π(aₜ|sₜ), [4, 1296]."""
        return theta.log_softmax(1)[self.state, self.action]

    def p(self, theta: Tensor) -> Tensor:
        """p(τ), [1296], differentiable."""
        return self.dynamics * self.logp(theta).sum(0).exp()

    def score(self, theta: Tensor) -> Tensor:
        """∇ log π(aₜ|sₜ), [4, 1296, 6], by autograd."""
        theta = theta.clone().requires_grad_()
        entries = theta.log_softmax(1).flatten()
        table = torch.stack([torch.autograd.grad(x, theta, retain_graph=True)[0].flatten() for x in entries])
        return table[2 * self.state + self.action]

    def values(self, theta: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
        """V [5, 3] and Q [4, 3, 2] of every time step by backward induction, differentiable."""
        v, vs, qs = torch.zeros(3, dtype=torch.float64), [torch.zeros(3, dtype=torch.float64)], []
        for _ in range(self.steps):
            q = self.rewards + gamma * self.transition @ v
            v = (theta.softmax(1) * q).sum(1)
            vs.insert(0, v)
            qs.insert(0, q)
        return torch.stack(vs), torch.stack(qs)

    def value_rows(self, v: Tensor) -> Tensor:
        """V_t(s_t) along every trajectory, [5, 1296]; the last row is never to be used (terminated)."""
        return torch.cat([v[:-1].gather(1, self.state), torch.full((1, 1296), 99.0, dtype=torch.float64)])

    def q_rows(self, q: Tensor) -> Tensor:
        """Q_t(s_t, a_t) along every trajectory, [4, 1296]."""
        return q[torch.arange(self.steps)[:, None], self.state, self.action]

    def marginal(self, theta: Tensor) -> Tensor:
        """P(s_t = s), [4, 3]."""
        rows = [self.initial]
        for _ in range(self.steps - 1):
            rows.append(torch.einsum("s,sa,sax->x", rows[-1], theta.softmax(1), self.transition))
        return torch.stack(rows)

    def objective(self, theta: Tensor, gamma: float) -> Tensor:
        return self.initial @ self.values(theta, gamma)[0][0]

    def gradient(self, theta: Tensor, gamma: float) -> Tensor:
        """∇J by differentiating the dynamic programme, [6]."""
        theta = theta.clone().requires_grad_()
        return torch.autograd.grad(self.objective(theta, gamma), theta)[0].flatten()

    def moments(self, theta: Tensor, weight: Tensor, theta_old: Tensor | None = None) -> tuple[Tensor, float]:
        """Mean [6] and trace of the covariance of Σₜ weightₜ ∇ log π(aₜ|sₜ), τ drawn from theta_old."""
        p = self.p(theta if theta_old is None else theta_old)
        estimate = (weight[..., None] * self.score(theta)).sum(0)  # [1296, 6]
        mean = p @ estimate
        return mean, float(p @ estimate.square().sum(1) - mean @ mean)


def relative_error(estimate: Tensor, truth: Tensor) -> float:
    return float((estimate - truth).norm() / truth.norm())


def expected_surrogate_gradient(lab: Lab, theta: Tensor, weight: Tensor) -> Tensor:
    """Autograd of Σ_τ p(τ) Σₜ weightₜ log π(aₜ|sₜ): the loss that trains, with mask = p(τ)."""
    parameter = theta.clone().requires_grad_()
    loss = (lab.p(theta) * weight.detach() * lab.logp(parameter)).sum()
    return torch.autograd.grad(loss, parameter)[0].flatten()
