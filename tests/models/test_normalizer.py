"""Normalisers against numpy over all rows that count, and the scaler against one loop per environment."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pgrad.models.normalizer import ObservationNormalizer, RewardScaler, RunningMoments

EPS = 1e-8


def batches(seed: int, shape: tuple[int, ...], n: int = 5) -> list[tuple[Tensor, Tensor]]:
    """Windows of different lengths, some rows of weight 0 that hold garbage; one window has none that
    counts."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(n):
        rows = (int(rng.integers(1, 6)), 3)
        x = rng.normal(rng.normal(0, 50), rng.uniform(0.1, 9), (*rows, *shape)).astype(np.float32)
        weight = (rng.random(rows) < 0.7).astype(np.float32) * (k != 2)
        x[weight == 0] = np.nan if k % 2 else 1e30
        out.append((torch.from_numpy(x), torch.from_numpy(weight)))
    return out


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_moments_are_numpys_over_all_rows_that_count(shape: tuple[int, ...], seed: int) -> None:
    moments = RunningMoments(shape)
    seen = []
    for x, weight in batches(seed, shape):
        moments.update(x, weight)
        seen.append(x[weight > 0].double().numpy())
        everything = np.concatenate(seen)
        assert moments.count == len(everything)
        if len(everything):
            variance = everything.var(0)
            assert np.allclose(moments.mean, everything.mean(0), rtol=1e-12)
            assert np.allclose(moments.m2 / moments.count, variance, rtol=1e-10, atol=1e-20)
            assert np.allclose(moments.shift, everything.mean(0), rtol=1e-6)
            assert np.allclose(moments.scale, 1 / np.sqrt(variance + EPS), rtol=1e-6)


def test_before_any_data_nothing_changes() -> None:
    normalizer = ObservationNormalizer(spaces.Box(-1, 1, (3,)))
    x = torch.randn(4, 3)
    assert torch.equal(normalizer(x), x)
    normalizer.update(torch.full((4, 3), torch.nan), torch.zeros(4))
    assert torch.equal(normalizer(x), x)
    assert torch.equal(RewardScaler(0.9)(x), x)


@given(st.integers(1, 40), st.integers(0, 10**6))
def test_one_merge_or_many(cut: int, seed: int) -> None:
    """Statistics do not depend on how the rows came, to float64 rounding (Chan et al.)."""
    x = torch.from_numpy(np.random.default_rng(seed).normal(1e4, 1.0, (41, 2)))
    whole, parts = RunningMoments((2,)), RunningMoments((2,))
    whole.update(x, torch.ones(41))
    parts.update(x[:cut], torch.ones(cut))
    parts.update(x[cut:], torch.ones(41 - cut))
    assert torch.allclose(whole.mean, parts.mean, rtol=1e-14)
    assert torch.allclose(whole.m2, parts.m2, rtol=1e-8)


def test_small_deviations_on_large_numbers() -> None:
    """float64 sums: a deviation of 1e-2 around 1e4 over 200 windows is found, where float32 would drift."""
    moments = RunningMoments(())
    rng = np.random.default_rng(0)
    data = rng.normal(1e4, 1e-2, (200, 64))
    for row in data:
        moments.update(torch.from_numpy(row), torch.ones(64))
    assert float(moments.m2 / moments.count) == pytest.approx(data.var(), rel=1e-6)


def test_values_are_centred_scaled_and_clipped() -> None:
    normalizer = ObservationNormalizer(spaces.Box(-1, 1, (2,)))
    x = torch.tensor([[0.0, 5.0], [4.0, 5.0]])
    normalizer.update(x.unsqueeze(1), torch.ones(2, 1))
    out = normalizer(torch.tensor([[2.0, 5.0], [4.0, 6.0], [1000.0, -3.0]]))
    assert out == pytest.approx(torch.tensor([[0.0, 0.0], [1.0, 10.0], [10.0, -10.0]]), abs=1e-6)


