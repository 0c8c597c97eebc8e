"""A recording answers as the function does, or is not used."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pgrad import cuda_graph
from pgrad.cuda_graph import Recorded, alike, moved_alike
from tests.recorder import Recordings, recorded_here


@pytest.fixture
def recordings() -> Iterator[Recordings]:
    with recorded_here() as found:
        yield found


class Step:
    """A step down a gradient with momentum, which counts and notes how it was called."""

    def __init__(self) -> None:
        self.theta, self.moment, self.rate = torch.arange(3.0), torch.zeros(3), torch.tensor(0.1)
        self.calls = 0

    def __call__(self, inputs: list[Tensor]) -> list[Tensor]:
        (x,) = inputs
        self.calls += 1
        grad = (x * self.theta).sum(0)
        self.moment.mul_(0.9).add_(grad)
        self.theta.sub_(self.rate * self.moment)
        return [grad.norm(), self.theta.clone().view(1, 3), (grad > 0).sum(), grad > 0]

    @property
    def writes(self) -> list[Tensor]:
        return [self.theta, self.moment, self.rate]


def batches(n: int) -> list[Tensor]:
    return list(torch.randn(n, 4, 3, generator=torch.Generator().manual_seed(0)))


def test_every_call_is_one_step_and_answers_stay(recordings: Recordings) -> None:
    plain, step = Step(), Step()
    recorded = Recorded(step, "step", writes=step.writes, tell=pytest.fail)
    answers, expected = [], []
    for k, x in enumerate(batches(6)):
        step.rate.fill_(0.1 / (k + 1))
        plain.rate.fill_(0.1 / (k + 1))
        expected.append(plain([x]))
        answers.append(recorded([x]))
        assert torch.equal(plain.theta, step.theta)
        assert torch.equal(plain.moment, step.moment)
    for one, other in zip(expected, answers, strict=True):  # those of the first calls too
        assert [x.dtype for x in one] == [x.dtype for x in other]
        assert all(map(torch.equal, one, other))
    assert len(recordings.tapes) == 1
    assert recordings.replayed == 6
    assert step.calls == cuda_graph.TRIALS + cuda_graph.WARM_UP + 1  # to compare with, before, to be recorded


def test_inputs_are_left_alone_and_may_be_views(recordings: Recordings) -> None:
    step = Step()
    recorded = Recorded(step, "step", writes=step.writes, tell=pytest.fail)
    whole = torch.stack(batches(2), -1)
    before = whole.clone()
    plain = Step()
    for k in (0, 1, 0):
        for one, other in zip(recorded([whole[..., k]]), plain([whole[..., k]]), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(whole, before)


def test_new_shapes_are_recorded_up_to_a_number(recordings: Recordings) -> None:
    calls: list[int] = []

    def double(inputs: list[Tensor]) -> list[Tensor]:
        calls.append(len(inputs[0]))
        return [inputs[0] * 2]

    recorded = Recorded(double, "double", most=2, tell=pytest.fail)
    for n in (3, 4, 3, 4, 5, 5, 3):
        x = torch.arange(float(n))
        assert torch.equal(recorded([x])[0], x * 2)
    assert len(recordings.tapes) == 2
    assert calls.count(5) == 2  # as it is written
    assert calls.count(3) == calls.count(4) == 1 + cuda_graph.TRIALS + cuda_graph.WARM_UP


def by_value(step: Step) -> Callable[[list[Tensor]], list[Tensor]]:
    def function(inputs: list[Tensor]) -> list[Tensor]:
        return step(inputs) if bool(inputs[0].isfinite().all()) else inputs

    return function


def test_a_number_that_was_written_into_a_recording_is_found(recordings: Recordings) -> None:
    """As where a function reads a number of Python's that another call changes."""
    told: list[str] = []
    scale = [1.0]
    recorded = Recorded(lambda inputs: [inputs[0] * scale[0]], "it", tell=told.append)
    for k in range(4):
        scale[0] = k + 1.0
        assert torch.equal(recorded([torch.ones(2)])[0], torch.full((2,), k + 1.0))
    assert told == ["it is not run as a CUDA graph (its answers differ)"]


