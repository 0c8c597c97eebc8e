"""The notes' wrong forms with their numbers, and the exact gradient by enumerating every trajectory."""

import numpy as np
import pytest
import torch

from pgrad.math import credit
from tests.math import oracles
from tests.math.oracles import THETA_OLD, Lab, expected_surrogate_gradient, relative_error

F64 = torch.float64


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


def column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=F64)[:, None]


def flags(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.bool)[:, None]


# ---------------------------------------------------------------- the notes' wrong forms


def seed_compute_advantages(rewards, values, dones, next_value, gamma=0.99, lambda_=0.95):
    """001:877-896 as written: the conditional binds last and the recursion is not cut."""
    deltas = [
        (rewards[t] + gamma * (1 - dones[t]) * values[t + 1] if t < len(rewards) - 1 else next_value)
        - values[t]
        for t in range(len(rewards))
    ]
    advantages, acc = [], 0.0
    for delta in reversed(deltas):
        acc = delta + gamma * lambda_ * acc
        advantages.insert(0, acc)
    return advantages


def test_seed_advantages_lose_the_last_reward():  # E-36
    wrong = seed_compute_advantages([1, 1, 10], [0.5, 0.6, 0.7], [0, 0, 1], next_value=0.0)
    np.testing.assert_allclose(wrong, [1.50279, 0.43465, -0.7], atol=5e-6)


def test_seed_advantages_leak_across_episodes():  # E-37
    reward, done = column(0, 0, 100, 0), flags(0, 1, 0, 1)
    wrong = seed_compute_advantages([0, 0, 100, 0], [0.0] * 4, [0, 1, 0, 1], next_value=0.0)
    np.testing.assert_allclose(wrong, [88.45, 94.05, 100, 0], atol=5e-3)
    right = credit.gae(reward, torch.zeros(5, 1, dtype=F64), done, done, 0.99, 0.95)
    assert right[:, 0].tolist() == [0, 0, 100, 0]


def conditional(p: torch.Tensor, x: torch.Tensor, given_: torch.Tensor) -> float:
    return float((p * given_ * x).sum() / (p * given_).sum())


def test_n_step_targets_need_the_discount_on_rewards(lab):  # M-32, M-39, E-19, L-42
    p, (v, _) = lab.p(THETA_OLD), lab.values(THETA_OLD, 0.9)
    rows = lab.value_rows(v)
    for n in (1, 2, 3, 4):
        target = credit.n_step_return(lab.reward, rows, lab.done, lab.done, 0.9, n)
        for t in range(4):
            for s in range(3):
                assert abs(conditional(p, target[t], lab.state[t] == s) - v[t, s]) < 1e-14
    seed = lab.reward[0] + lab.reward[1] + 0.81 * rows[2]  # 004:77
    means = [conditional(p, seed, lab.state[0] == s) for s in range(3)]
    np.testing.assert_allclose(means, [0.8076, -0.3509, -0.2528], atol=5e-5)
    np.testing.assert_allclose(v[0], [0.7927, -0.3301, -0.2630], atol=5e-5)


def seed_advantage(lab: Lab, rows: torch.Tensor, t: int, n: int) -> torch.Tensor:
    """004:94 as written: rewards t … t+n, one too many, and γⁿ V(s_{t+n})."""
    rewards = sum(0.9 ** (k - t) * lab.reward[k] for k in range(t, min(t + n, 3) + 1))
    return rewards + (0.9**n * rows[t + n] if t + n < 4 else 0.0) - rows[t]


def test_seed_n_step_advantages_are_biased_with_the_exact_value(lab):  # E-24
    p, (v, q) = lab.p(THETA_OLD), lab.values(THETA_OLD, 0.9)
    rows, advantage = lab.value_rows(v), lab.q_rows(q) - lab.value_rows(v)[:-1]

    def worst(estimate: torch.Tensor) -> float:
        pairs = [(lab.state[0] == s) & (lab.action[0] == a) for s in range(3) for a in range(2)]
        return max(abs(conditional(p, estimate - advantage[0], pair)) for pair in pairs)

    for n, bias in ((1, 0.3176), (2, 0.0641), (3, 0.0315)):
        assert abs(worst(seed_advantage(lab, rows, 0, n)) - bias) < 5e-5
        right = credit.n_step_return(lab.reward, rows, lab.done, lab.done, 0.9, n)[0] - rows[0]
        assert worst(right) < 1e-14


