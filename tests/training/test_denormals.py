"""Numbers that are too small to be quick count as zeros while an update computes, and nowhere else."""

import pytest
import torch

import pgrad as pg
from pgrad.training.denormals import flushed
from tests.training.tools import training

TINY = torch.finfo(torch.float32).tiny


def half(x: float) -> float:
    """x/2 by the processor, in float32."""
    return float(torch.tensor(x) * 0.5)


def test_inside_and_afterwards() -> None:
    assert half(TINY) > 0.0
    with flushed():
        assert half(TINY) == 0.0
        with flushed():
            pass
        assert half(TINY) == 0.0, "an inner one leaves the outer one be"
    assert half(TINY) > 0.0
    with pytest.raises(ValueError, match="broken"), flushed():
        raise ValueError("broken")
    assert half(TINY) > 0.0


def test_moments_that_die_out_become_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a weight behind a unit that is never active again."""
    made = training(pg.PPO(n_steps=4, batch_size=8, n_epochs=1))
    made.iterate()
    optimizer = next(iter(made.learner._flat.groups.values())).optimizer
    mean = optimizer.moments[0]
    grads = optimizer.grads
    mean[0] = 2.0 * TINY
    seen = []

    def without_gradient(*_: object) -> torch.Tensor:
        grads.zero_()
        seen.append(half(TINY))
        return torch.zeros(())

    monkeypatch.setattr("pgrad.training.learner.clip", without_gradient)
    for _ in range(10):
        made.iterate()
    assert set(seen) == {0.0}
    assert float(mean[0]) == 0.0
    assert half(TINY) > 0.0