@pytest.mark.parametrize(
    ("how", "why"), [("raises", "not permitted"), ("breaks", "its answers differ"), ("warm-up", "no kernel")]
)
def test_what_cannot_be_recorded_runs_as_it_is_written(recordings: Recordings, how: str, why: str) -> None:
    plain, step, told = Step(), Step(), []
    recordings.breaks = how == "breaks"

    def unable(_: Any) -> Any:
        step.theta.fill_(7.0)
        raise RuntimeError("no kernel\nfor this")

    function = {"raises": by_value(step), "breaks": step, "warm-up": unable}[how]
    recorded = Recorded(function, "the step", plainly=step, writes=step.writes, tell=told.append)
    for x in batches(3):
        assert all(map(torch.equal, plain([x]), recorded([x])))
        assert all(map(torch.equal, plain.writes, step.writes))
    assert len(told) == 1
    assert told[0].startswith("the step is not run as a CUDA graph (")
    assert why in told[0]
    assert "\n" not in told[0]


def test_an_error_of_the_function_itself_is_raised(recordings: Recordings) -> None:
    def broken(_: list[Tensor]) -> list[Tensor]:
        raise ValueError("wrong shapes")

    told: list[str] = []
    with pytest.raises(ValueError, match="wrong shapes"):
        Recorded(broken, "it", tell=told.append)([torch.ones(2)])


def test_a_recording_may_round_and_not_more() -> None:
    x = torch.tensor([1.0, float("nan"), float("inf"), -1e-9])
    assert alike(x, x + torch.tensor([1e-4, 0.0, 0.0, 1e-9]))
    assert not alike(x, x + torch.tensor([1e-2, 0.0, 0.0, 0.0]))
    assert not alike(x, x.nan_to_num(nan=0.0))
    assert not alike(x, -x)
    assert alike(1e6 * torch.ones(2), 1e6 * torch.ones(2) + 100)
    assert not alike(torch.tensor([3]), torch.tensor([4]))
    assert alike(torch.empty(0), torch.empty(0))


def test_a_recording_steps_as_far_and_where_to() -> None:
    """Steps of 3e-4 of weights near 1: none at all, another size and another direction are told apart from
    rounding."""
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    step = 3e-4 * torch.randn(1000, generator=torch.Generator().manual_seed(1)).sign()
    assert moved_alike(x, x + step, x + step)
    assert moved_alike(x, x + step, x + 1.01 * step)
    few = step.clone()
    few[:2] *= -1.0  # weights whose gradient is rounding
    assert moved_alike(x, x + step, x + few)
    for other in (torch.zeros_like(step), -step, 2.0 * step, 0.5 * step, step.flip(0)):
        assert not moved_alike(x, x + step, x + other)
    assert not moved_alike(x, x, x + step)
    assert moved_alike(x, x, x)
    broken = (x + step).index_fill(0, torch.tensor([3]), math.nan)
    assert not moved_alike(x, x + step, broken)
    assert moved_alike(x, broken, broken)
    assert not moved_alike(torch.tensor([3]), torch.tensor([4]), torch.tensor([3]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    plain, step = Step(), Step()
    for one in (plain, step):
        one.theta, one.moment, one.rate = (x.cuda() for x in one.writes)
    recorded = Recorded(step, "step", writes=step.writes, tell=pytest.fail)
    for x in batches(5):
        for one, other in zip(plain([x.cuda()]), recorded([x.cuda()]), strict=True):
            assert alike(one, other)
    assert alike(plain.theta, step.theta)
    assert step.calls == cuda_graph.TRIALS + cuda_graph.WARM_UP + 1
