"""Runs on stacked observations: stopped and continued, loaded, evaluated, filmed, recorded."""

from pathlib import Path
from typing import Any

import pytest

import pgrad as pg
from pgrad.errors import UsageError
from tests.run.tools import differences, final_state, rows

pytestmark = pytest.mark.usefixtures("no_plots")

PPO = pg.PPO(n_steps=16, batch_size=16, n_epochs=2)
SETTING: dict[str, Any] = {"total_timesteps": 192, "n_envs": 2, "log_every": 1, "seed": 4}
SPEC = pg.AgentSpec(net_arch=(8,), normalize_obs=True)


@pytest.mark.parametrize("world", ["cartpole", "CartPole-v1"])
def test_a_run_that_stopped_ends_where_it_would_have(world: str, tmp_path: Path) -> None:
    setting = SETTING | {"agent": SPEC, "frame_stack": 3}
    pg.train(PPO, world, run_dir=tmp_path / "whole", **setting)
    half = tmp_path / "half"
    pg.train(PPO, world, run_dir=half, callback=lambda row: row["time/total_timesteps"] < 90, **setting)
    rest = pg.resume(half)
    assert rest.agent.observation_space.shape == (3, 4)
    assert differences(final_state(tmp_path / "whole"), final_state(half)) == []
    assert rows(tmp_path / "whole") == rows(half)
    loaded = pg.load(half)
    assert loaded.evaluate(3).returns == rest.evaluate(3).returns
    recording = loaded.demonstrate(tmp_path / "d", episodes=2)
    assert recording.obs[0].shape[1:] == (3, 4)
    imitate = pg.Imitate(str(tmp_path / "d"), batch_size=8)
    assert pg.train(imitate, world, total_timesteps=16, frame_stack=3).timesteps == 16
    with pytest.raises(
        UsageError, match=r"observations in .* are float32 \[3, 4\]; those of .* float32 \[4\]"
    ):
        pg.train(imitate, world, total_timesteps=16)


def test_a_video(tmp_path: Path) -> None:
    """Its first episode is the first that is evaluated, so the agent saw the same stacks."""
    run = pg.train(PPO, "cartpole", frame_stack=2, **SETTING)
    film = run.record(tmp_path / "v.mp4")
    assert film.returns == run.evaluate(1).returns
