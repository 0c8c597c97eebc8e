"""The README's program runs as it stands, only shorter."""

import re
from pathlib import Path
from typing import Any

import pytest

import pgrad as pg
from pgrad import lab

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
    graded = lab.grade(space["Vanilla"]())
    assert all(grade.cosine > 0.99 for grade in graded.grades)
    probe = pg.train(space["Vanilla"](learning_rate=0.01), "probe-both", total_timesteps=8_000)
    assert probe.evaluate(100).mean == 1.0


def test_the_readme_grades_an_idea(capsys: pytest.CaptureFixture[str]) -> None:
    """Without γᵗ it is a gradient only where nothing is discounted."""
    program = next(
        block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "my_credit" in block
    )
    space: dict[str, Any] = {}
    exec(program, space)
    assert capsys.readouterr().out.endswith("biased on every problem but: no discount\n")
    report = lab.grade(credit=space["my_credit"])
    assert [grade.problem for grade in report.grades if grade.unbiased] == ["no discount"]


def test_every_link_of_the_readme_leads_somewhere() -> None:
    root = Path(__file__).parents[2]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) > 20
    assert [link for link in links if not (root / link).exists()] == []
