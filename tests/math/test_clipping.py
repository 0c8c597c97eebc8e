"""The clipped objective: what it does, and what it is said to do but does not."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pgrad.math import objectives
from pgrad.math.distributions import Categorical

F64 = torch.float64


@pytest.mark.parametrize(
    ("advantage", "slopes"), [(1.0, [1, 1, 1, 1, 0]), (-1.0, [0, -1, -1, -1, -1])], ids=["A=+1", "A=-1"]
)
def test_cases_of_the_clip(advantage, slopes):
    """d/dr at r = ½, .9, 1, 1.1, 1.5 with clip ranges of .2."""
    ratio = torch.tensor([0.5, 0.9, 1.0, 1.1, 1.5], dtype=F64, requires_grad=True)
    one = torch.zeros(5, dtype=F64)
    (slope,) = torch.autograd.grad(
        objectives.clipped(ratio.log(), one, torch.full_like(one, advantage), 0.2, 0.2).sum(), ratio
    )
    torch.testing.assert_close(slope, torch.tensor(slopes, dtype=F64), atol=1e-14, rtol=0)


def test_higher_upper_range_lets_rare_good_actions_grow():
    ratio = torch.tensor([0.75, 1.25, 1.35], dtype=F64, requires_grad=True)
    advantage = torch.tensor([-1.0, 1.0, 1.0], dtype=F64)
    zero = torch.zeros(3, dtype=F64)
    for high, slopes in ((0.2, [0, 0, 0]), (0.28, [0, 1, 0])):
        (slope,) = torch.autograd.grad(
            objectives.clipped(ratio.log(), zero, advantage, 0.2, high).sum(), ratio
        )
        torch.testing.assert_close(slope, torch.tensor(slopes, dtype=F64), atol=1e-14, rtol=0)


@given(
    st.lists(st.tuples(st.floats(-3, 0), st.floats(-3, 0), st.floats(-3, 3)), min_size=1),
    st.floats(0.01, 0.9),
)
def test_clipping_only_lowers(data, clip):
    logp, logp_old, advantage = torch.tensor(data, dtype=F64).unbind(-1)
    difference = objectives.clipped(logp, logp_old, advantage, clip, clip) - objectives.importance_weighted(
        logp, logp_old, advantage
    )
    assert difference.max() <= 0


def test_clip_does_not_bound_the_ratio():
    """π_old = (.1, .9), Â = (+1, −1), ε = .2: following the gradient to its end gives a ratio of 2.80."""
    old = torch.tensor([0.1, 0.9], dtype=F64)
    advantage = torch.tensor([1.0, -1.0], dtype=F64)
    logits, gradient = old.log(), torch.ones(2)
    for _ in range(5000):
        x = logits.clone().requires_grad_()
        value = old * objectives.clipped(torch.log_softmax(x, 0), old.log(), advantage, 0.2, 0.2)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        if gradient.abs().max() == 0:
            break
        logits = logits + 0.01 * gradient
    new = torch.softmax(logits, 0)
    assert gradient.abs().max() == 0
    assert (new / old)[0].item() == pytest.approx(2.80, abs=0.01)
    assert (new - old).abs().sum().item() / 2 == pytest.approx(0.18, abs=1e-3)
    assert (old * (old / new).log()).sum().item() == pytest.approx(0.098, abs=1e-3)


def test_clipped_improvement_does_not_promise_a_better_policy():
    """Four steps in a row, one shared probability p: J(p) = p − 1.8 p⁴. L^CLIP rises while J falls."""

    def true_return(p: float) -> float:
        return p - 1.8 * p**4

    p_old = 0.5
    go, stop = [], []  # exact advantages at the four states: reward 1 at the first step, −1.8 at the fourth
    for t in range(4):
        q_go = -1.8 * p_old ** (3 - t) + (1.0 if t == 0 else 0.0)
        go.append(q_go * (1 - p_old))
        stop.append(-q_go * p_old)
    visits = torch.tensor([p_old**t for t in range(4)], dtype=F64)
    advantage = torch.tensor([go, stop], dtype=F64)
    old = torch.tensor([p_old, 1 - p_old], dtype=F64)[:, None].expand(2, 4)

    def surrogate(p: float) -> float:
        new = torch.tensor([p, 1 - p], dtype=F64)[:, None].expand(2, 4)
        return (visits * old * objectives.clipped(new.log(), old.log(), advantage, 0.2, 0.2)).sum().item()

    assert surrogate(p_old) == pytest.approx(0, abs=1e-15)
    best = max((i / 1000 for i in range(300, 900)), key=surrogate)
    assert best == pytest.approx(0.6)
    assert surrogate(best) == pytest.approx(0.010, abs=1e-12)
    assert true_return(p_old) == pytest.approx(0.38750)
    assert true_return(best) == pytest.approx(0.36672)


TRANSITION = torch.tensor(
    [
        [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]],
        [[0.3, 0.4, 0.3], [0.1, 0.1, 0.8]],
        [[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]],
    ],
    dtype=F64,
)
REWARD = torch.tensor([[1.0, 0.0], [0.5, -0.5], [-1.0, 2.0]], dtype=F64)
START = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
THETA = torch.tensor([[0.3, -0.2], [-0.5, 0.4], [0.8, -0.6]], dtype=F64)


def evaluate(policy: Tensor, gamma: float = 0.9, steps: int = 4) -> tuple[float, Tensor, Tensor]:
    """J, exact advantages [T, S, A] and γᵗ P(sₜ = s) [T, S] of the notes' laboratory."""
    value, advantage = torch.zeros(3, dtype=F64), []
    for _ in range(steps):
        q = REWARD + gamma * TRANSITION @ value
        value = (policy * q).sum(-1)
        advantage.insert(0, q - value[:, None])
    visits = [START]
    for _ in range(steps - 1):
        visits.append(gamma * torch.einsum("s,sa,sax->x", visits[-1], policy, TRANSITION))
    return (START @ value).item(), torch.stack(advantage), torch.stack(visits)


@pytest.mark.parametrize(("sign", "end", "entropy"), [(1, 1.1288, 0.6238), (-1, -1.4764, 0.2294)])
def test_sign_of_the_ppo_loss(sign, end, entropy):
    """50 steps down −L^CLIP − .01 S, and down the notes' L^CLIP + .01 S, which unlearns; J was .2447."""
    theta, old = THETA.clone(), torch.softmax(THETA, -1)
    start, advantage, visits = evaluate(old)
    weight = visits / visits.sum()
    for _ in range(50):
        x = theta.clone().requires_grad_()
        policy = Categorical(x)
        logp = torch.log_softmax(x, -1).expand(4, 3, 2)
        clipped = objectives.clipped(logp, old.log().expand(4, 3, 2), advantage, 0.2, 0.2)
        objective = (visits[..., None] * old * clipped).sum() + 0.01 * (weight * policy.entropy()).sum()
        (gradient,) = torch.autograd.grad(-sign * objective, x)
        theta = theta - 0.1 * gradient
    assert start == pytest.approx(0.244715, abs=1e-6)
    assert evaluate(torch.softmax(theta, -1))[0] == pytest.approx(end, abs=5e-5)
    assert (weight * Categorical(theta).entropy()).sum().item() == pytest.approx(entropy, abs=1e-3)
