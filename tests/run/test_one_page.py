"""PPO written out on one page, and pg.PPO: the same numbers."""

import runpy
from pathlib import Path

import pytest
import torch

import pgrad as pg

PAGE = Path(__file__).parents[2] / "examples" / "ppo_in_one_page.py"


def test_the_page_gives_the_numbers_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    page = runpy.run_path(str(PAGE))
    by_hand = page["train"](total_timesteps=6_000, seed=3)
    run = pg.train(pg.PPO(), "cartpole", total_timesteps=6_000, seed=3, threads=1)
    assert f"{run.timesteps:,} steps" in capsys.readouterr().out.splitlines()[-1]
    ours = dict(run.agent.named_parameters())
    start = pg.train(pg.PPO(), "cartpole", total_timesteps=1, seed=3, threads=1).agent
    with torch.no_grad():
        moved = max(float((ours[name] - p).abs().max()) for name, p in start.named_parameters())
        apart = max(float((ours[name] - p).abs().max()) for name, p in by_hand.named_parameters())
    assert apart < 1e-4 < 0.02 < moved
