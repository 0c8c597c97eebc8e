"""Every credit against its definition, its identities, hand-computed numbers, and the exact gradient by enumeration."""

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrad.errors import UsageError
from pgrad.math import credit
from tests.math import oracles
from tests.math.oracles import THETA_OLD, Lab, expected_surrogate_gradient, relative_error, windows

GAMMA = st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0])
LAMBDA = st.sampled_from([0.0, 0.3, 0.95, 1.0])
PRECISION = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-4)], ids=["float64", "float32"]
)
FAST = settings(deadline=None, max_examples=40)
F64 = torch.float64


def agree(actual: torch.Tensor, expected: np.ndarray, dtype: torch.dtype, tolerance: float) -> None:
    assert actual.dtype == dtype
    np.testing.assert_allclose(actual.numpy(), expected, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- against the definitions


@PRECISION
@given(w=windows(), gamma=GAMMA)
@FAST
def test_returns_and_discount(w, gamma, dtype, tolerance):
    x = w.tensors(dtype)
    for name in ("reward_to_go", "full_return"):
        expected = oracles.by_column(lambda r, d: getattr(oracles, name)(r, d, gamma), w.reward, w.done)  # noqa: B023
        agree(getattr(credit, name)(x.reward, x.done, gamma), expected, dtype, tolerance)
    expected = oracles.by_column(lambda d: oracles.discount_weight(d, gamma), w.done)
    agree(credit.discount_weight(x.done, gamma, dtype), expected, dtype, tolerance)


def test_discount_weight_is_float32_unless_asked():
    assert credit.discount_weight(torch.zeros(3, 1, dtype=torch.bool), 0.5).dtype == torch.float32


@given(w=windows())
@FAST
def test_episode_start(w):
    expected = oracles.by_column(lambda d: [oracles.start_of(t, d) == t for t in range(len(d))], w.done)
    np.testing.assert_array_equal(credit.episode_start(torch.tensor(w.done)).numpy(), expected)


@PRECISION
@given(w=windows(), gamma=GAMMA, lam=LAMBDA)
@FAST
def test_td_error_gae_and_lambda_return(w, gamma, lam, dtype, tolerance):
    x = w.tensors(dtype)
    expected = oracles.by_column(
        lambda r, v, e: oracles.td_error(r, v, e, gamma), w.reward, w.value, w.terminated
    )
    agree(credit.td_error(x.reward, x.value, x.terminated, gamma), expected, dtype, tolerance)
    for name in ("gae", "lambda_return"):
        expected = oracles.by_column(
            lambda *c: getattr(oracles, name)(*c, gamma, lam),  # noqa: B023
            w.reward,
            w.value,
            w.terminated,
            w.done,
        )
        actual = getattr(credit, name)(x.reward, x.value, x.terminated, x.done, gamma, lam)
        agree(actual, expected, dtype, tolerance)


@PRECISION
@given(w=windows(), gamma=GAMMA, n=st.integers(1, 14))
@FAST
def test_n_step_return(w, gamma, n, dtype, tolerance):
    x = w.tensors(dtype)
    expected = oracles.by_column(
        lambda *c: oracles.n_step_return(*c, gamma, n), w.reward, w.value, w.terminated, w.done
    )
    actual = credit.n_step_return(x.reward, x.value, x.terminated, x.done, gamma, n)
    agree(actual, expected, dtype, tolerance)


@PRECISION
@given(
    w=windows(),
    gamma=GAMMA,
    lam=LAMBDA,
    rho_max=st.sampled_from([0.5, 1.0, 2.0, float("inf")]),
    c_max=st.sampled_from([0.5, 1.0, 1.5]),
)
@FAST
def test_vtrace(w, gamma, lam, rho_max, c_max, dtype, tolerance):
    x, ratio = w.tensors(dtype), np.exp(w.logp - w.logp_old)
    actual = credit.vtrace(
        x.reward,
        x.value,
        x.terminated,
        x.done,
        torch.tensor(ratio, dtype=dtype),
        gamma,
        lam,
        rho_max,
        c_max,
    )
    for name in ("target", "advantage"):
        expected = oracles.by_column(
            lambda *c: getattr(oracles, "vtrace_" + name)(*c, gamma, lam, rho_max, c_max),  # noqa: B023
            w.reward,
            w.value,
            w.terminated,
            w.done,
            ratio,
        )
        scale = max(1.0, np.abs(expected).max())
        assert getattr(actual, name).dtype == dtype
        np.testing.assert_allclose(getattr(actual, name), expected, rtol=tolerance, atol=tolerance * scale)


# ---------------------------------------------------------------- identities


@given(w=windows(), gamma=GAMMA, lam=LAMBDA)
@FAST
def test_identities(w, gamma, lam):
    x = w.tensors(F64)
    facts = (x.reward, x.value, x.terminated, x.done)
    steps = x.reward.shape[0]

    def same(a, b):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)

    delta = credit.td_error(*facts[:3], gamma)
    same(credit.gae(*facts, gamma, 0.0), delta)
    to_the_end = credit.n_step_return(*facts, gamma, steps)
    same(credit.gae(*facts, gamma, 1.0), to_the_end - x.value[:-1])
    same(credit.lambda_return(*facts, gamma, 1.0), to_the_end)
    same(credit.n_step_return(*facts, gamma, 1), delta + x.value[:-1])
    same(credit.n_step_return(*facts, gamma, steps + 5), to_the_end)
    same(
        credit.lambda_return(*facts, gamma, lam) - x.value[:-1],
        credit.gae(*facts, gamma, lam),
    )
    # with no value to bootstrap from, the return to the end is the reward-to-go
    same(
        credit.n_step_return(x.reward, torch.zeros_like(x.value), *facts[2:], gamma, steps),
        credit.reward_to_go(x.reward, x.done, gamma),
    )
    # the first decision of an episode has the whole return ahead of it
    start = credit.episode_start(x.done)
    full = credit.full_return(x.reward, x.done, gamma)
    same(full[start], credit.reward_to_go(x.reward, x.done, gamma)[start])
    # on-policy V-trace is GAE, target and advantage alike
    on_policy = credit.vtrace(*facts, torch.ones_like(x.reward), gamma, lam)
    same(on_policy.target - x.value[:-1], credit.gae(*facts, gamma, lam))
    same(on_policy.advantage, credit.gae(*facts, gamma, lam))