def test_seed_lambda_weights_are_another_estimator(lab):  # E-24, L-40
    rows = lab.value_rows(lab.values(THETA_OLD, 0.9)[0])
    right = credit.gae(lab.reward, rows, lab.done, lab.done, 0.9, 0.95)
    n_step = [
        credit.n_step_return(lab.reward, rows, lab.done, lab.done, 0.9, n) - rows[:-1] for n in (1, 2, 3, 4)
    ]
    weight = torch.tensor([0.95**i for i in range(4)], dtype=F64)
    renormalised = sum(w * a[0] for w, a in zip(weight / weight.sum(), n_step, strict=True))
    assert abs((renormalised - right[0]).abs().max().item() - 2.1703) < 5e-5
    tail = torch.tensor([0.05, 0.05 * 0.95, 0.05 * 0.95**2, 0.95**3], dtype=F64)
    torch.testing.assert_close(sum(w * a[0] for w, a in zip(tail, n_step, strict=True)), right[0])
    one_too_many = sum(w * seed_advantage(lab, rows, 0, n) for w, n in zip(tail, (1, 2, 3, 4), strict=True))
    assert abs((one_too_many - right[0]).abs().max().item() - 0.2327) < 5e-5


# ---------------------------------------------------------------- the exact gradient, by enumeration


def test_the_enumeration_is_the_problem(lab):
    p = lab.p(THETA_OLD)
    assert abs(p.sum() - 1) < 1e-12
    for gamma, objective in ((0.9, 0.244715), (1.0, 0.262684)):
        by_return = p @ credit.full_return(lab.reward, lab.done, gamma)[0]
        assert abs(by_return - objective) < 5e-7
        torch.testing.assert_close(by_return, lab.objective(THETA_OLD, gamma))
    expected = [0.48315, -0.48315, 0.23409, -0.23409, -0.45972, 0.45972]
    np.testing.assert_allclose(lab.gradient(THETA_OLD, 0.9), expected, atol=5e-6)


def weights(lab: Lab, gamma: float) -> dict[str, torch.Tensor]:
    """What multiplies ∇ log π in each estimator, [4, 1296]."""
    v, q = lab.values(THETA_OLD, gamma)
    rows, q_rows = lab.value_rows(v), lab.q_rows(q)
    discount = credit.discount_weight(lab.done, gamma, F64)
    to_go = credit.reward_to_go(lab.reward, lab.done, gamma)
    generator = torch.Generator().manual_seed(0)
    any_baseline = torch.randn(4, 3, generator=generator, dtype=F64).gather(1, lab.state)
    return {
        "full return": credit.full_return(lab.reward, lab.done, gamma),  # M-06, L-03
        "reward to go": discount * to_go,  # M-08, M-26 option 2, L-05
        "option 1": to_go,
        "any b(t,s)": discount * (to_go - any_baseline),  # M-13, L-12
        "b(s,a)": discount * (to_go - q_rows),
        "Q": discount * q_rows,  # M-10, L-08
        "A": discount * (q_rows - rows[:-1]),  # M-14
        "G - V": discount * (to_go - rows[:-1]),
        "gae": discount * credit.gae(lab.reward, rows, lab.done, lab.done, gamma, 0.5),  # L-39
        "td error": discount * credit.td_error(lab.reward, rows, lab.done, gamma),  # M-29
    }


@pytest.mark.parametrize("gamma", [0.9, 1.0])
@pytest.mark.parametrize(
    "name", ["full return", "reward to go", "any b(t,s)", "Q", "A", "G - V", "gae", "td error"]
)
def test_estimators_are_unbiased(lab, name, gamma):
    truth = lab.gradient(THETA_OLD, gamma)
    surrogate = expected_surrogate_gradient(lab, THETA_OLD, weights(lab, gamma)[name])
    assert relative_error(surrogate, truth) < 1e-12
    assert relative_error(lab.moments(THETA_OLD, weights(lab, gamma)[name])[0], truth) < 1e-12


@pytest.mark.parametrize(
    ("name", "trace_of_variance"),
    [("full return", 5.7639), ("reward to go", 2.8095), ("Q", 1.2775), ("A", 1.4883), ("G - V", 2.9201)],
)
def test_variances(lab, name, trace_of_variance):
    assert abs(lab.moments(THETA_OLD, weights(lab, 0.9)[name])[1] - trace_of_variance) < 5e-5


def test_an_action_dependent_baseline_is_biased(lab):  # M-13
    estimate = expected_surrogate_gradient(lab, THETA_OLD, weights(lab, 0.9)["b(s,a)"])
    assert relative_error(estimate, lab.gradient(THETA_OLD, 0.9)) > 0.5