def test_only_boxes_that_are_no_images_in_any_structure() -> None:
    space = spaces.Dict(
        {
            "values": spaces.Box(-1, 1, (2,)),  # a name that an nn.ModuleDict refuses
            "nested.key": spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 9, (), np.float32))),
            "picture": spaces.Box(0, 255, (8, 8, 3), np.uint8),
            "bits": spaces.MultiBinary(2),
            "choices": spaces.MultiDiscrete([2, 3]),
        }
    )
    normalizer = ObservationNormalizer(space)
    obs = {
        "values": torch.randn(4, 3, 2) * 5 + 1,
        "nested.key": (torch.randint(3, (4, 3)), torch.randn(4, 3) - 7),
        "picture": torch.randint(256, (4, 3, 8, 8, 3), dtype=torch.uint8),
        "bits": torch.randint(2, (4, 3, 2)).float(),
        "choices": torch.randint(2, (4, 3, 2)),
    }
    normalizer.update(obs, torch.ones(4, 3))
    out = normalizer(obs)
    assert list(out) == list(space.spaces)
    for x in (out["values"].flatten(0, 1), out["nested.key"][1].flatten()):
        assert x.mean(0).abs().max() < 1e-5
        assert (x.std(0, correction=0) - 1).abs().max() < 1e-4
    assert out["nested.key"][0] is obs["nested.key"][0]
    assert all(out[key] is obs[key] for key in ("picture", "bits", "choices"))


def reward_windows(seed: int, B: int = 3) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Consecutive windows of reward, done and mask with reset rows, some at the borders of windows."""
    rng = np.random.default_rng(seed)
    reset = np.zeros(B, bool)
    out = []
    for T in (5, 1, 1, 4, 7):
        reward, done, mask = np.zeros((T, B), np.float32), np.zeros((T, B), bool), np.ones((T, B), np.float32)
        for t in range(T):
            over = rng.random(B) < 0.35
            mask[t, reset] = 0
            reward[t] = np.where(reset, 0, rng.normal(2, 3, B))
            done[t] = over | reset
            reset = over & ~reset
        out.append(tuple(torch.from_numpy(x) for x in (reward, done, mask)))
    return out


@pytest.mark.parametrize("seed", range(5))
def test_rewards_are_scaled_by_the_deviation_of_the_running_return(seed: int) -> None:
    """R ← r + γ·R while the episode goes on, of each environment on its own, across windows; then r/std(R),
    clipped."""
    gamma, B = 0.9, 3
    scaler = RewardScaler(gamma)
    running, returns = [0.0] * B, []
    for reward, done, mask in reward_windows(seed, B):
        for t in range(len(reward)):
            for i in range(B):
                if mask[t, i] == 0:
                    continue
                running[i] = float(reward[t, i]) + gamma * running[i]
                returns.append(running[i])
                if done[t, i]:
                    running[i] = 0.0
        scaler.update(reward, done, mask)
        std = np.sqrt(np.var(returns) + EPS)
        expected = np.clip(reward.numpy() / std, -10, 10)
        assert scaler(reward).numpy() == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert scaler.moments.count == len(returns)
        assert float(scaler.moments.mean) == pytest.approx(np.mean(returns), rel=1e-5)


def test_the_sign_of_a_reward_stays() -> None:
    scaler = RewardScaler(0.99)
    reward = torch.rand(20, 4) + 5
    scaler.update(reward, torch.zeros(20, 4, dtype=torch.bool), torch.ones(20, 4))
    assert (scaler(reward) > 0).all()
    assert torch.equal(scaler(-reward), -scaler(reward))


def test_statistics_are_saved_and_come_back() -> None:
    """All of them bit for bit, the running returns of the environments included, whatever their number."""
    scaler, other = RewardScaler(0.9), RewardScaler(0.9)
    reward, done, mask = reward_windows(0)[0]
    scaler.update(reward, done, mask)
    state = scaler.state_dict()
    assert {
        "running",
        "moments.count",
        "moments.mean",
        "moments.m2",
        "moments.shift",
        "moments.scale",
    } == state.keys()
    other.running = torch.empty_like(state["running"])
    other.load_state_dict(state)
    for window in reward_windows(1)[1:]:
        scaler.update(*window)
        other.update(*window)
    for name, tensor in scaler.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    normalizer = ObservationNormalizer(spaces.Box(-1, 1, (2,)))
    normalizer.update(torch.randn(3, 4, 2), torch.ones(3, 4))
    again = ObservationNormalizer(spaces.Box(-1, 1, (2,)))
    again.load_state_dict(normalizer.state_dict())
    assert torch.equal(again(torch.ones(1, 2)), normalizer(torch.ones(1, 2)))