@given(w=windows(), gamma=GAMMA, lam=LAMBDA)
@FAST
def test_lambda_return_mixes_n_step_returns_with_the_tail_on_the_last(w, gamma, lam):
    """(1−λ) Σ_{n<N} λⁿ⁻¹ G⁽ⁿ⁾ + λᴺ⁻¹ G⁽ᴺ⁾ for any N ≥ T: beyond an episode's end all G⁽ⁿ⁾ are equal."""
    x = w.tensors(F64)
    facts = (x.reward, x.value, x.terminated, x.done)
    last = x.reward.shape[0] + 2
    g = [credit.n_step_return(*facts, gamma, n) for n in range(1, last + 1)]
    mixture = (1 - lam) * sum(lam**i * g[i] for i in range(last - 1)) + lam ** (last - 1) * g[-1]
    torch.testing.assert_close(credit.lambda_return(*facts, gamma, lam), mixture, rtol=1e-9, atol=1e-9)


@given(w=windows(), gamma=st.sampled_from([0.9, 1.0]))
@FAST
def test_nothing_crosses_the_end_of_an_episode(w, gamma):
    """A window's credit is the credit of its episodes, each computed alone."""
    x = w.tensors(F64)
    if x.done.ndim != 2:
        return
    ratio = (x.logp - x.logp_old).exp()

    def all_credits(rows: slice, column: int):
        r, e, d = x.reward[rows, column], x.terminated[rows, column], x.done[rows, column]
        v, q = x.value[rows.start : rows.stop + 1, column], ratio[rows, column]
        return torch.stack(
            [
                credit.reward_to_go(r, d, gamma),
                credit.full_return(r, d, gamma),
                credit.discount_weight(d, gamma, F64),
                credit.n_step_return(r, v, e, d, gamma, 3),
                credit.gae(r, v, e, d, gamma, 0.9),
                *credit.vtrace(r, v, e, d, q, gamma, 0.9),
            ]
        )

    for column in range(x.done.shape[1]):
        flags = x.done[:, column].tolist()
        whole = all_credits(slice(0, len(flags)), column)
        for t in range(len(flags)):
            alone = slice(oracles.start_of(t, flags), oracles.end_of(t, flags) + 1)
            torch.testing.assert_close(whole[:, alone], all_credits(alone, column), rtol=1e-9, atol=1e-9)


def test_gradients_flow():
    generator = torch.Generator().manual_seed(1)
    reward, value, ratio = (
        torch.rand(n, 2, generator=generator, dtype=F64, requires_grad=True) for n in (6, 7, 6)
    )
    terminated = torch.tensor([[0, 0], [0, 1], [1, 0], [0, 0], [0, 0], [0, 0]], dtype=torch.bool)
    done = terminated | torch.tensor([[1, 0], [0, 0], [0, 0], [0, 0], [0, 1], [0, 0]], dtype=torch.bool)
    assert torch.autograd.gradcheck(
        lambda r, v, q: tuple(credit.vtrace(r, v, terminated, done, q, 0.9, 0.8, 0.7, 0.6)),
        (reward, value, ratio),
    )
    assert torch.autograd.gradcheck(
        lambda r, v: credit.n_step_return(r, v, terminated, done, 0.9, 3), (reward, value)
    )