def test_option_1_is_another_direction_unless_gamma_is_one(lab):  # M-26, E-01, L-06
    for gamma, error in ((0.9, 0.161), (1.0, 0.0)):
        truth = lab.gradient(THETA_OLD, gamma)
        estimate = expected_surrogate_gradient(lab, THETA_OLD, weights(lab, gamma)["option 1"])
        assert abs(relative_error(estimate, truth) - error) < 5e-4
        cosine = torch.cosine_similarity(estimate, truth, dim=0).item()
        assert abs(cosine - (0.999687 if gamma < 1 else 1.0)) < 5e-7


@pytest.mark.parametrize(
    ("gamma", "option_1", "option_2"), [(0.9, 1.04e-2, 0.0), (0.5, 5.17e-2, 0.0), (1.0, 0.0, 0.0)]
)
def test_option_1_is_the_gradient_of_nothing(lab, gamma, option_1, option_2):  # E-23, L-07
    """A gradient field has a symmetric Jacobian."""
    one_hot = torch.nn.functional.one_hot(lab.state, 3)[..., None].double()
    taken = torch.nn.functional.one_hot(lab.action, 2)[..., None, :].double()
    to_go = credit.reward_to_go(lab.reward, lab.done, gamma)
    discount = credit.discount_weight(lab.done, gamma, F64)

    def asymmetry(weight: torch.Tensor) -> float:
        def field(theta: torch.Tensor) -> torch.Tensor:
            score = one_hot * (taken - theta.softmax(1))
            return torch.einsum("n,tn,tnsa->sa", lab.p(theta), weight, score)

        jacobian = torch.autograd.functional.jacobian(field, THETA_OLD).reshape(6, 6)
        return float((jacobian - jacobian.T).norm() / (jacobian + jacobian.T).norm())

    assert abs(asymmetry(to_go) - option_1) < 5e-5
    assert abs(asymmetry(discount * to_go) - option_2) < 1e-12


def test_gae_variance_grows_with_lambda_and_bias_shrinks(lab):  # E-42, M-30, M-31
    p, (v, q) = lab.p(THETA_OLD), lab.values(THETA_OLD, 0.9)
    rows, advantage = lab.value_rows(v), lab.q_rows(q) - lab.value_rows(v)[:-1]
    for lam, variance in ((0.0, 0.162), (0.5, 0.380), (0.95, 1.492), (1.0, 1.751)):
        error = credit.gae(lab.reward, rows, lab.done, lab.done, 0.9, lam)[0] - advantage[0]
        assert abs(p @ error.square() - variance) < 5e-4
    wrong = lab.value_rows(v + torch.tensor([0.4, -0.3, 0.2], dtype=F64))
    td = credit.n_step_return(lab.reward, wrong, lab.done, lab.done, 0.9, 1)[0]
    mc = credit.reward_to_go(lab.reward, lab.done, 0.9)[0]
    for target, bias, variance in (
        (td, (0.107, 0.124, 0.133), (1.221, 0.479, 1.665)),
        (mc, (0.0, 0.0, 0.0), (2.253, 2.171, 2.957)),
    ):
        for s in range(3):
            here = lab.state[0] == s
            mean = conditional(p, target, here)
            assert abs(mean - v[0, s] - bias[s]) < 5e-4
            assert abs(conditional(p, (target - mean) ** 2, here) - variance[s]) < 5e-4


def test_untruncated_vtrace_evaluates_the_new_policy_with_any_critic(lab):
    """ρ̄ = c̄ = ∞, λ = 1: E_μ[v₀ | s₀] = V^π(s₀), from data of another policy and a wrong V."""
    theta = THETA_OLD + oracles.DELTA
    v = lab.values(theta, 0.9)[0]
    wrong = lab.value_rows(v + torch.tensor([0.4, -0.3, 0.2], dtype=F64))
    ratio = (lab.logp(theta) - lab.logp(THETA_OLD)).exp()
    free = float("inf")
    target = credit.vtrace(lab.reward, wrong, lab.done, lab.done, ratio, 0.9, 1.0, free, free).target
    p = lab.p(THETA_OLD)
    for s in range(3):
        assert abs(conditional(p, target[0], lab.state[0] == s) - v[0, s]) < 1e-12


def test_reward_to_go_can_raise_the_variance():  # E-16, L-18: r = (+1, −1), both actions alike
    taken = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]])
    score = torch.nn.functional.one_hot(taken, 2).double() - 0.5  # softmax at theta = 0
    reward, done = torch.tensor([[1.0], [-1.0]], dtype=F64).expand(2, 4), flags(0, 1).expand(2, 4)

    def variance(weight: torch.Tensor) -> float:
        estimate = (weight[..., None] * score).sum(0)
        return float(estimate.square().sum(1).mean() - estimate.mean(0).square().sum())

    assert variance(credit.full_return(reward, done, 1.0)) == 0.0
    assert variance(credit.reward_to_go(reward, done, 1.0)) == 0.5
