"""Streams of uniform numbers, and choosing by them."""

from typing import Any

import pytest
import torch

from pgrad.models.language.sample import choose, uniforms

MASK = 2**64 - 1


def splitmix(state: int) -> int:
    """The reference, in whole numbers: the next output of splitmix64 at `state`."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_streams_are_splitmix64() -> None:
    assert splitmix(1234567) == 6457827717110365317  # the first of the published test vector
    seeds = [0, 1, 2**62, -5, 2**63 - 1]
    got = uniforms(torch.tensor(seeds), 4)
    for i, seed in enumerate(seeds):
        state = splitmix(seed & MASK)
        for t in range(4):
            assert float(got[i, t]) == (splitmix(state) >> 32) * 2.0**-32
            state = (state + 0x9E3779B97F4A7C15) & MASK


def test_numbers_of_neighbouring_seeds_are_uniform_and_unrelated() -> None:
    u = uniforms(torch.arange(1000), 100)
    assert bool((u >= 0).all())
    assert bool((u < 1).all())
    counts = torch.histc(u.float(), 50, 0, 1)
    chi2 = float(((counts - 2000) ** 2 / 2000).sum())
    assert chi2 < 49 + 4 * 98**0.5
    centred = u - 0.5
    for x, y in ((centred[1:], centred[:-1]), (centred[:, 1:], centred[:, :-1])):
        assert abs(float((x * y).mean())) * 12 < 4 / x.numel() ** 0.5


def test_longer_streams_begin_as_shorter_ones() -> None:
    assert torch.equal(uniforms(torch.arange(5), 3), uniforms(torch.arange(5), 9)[:, :3])


def test_the_cumulative_distribution_is_inverted() -> None:
    p = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    z = p.log().expand(6, -1)
    u = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2.0**-32], dtype=torch.float64)
    token, logp, _ = choose(z.clamp(min=-1e9), u)
    assert token.tolist() == [1, 1, 3, 3, 4, 4]
    torch.testing.assert_close(logp, p[token].log())


def test_truncation_keeps_equals_together_and_at_least_one() -> None:
    z = torch.tensor([[2.0, 2.0, 1.0, 2.0]]).expand(1000, -1)
    u = uniforms(torch.arange(1000), 1)[:, 0]
    token, logp, entropy = choose(z, u, top_k=2)
    assert set(token.tolist()) == {0, 1, 3}
    torch.testing.assert_close(logp, torch.full((1000,), 1 / 3).log())
    torch.testing.assert_close(entropy, torch.full((1000,), 3.0).log())
    token, logp, entropy = choose(torch.tensor([[5.0, 1.0, 0.0]]).expand(1000, -1), u, top_p=1e-6)
    assert not token.any()
    assert not logp.any()
    assert not entropy.any()


@pytest.mark.parametrize("how", [{}, {"greedy": True}, {"top_k": 2}, {"top_p": 0.5}])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_that_is_no_distribution_says_so_and_spoils_no_other(how: dict[str, Any], bad: float) -> None:
    z = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    u = torch.tensor([0.1, 0.9, 0.5, 0.0], dtype=torch.float64)
    spoilt = z.clone()
    spoilt[1, 3], spoilt[2] = bad, torch.nan
    token, logp, _ = choose(spoilt, u, **how)
    assert bool(((token >= 0) & (token < 7)).all())
    assert logp.isnan().tolist() == [False, True, True, False]
    for x, y in zip(choose(spoilt, u, **how), choose(z, u, **how), strict=True):
        assert torch.equal(x[::3], y[::3])
