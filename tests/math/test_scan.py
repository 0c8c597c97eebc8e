"""The scan is the textbook recurrence, exactly cut by zeros, in a logarithmic number of operations."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.utils._python_dispatch import TorchDispatchMode

from pgrad.math.scan import forward_scan, reverse_scan
from tests.math import oracles

FAST = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])


def loop(decay: list[float], x: list[float]) -> list[float]:
    y = [0.0] * (len(x) + 1)
    for t in reversed(range(len(x))):
        y[t] = x[t] + decay[t] * y[t + 1]
    return y[:-1]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = (draw(st.integers(1, 20)), *draw(st.sampled_from([(), (1,), (3,), (2, 2)])))
    decay = st.one_of(st.just(0.0), st.floats(-1, 1, width=32))
    return (
        draw(hnp.arrays(np.float64, shape, elements=decay)),
        draw(hnp.arrays(np.float64, shape, elements=st.floats(-8, 8, width=32))),
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@given(pair=pairs())
@FAST
def test_reverse_scan_is_the_loop(pair, dtype, tolerance):
    decay, x = pair
    y = reverse_scan(torch.tensor(decay, dtype=dtype), torch.tensor(x, dtype=dtype))
    assert y.dtype == dtype
    np.testing.assert_allclose(y, oracles.by_column(loop, decay, x), rtol=tolerance, atol=tolerance)


@given(pair=pairs())
@FAST
def test_forward_scan_is_the_loop_forwards(pair):
    decay, x = pair
    y = forward_scan(torch.tensor(decay), torch.tensor(x))
    expected = np.flip(oracles.by_column(loop, np.flip(decay, 0), np.flip(x, 0)), 0)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", range(1, 34))
def test_every_length_around_the_powers_of_two(steps):
    # y_t = 1 + 2 y_{t+1} is 2^(T-t) - 1, an integer that float64 holds exactly
    decay, x = torch.full((steps,), 2.0, dtype=torch.float64), torch.ones(steps, dtype=torch.float64)
    assert reverse_scan(decay, x).tolist() == [2.0 ** (steps - t) - 1 for t in range(steps)]


def test_a_zero_decay_cuts_exactly():
    generator = torch.Generator().manual_seed(0)
    decay, x = torch.rand(40, 2, generator=generator), torch.randn(40, 2, generator=generator)
    decay[17] = 0.0
    other = x.clone()
    other[18:] = 1e30
    assert torch.equal(reverse_scan(decay, x)[:18], reverse_scan(decay, other)[:18])
    assert torch.equal(reverse_scan(decay, x)[17], x[17])


def test_float32_keeps_its_precision_over_a_long_window():
    generator = torch.Generator().manual_seed(0)
    decay = torch.full((2048, 4), 0.99) * (torch.rand(2048, 4, generator=generator) > 0.002)
    x = torch.randn(2048, 4, generator=generator)
    decay64, x64 = decay.double().numpy(), x.double().numpy()
    error = reverse_scan(decay, x).numpy() - oracles.by_column(loop, decay64, x64)
    size = oracles.by_column(loop, decay64, np.abs(x64))  # what the terms of each sum add up to
    assert (np.abs(error) <= 4 * np.finfo(np.float32).eps * size).all()


def test_is_differentiable_in_both_arguments():
    generator = torch.Generator().manual_seed(0)
    decay, x = (
        torch.randn(7, 2, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    assert torch.autograd.gradcheck(reverse_scan, (decay, x))


class CountOperations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("steps", [128, 2048])
def test_costs_a_logarithm_of_operations(steps):
    decay, x = torch.full((steps, 1), 0.9), torch.ones(steps, 1)
    with CountOperations() as counted:
        reverse_scan(decay, x)
    rounds = (steps - 1).bit_length()
    assert rounds <= counted.count <= 10 * rounds


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("function", [reverse_scan, forward_scan])
def test_compiles_whole(function, backend):
    decay, x = torch.rand(13, 2), torch.randn(13, 2)
    with oracles.unchecked():
        compiled = torch.compile(function, fullgraph=True, backend=backend)
        torch.testing.assert_close(compiled(decay, x), function(decay, x))
