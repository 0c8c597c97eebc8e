"""Every credit against its definition, identities, hand-computed numbers, and the exact gradient."""

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgrad.errors import UsageError
from pgrad.math import credit
from tests.math import oracles
from tests.math.oracles import windows

GAMMA = st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0])
LAMBDA = st.sampled_from([0.0, 0.3, 0.95, 1.0])
PRECISION = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-4)], ids=["float64", "float32"]
)
FAST = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
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