# ---------------------------------------------------------------- by hand


def column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=F64)[:, None]


def flags(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.bool)[:, None]


def close(actual: torch.Tensor, *expected: float, atol: float = 5e-6) -> None:
    np.testing.assert_allclose(actual[:, 0].numpy(), expected, rtol=0, atol=atol)


def test_three_steps_by_hand():  # M-74
    done = flags(0, 0, 1)
    advantage = credit.gae(column(1, 1, 10), column(0.5, 0.6, 0.7, 5), done, done, 0.99, 0.95)
    close(advantage, 10.34819, 9.83965, 9.3)


def test_a_truncated_episode_its_reset_row_and_the_next_episode_by_hand():
    # row 1 is cut by the clock, obs[2] (value 4) its true last observation, row 2 only resets
    facts = (column(1, 2, 0, 3), column(0.5, 1, 4, 2, 9), flags(0, 0, 0, 0), flags(0, 1, 1, 0))
    close(credit.gae(*facts, 0.5, 0.5), 1.75, 3, -3, 5.5)
    close(credit.n_step_return(*facts, 0.5, 2), 1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 1, 3 + 0.5 * 9)
    close(credit.reward_to_go(facts[0], facts[3], 0.5), 2, 2, 0, 3)
    close(credit.full_return(facts[0], facts[3], 0.5), 2, 2, 0, 3)
    close(credit.discount_weight(facts[3], 0.5, F64), 1, 0.5, 1, 1)
    # had the task ended there instead, the future would be worth nothing
    close(credit.gae(facts[0], facts[1], flags(0, 1, 0, 0), facts[3], 0.5, 0.5), 1.25, 1, -3, 5.5)


def test_vtrace_by_hand():
    # ρ = (.5, 1, 1), c = (.5, 1, 1) at rho_max = c_max = 1; δ = (1, 1, 1) with V = 0, γ = .5
    done = flags(0, 0, 1)
    result = credit.vtrace(column(1, 1, 1), column(0, 0, 0, 7), done, done, column(0.5, 2, 3), 0.5)
    close(result.target, 0.5 * 1 + 0.5 * 0.5 * 1.5, 1.5, 1)
    close(result.advantage, 0.5 * (1 + 0.5 * 1.5), 1 + 0.5 * 1, 1)


def test_a_time_limit_is_not_an_end():  # E-37, L-58: 50 steps, r = 1, gamma .99, true value 100 everywhere
    reward, value = torch.ones(50, 1, dtype=F64), torch.full((51, 1), 100.0, dtype=F64)
    none, last = torch.zeros(50, 1, dtype=torch.bool), torch.zeros(50, 1, dtype=torch.bool)
    last[-1] = True
    truncated = credit.lambda_return(reward, value, none, last, 0.99, 1.0)
    torch.testing.assert_close(truncated, value[:-1])
    taken_as_an_end = credit.lambda_return(reward, value, last, last, 0.99, 1.0)
    assert abs(taken_as_an_end[0, 0].item() - 39.5) < 0.005


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
    close(credit.gae(reward, torch.zeros(5, 1, dtype=F64), done, done, 0.99, 0.95), 0, 0, 100, 0)


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


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


# ---------------------------------------------------------------- groups


def test_group_relative_by_hand():
    reward = torch.tensor([1.0, 0.0, 0.0, 1.0, 3.0, 3.0, 3.0, 7.0], dtype=F64)
    plain = credit.group_relative(reward, 4, scale=False)
    assert plain.tolist() == [0.5, -0.5, -0.5, 0.5, -1, -1, -1, 3]
    scaled = credit.group_relative(reward, 4, eps=0.0)
    expected = [1, -1, -1, 1, *(x / 3**0.5 for x in (-1, -1, -1, 3))]  # population: std² = (1+1+1+9)/4
    np.testing.assert_allclose(scaled, expected, atol=1e-12)
    groups = reward.view(2, 4)
    sample = (groups - groups.mean(1, keepdim=True)) / groups.std(1, keepdim=True)
    torch.testing.assert_close(sample.flatten(), scaled * (3 / 4) ** 0.5)  # torch's default: √((G−1)/G)
    assert credit.leave_one_out(reward, 4)[:4].tolist() == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])


