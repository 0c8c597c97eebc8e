"""Group-relative and leave-one-out advantages: definition, exact bias, weight of difficulty."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgrad.math import credit
from tests.math.oracles import THETA_OLD, Lab

F64 = torch.float64
FAST = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab()


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


@pytest.mark.parametrize(
    ("q", "factor", "silent"), [(0.5, 1.856, 0.008), (0.9, 2.328, 0.430), (0.99, 2.609, 0.923)]
)
def test_dividing_by_the_deviation_weights_prompts_by_difficulty(q, factor, silent):  # E-46, L-55
    """Right-or-wrong rewards of probability q, over all 2⁸ groups: how much longer than ∇q the update is."""
    reward = torch.cartesian_prod(*[torch.arange(2.0, dtype=F64)] * 8)
    p = (q * reward + (1 - q) * (1 - reward)).prod(1)
    score = (reward - q) / (q * (1 - q))  # ∂ log p / ∂q

    def length(advantage: torch.Tensor) -> float:
        return float(p @ (advantage * score).mean(1))

    scaled = credit.group_relative(reward, 8, eps=1e-9)
    assert length(scaled) == pytest.approx(factor, abs=5e-4)
    assert float(p @ (scaled == 0).all(1).double()) == pytest.approx(silent, abs=5e-4)
    assert length(credit.group_relative(reward, 8, scale=False)) == pytest.approx(1 - 1 / 8)
    assert length(credit.leave_one_out(reward, 8)) == pytest.approx(1.0)


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


def test_equal_rewards_give_zero_without_eps_too() -> None:
    reward = torch.tensor([3.0, 3.0, 1.0, 2.0])
    advantage = credit.group_relative(reward, 2, eps=0.0)
    assert advantage.tolist() == [0.0, 0.0, -1.0, 1.0]


@given(
    rewards=st.lists(st.floats(-1e3, 1e3, width=32), min_size=4, max_size=4),
    counted=st.lists(st.booleans(), min_size=4, max_size=4),
)
@FAST
def test_what_has_no_weight_belongs_to_no_group(rewards, counted):
    """Groups with gaps, filled with NaN, are the groups without the gaps."""
    weight = torch.tensor(counted, dtype=F64)
    reward = torch.tensor(rewards, dtype=F64).where(weight > 0, torch.nan)
    there = reward[weight > 0]
    for scale in (False, True):
        found = credit.group_relative(reward, 4, scale=scale, weight=weight)
        assert bool((found[weight == 0] == 0).all())
        if len(there):
            torch.testing.assert_close(found[weight > 0], credit.group_relative(there, len(there), scale))
    found = credit.leave_one_out(reward, 4, weight)
    assert bool((found[weight == 0] == 0).all())
    expected = credit.leave_one_out(there, len(there)) if len(there) > 1 else torch.zeros_like(there)
    torch.testing.assert_close(found[weight > 0], expected)
