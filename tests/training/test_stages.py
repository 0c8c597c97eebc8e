"""Stages: a stopwatch whose parts add up, and a timed algorithm that is the same algorithm."""

import pytest

import pgrad as pg
from pgrad.training.stages import STAGES, Stages, shares
from tests.training.test_console import Clock


def test_every_moment_counts_for_one_stage() -> None:
    clock = Clock()
    stages = Stages(clock)
    clock.now += 1
    with stages.within("act"):
        clock.now += 2
        for _ in range(2):
            before = stages.switch("world")
            clock.now += 4
            assert stages.switch(before) == "world"
        clock.now += 8
    clock.now += 16
    assert stages.take() == {"time/world": 8.0, "time/act": 10.0, "time/other": 17.0}
    clock.now += 32
    assert stages.take() == {"time/other": 32.0}  # what was told is not told again


def test_an_error_ends_all_stages_that_it_leaves() -> None:
    clock = Clock()
    stages = Stages(clock)

    def broken() -> None:
        stages.switch("world")
        clock.now += 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), stages.within("act"):
        broken()
    clock.now += 2
    assert stages.take() == {"time/world": 1.0, "time/act": 0.0, "time/other": 2.0}


def test_the_rows_of_a_run_tell_every_stage() -> None:
    run = pg.train(pg.PPO(n_steps=16, batch_size=32), "cartpole", total_timesteps=600, n_envs=4, log_every=1)
    for row in run.history:
        told = {key.removeprefix("time/") for key in row if key.startswith("time/")}
        assert told & set(STAGES) == {"world", "act", "credit", "update", "other"}
        assert sum(shares(row).values()) == pytest.approx(1.0)
    spent = sum(row[f"time/{name}"] for row in run.history for name in ("world", "act", "credit", "update"))
    assert 0.5 * run.history[-1]["time/time_elapsed"] < spent <= run.history[-1]["time/time_elapsed"]
