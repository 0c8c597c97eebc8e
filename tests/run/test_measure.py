"""What `measure` counts, and what it advises."""

from dataclasses import replace

import pytest

import pgrad as pg
from pgrad.run.config import RunOptions
from pgrad.run.measure import Measurement, Stage, advice, measure
from pgrad.run.start import configured
from pgrad.training.compiled.worth import COMPILE_AFTER, Foretold

PPO = pg.PPO(n_steps=8, batch_size=16, n_epochs=3)


def test_counts_are_those_of_the_algorithm() -> None:
    found = measure(configured(PPO, "pendulum", None, RunOptions(n_envs=4)), 0.2)
    assert (
        found.timesteps == 32 * found.iterations
    )  # the pendulum never resets in so few steps, or it would be less
    assert found.gradient_steps == 6 * found.iterations
    assert set(found.stages) == {"world", "act", "credit", "update", "other"}
    assert sum(stage.share for stage in found.stages.values()) == pytest.approx(1.0)
    total = sum(stage.milliseconds for stage in found.stages.values())
    assert total * found.iterations == pytest.approx(1e3 * found.seconds)
    for stage in found.stages.values():
        assert stage.share * stage.steps_per_second == pytest.approx(found.steps_per_second)
    assert found.threads == 1
    assert found.memory > 50


def test_replay_is_measured_once_it_is_used() -> None:
    sac = pg.SAC(learning_starts=10, batch_size=8)
    found = measure(configured(sac, "pendulum", None, RunOptions(n_envs=2)), 0.1)
    assert found.gradient_steps == 3 * found.timesteps  # critic, actor, temperature
    assert found.timesteps == 2 * found.iterations


def test_machine_code_and_what_is_written_are_not_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    never = measure(configured(PPO, "pendulum", None, RunOptions(n_envs=4, compile="no")), 0.1)
    assert (never.compiled, never.compile_after) == (False, None)
    auto = measure(configured(PPO, "pendulum", None, RunOptions(n_envs=4)), 0.1)
    assert (auto.compiled, auto.compile_after) == (False, COMPILE_AFTER)
    monkeypatch.setattr("pgrad.training.compiled.worth.COMPILE_AFTER", 30)
    short = measure(configured(PPO, "pendulum", None, RunOptions(n_envs=4)), 60.0)
    assert not short.compiled
    assert short.gradient_steps == 30 - 2 * 6  # two iterations are warm-up; then to where it would change


def measured(world: float, act: float, update: float) -> Measurement:
    shares = {"world": world, "act": act, "update": update}
    stages = {name: Stage(1.0, share, 1.0) for name, share in shares.items()}
    return Measurement(1.0, 1, 1, 1, stages, 0.0, 1.0, 0.0, 1, 1.0, "cpu", False, None, "")


def test_advice_is_given_where_it_is_evident(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgrad.run.measure.cores", lambda: 4)
    gym = configured(PPO, "CartPole-v1", None, RunOptions(n_envs=8))
    tensors = configured(PPO, "cartpole", None, RunOptions(n_envs=8))
    assert advice(gym, measured(0.6, 0.2, 0.2)).endswith("--workers 4")
    assert advice(replace(gym, options=RunOptions(workers=2)), measured(0.6, 0.2, 0.2)) == ""
    assert "(--workers)" in advice(replace(gym, options=RunOptions(n_envs=1)), measured(0.6, 0.2, 0.2))
    assert advice(tensors, measured(0.6, 0.2, 0.2)).endswith("--n-envs 32")
    assert advice(gym, measured(0.2, 0.6, 0.2)).endswith("--n-envs 32")
    assert "--batch-size 64" in advice(gym, measured(0.2, 0.2, 0.6))
    assert advice(gym, measured(0.3, 0.3, 0.4)) == ""
    assert "waited 50% of the time" in advice(gym, replace(measured(0.6, 0.2, 0.2), busy=0.5))
    assert advice(configured(pg.SAC(), "pendulum", None, RunOptions()), measured(0.1, 0.1, 0.8)) == ""


def test_when_machine_code_will_take_over_is_said_once() -> None:
    """Ten gradient steps every 50 decisions, from the 40th on: the hundredth comes 90 / 10 · 50 after 90."""
    foretold = Foretold(100, 1_000)
    assert foretold.line(0, 40) == ""
    assert "after 100 gradient steps, about step 540 (" in foretold.line(10, 90)
    assert foretold.line(20, 140) == ""


@pytest.mark.parametrize(
    ("after", "seen"),
    [(None, (0, 0)), (1_000, (0, 0)), (100, (100, 500))],  # never, not in this run, already
)
def test_nothing_is_said_where_machine_code_does_not_take_over(
    after: int | None, seen: tuple[int, int]
) -> None:
    updates, timesteps = seen
    assert Foretold(after, 1_000, seen).line(updates + 10, timesteps + 50) == ""