@given(
    rewards=st.lists(
        st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4), min_size=1, max_size=5
    ),
    scale=st.booleans(),
    dtype=st.sampled_from([torch.float32, F64]),
)
@FAST
def test_group_relative_is_the_definition(rewards, scale, dtype):
    flat = torch.tensor(rewards, dtype=dtype).flatten()
    actual = credit.group_relative(flat, 4, scale=scale)
    assert actual.dtype == dtype
    tolerance = 1e-9 if dtype == F64 else 1e-3
    for group, out in zip(rewards, actual.view(-1, 4).tolist(), strict=True):
        mean = sum(group) / 4
        std = (sum((r - mean) ** 2 for r in group) / 4) ** 0.5
        divisor = std + 1e-4 if scale else 1.0
        largest = max(1.0, max(abs(r) for r in group))
        np.testing.assert_allclose(
            np.array(out) * divisor, [r - mean for r in group], atol=tolerance * largest
        )
    torch.testing.assert_close(
        credit.group_relative(torch.stack([flat, flat]), 4, scale=scale), torch.stack([actual, actual])
    )


@given(value=st.floats(-1e6, 1e6, width=32), size=st.integers(1, 16))
@FAST
def test_a_unanimous_group_says_exactly_nothing(value, size):
    reward = torch.full((2 * size,), value, dtype=torch.float32)
    for scale in (True, False):
        assert torch.equal(credit.group_relative(reward, size, scale=scale), torch.zeros(2 * size))


@given(rewards=st.lists(st.floats(-100, 100, width=32), min_size=6, max_size=6))
@FAST
def test_leave_one_out_is_the_definition(rewards):
    actual = credit.leave_one_out(torch.tensor(rewards, dtype=F64), 3)
    for i, out in enumerate(actual.tolist()):
        others = [rewards[j] for j in range(i // 3 * 3, i // 3 * 3 + 3) if j != i]
        assert out == pytest.approx(rewards[i] - sum(others) / 2, abs=1e-9)


def test_own_reward_in_the_mean_shrinks_the_gradient(lab):  # M-88, L-54: exact over all pairs that share s₀
    p, (size, first) = lab.p(THETA_OLD), (len(lab.dynamics), lab.state[0])
    share = (first[:, None] == first[None, :]) / lab.initial[first]
    pair = p[:, None] * p[None, :] * share
    ret = credit.full_return(lab.reward, lab.done, 0.9)[0]
    groups = torch.stack([ret[:, None].expand(size, size), ret[None, :].expand(size, size)], -1)
    score = lab.score(THETA_OLD).sum(0)
    truth = lab.gradient(THETA_OLD, 0.9)
    for advantage, factor in (
        (credit.group_relative(groups, 2, scale=False), 0.5),
        (credit.leave_one_out(groups, 2), 1.0),
    ):
        weighted = pair[..., None] * advantage / 2
        estimate = weighted[..., 0].sum(1) @ score + weighted[..., 1].sum(0) @ score
        torch.testing.assert_close(estimate, factor * truth)


# ---------------------------------------------------------------- misuse and compilation


def test_misuse_is_refused_in_one_line():
    with pytest.raises(UsageError, match="10 rewards cannot be split into groups of num_generations = 4"):
        credit.group_relative(torch.zeros(10), 4)
    with pytest.raises(UsageError, match="at least 2, got 1"):
        credit.leave_one_out(torch.zeros(4), 1)
    none = torch.zeros(2, 1, dtype=torch.bool)
    with pytest.raises(UsageError, match="at least 1, got 0"):
        credit.n_step_return(torch.zeros(2, 1), torch.zeros(3, 1), none, none, 0.9, 0)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(jaxtyping.TypeCheckError):
        credit.reward_to_go(torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.bool), 0.9)


def compiled_cases():
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(9, 2, generator=generator), torch.randn(10, 2, generator=generator)
    ratio, draw = torch.rand(9, 2, generator=generator) * 2, torch.rand(9, 2, generator=generator)
    terminated, done = draw < 0.15, draw < 0.3
    facts = (reward, value, terminated, done)
    return {
        "episode_start": (done,),
        "reward_to_go": (reward, done, 0.9),
        "full_return": (reward, done, 0.9),
        "discount_weight": (done, 0.9),
        "td_error": (reward, value, terminated, 0.9),
        "n_step_return": (*facts, 0.9, 5),
        "gae": (*facts, 0.9, 0.95),
        "lambda_return": (*facts, 0.9, 0.95),
        "vtrace": (*facts, ratio, 0.9),
        "group_relative": (reward, 2),
        "leave_one_out": (reward, 2),
    }


@pytest.mark.parametrize("name", compiled_cases())
def test_compiles_whole(name):
    function, arguments = getattr(credit, name), compiled_cases()[name]
    with oracles.unchecked():
        compiled = torch.compile(function, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(*arguments), function(*arguments))


def test_compiles_whole_through_aot():
    arguments = compiled_cases()["vtrace"]
    with oracles.unchecked():
        compiled = torch.compile(credit.vtrace, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*arguments), credit.vtrace(*arguments))
