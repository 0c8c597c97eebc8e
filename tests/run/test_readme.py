"""The README's program runs as it stands, only shorter."""

import re
from pathlib import Path
from typing import Any

import pgrad as pg

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_readme_adds_an_algorithm_that_learns() -> None:
    program = next(
        block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "class Vanilla" in block
    )
    space: dict[str, Any] = {"__name__": "readme"}
    exec(program.replace("100_000", "2_000"), space)
    run = space["run"]
    assert run.timesteps >= 2_000
    assert run.history[-1]["train/n_updates"] == len(run.history)
    probe = pg.train(space["Vanilla"](learning_rate=0.01), "probe-both", total_timesteps=8_000)
    assert probe.evaluate(100).mean == 1.0


def test_every_link_of_the_readme_leads_somewhere() -> None:
    root = Path(__file__).parents[2]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) > 20
    assert [link for link in links if not (root / link).exists()] == []
