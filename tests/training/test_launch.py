"""Trainings whose functions are recorded and replayed, as on a GPU, compute what the functions do."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import pgrad as pg
from pgrad.training.compiled import launch, package
from pgrad.training.loop import Training
from tests.recorder import Recordings, recorded_here
from tests.training.tools import CODED, training


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recordings]:
    """As on a GPU without a compiler: traced graphs are recorded as they are."""

    def nothing() -> None:
        raise package.NoCompilerError("no compiler here")

    monkeypatch.setattr(package, "prepare", nothing)
    monkeypatch.setattr(package, "load", lambda *_: None)
    monkeypatch.setattr(launch, "on_gpu", lambda _: True)
    monkeypatch.setattr(launch, "described", lambda _: [])
    with recorded_here() as found:
        yield found


SMALL = pg.AgentSpec(net_arch=(8,), activation="silu")
RUNS: list[tuple[Any, ...]] = [
    (pg.PPO(n_steps=8, batch_size=8, n_epochs=2, clip_range_schedule="linear"), "cartpole", CODED, 4),
    (pg.A2C(learning_rate_schedule="linear"), "pendulum", CODED, 3),
    (pg.SAC(buffer_size=100, learning_starts=8, batch_size=8), "pendulum", SMALL, 2),
    (pg.OffPolicyActorCritic(buffer_size=100, n_steps=8), "cartpole", SMALL, 4),
]


@pytest.mark.parametrize(("algorithm", "world", "agent", "least"), RUNS)
def test_recorded_trainings_take_the_same_steps(
    recordings: Recordings, algorithm: Any, world: str, agent: Any, least: int
) -> None:
    """Step sizes that fall are tensors; random numbers are drawn outside; new batches are copied in."""
    plain, quick = (training(algorithm, world, agent=agent) for _ in range(2))
    quick.compile_after = 0
    quick.learner.machine.warn = pytest.fail
    for k in range(6):
        expected, found = plain.iterate(), quick.iterate()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-4), (k, name)
    states = (t.agent.state_dict() for t in (plain, quick))
    for one, other in zip(*(state.values() for state in states), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert len(recordings.tapes) >= least
    assert recordings.replayed > 3 * len(recordings.tapes)
    generators = [t.collector.generator.get_state() for t in (plain, quick)]
    assert torch.equal(*generators)


def test_a_recorded_training_goes_on_exactly(recordings: Recordings) -> None:
    """What it stepped on is put back in place, under recordings that stay."""
    whole, first = (quick() for _ in range(2))
    for _ in range(4):
        whole.iterate()
    for _ in range(2):
        first.iterate()
    state = copied(first.state_dict())
    first.iterate()
    second = quick()
    for one in (first, second):  # into one that was recorded already, and one that was not
        one.load_state_dict(state)
        for _ in range(2):
            one.iterate()
        assert all(map(torch.equal, *(t.agent.state_dict().values() for t in (whole, one))))


def quick() -> Training:
    found = training(pg.PPO(n_steps=8, batch_size=8, n_epochs=2))
    found.compile_after = 0
    found.learner.machine.warn = pytest.fail
    return found


def copied(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: copied(part) for key, part in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(copied, state))
    return state.clone() if isinstance(state, torch.Tensor) else state


def test_machine_code_that_is_wrong_is_not_used(
    recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler's answer is compared with that of the graph that it compiled."""
    told: list[str] = []

    def build(module: Any, *_: Any) -> package.Code:
        return lambda tensors: [x + 1 for x in module(*tensors)]

    monkeypatch.setattr(package, "prepare", lambda: None)
    monkeypatch.setattr(package, "build", build)
    plain, wrong = (training(pg.A2C()) for _ in range(2))
    wrong.compile_after, wrong.learner.machine.warn = 0, told.append
    for _ in range(3):
        plain.iterate()
        wrong.iterate()
    for one, other in zip(*(t.agent.state_dict().values() for t in (plain, wrong)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert told
    assert all(line.endswith("is not run as a CUDA graph (its answers differ)") for line in told)
