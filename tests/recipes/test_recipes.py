"""Recipes: what they say, what a run of one leaves behind, and the README's table of the evidence."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import pgrad as pg
from pgrad.cli import main
from pgrad.recipes import RECIPES
from pgrad.recipes.recipe import Recipe
from pgrad.recipes.runner import _summarize, run_recipes
from pgrad.recipes.table import digits, evidence_table
from pgrad.run.config import settled
from pgrad.training.disk.log import MetricsLog, read

ROOT = Path(__file__).parents[2]
TINY = Recipe("tiny", pg.A2C(), "probe-both", total_timesteps=400, n_envs=2, reach=0.5)


def test_names_are_unique_and_numbers_sound() -> None:
    assert all(name == recipe.name for name, recipe in RECIPES.items())
    for recipe in RECIPES.values():
        settled(recipe.algorithm, recipe.agent).collects(recipe.n_envs)  # raises where numbers do not fit
        assert recipe.total_timesteps >= 20_000


@pytest.mark.parametrize(
    ("means", "verdict"),
    [([0.5, 0.5], True), ([0.9, 0.0], False), ([0.4, 0.5], False), ([0.9, 0.3], True)],
)
def test_a_verdict_is_of_the_mean_and_of_every_seed(means: list[float], verdict: bool) -> None:
    assert replace(TINY, every_seed=0.3).verdict(means) is verdict
    assert replace(TINY, reach=None).verdict(means) is None


def test_a_recipe_leaves_curves_and_a_result_that_agree(tmp_path: Path) -> None:
    (result,) = run_recipes([TINY], [3, 4], tmp_path, jobs=2)
    assert json.loads((tmp_path / "tiny" / "result.json").read_text())["mean"] == result["mean"]
    assert [row["seed"] for row in result["seeds"]] == [3, 4]
    assert result["reached"] is (result["mean"] >= 0.5)
    for row in result["seeds"]:
        alone = pg.train(TINY.algorithm, TINY.world, total_timesteps=400, n_envs=2, seed=row["seed"])
        assert row["eval_mean"] == round(alone.evaluate(100).mean, 2)
        curve = read(tmp_path / "tiny" / f"seed-{row['seed']}.csv")
        assert curve["time/total_timesteps"][-1] == row["timesteps"] == alone.timesteps
    assert (tmp_path / "tiny" / "curve.png").stat().st_size > 5_000
    assert f"| {result['mean']:.{digits(result)}f} [" in evidence_table(tmp_path)


def test_one_seed_has_no_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"seed": 3, "eval_mean": 0.5, "eval_std": 0.25, "seconds": 1.0, "timesteps": 400}
    log = MetricsLog(tmp_path / "seed-3.csv")
    log.write(400, {"eval/mean_reward": 0.5})
    log.close()
    result = _summarize(TINY, [row], tmp_path)
    monkeypatch.setattr("pgrad.cli.commands.recipe.run_recipes", lambda *args, **kwargs: iter([result]))
    assert main(["recipe", "ppo-cartpole", "--seeds", "3-3", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "  mean 0.500 (one seed, no interval): reached\n" in out
    assert "fewer" not in out
    (tmp_path / "tiny").mkdir()
    (tmp_path / "result.json").rename(tmp_path / "tiny" / "result.json")
    assert "| 0.500 | 0.500 | 1 |" in evidence_table(tmp_path)


def test_the_command_lists_recipes_and_refuses_what_is_not_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(RECIPES)
    assert main(["recipe", "ppo-cartpol"]) == 2
    assert "did you mean ppo-cartpole?" in capsys.readouterr().err
    assert main(["recipe", "ppo-cartpole", "--jobs", "-1"]) == 2


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["recipe", "ppo-cartpole", "--seeds", "1", "--out", str(tmp_path / "file" / "out")]) == 2
    folder = tmp_path / "file" / "out" / "ppo-cartpole"
    told = f"pgrad: error: cannot create the folder {folder}: Not a directory\n"
    assert capsys.readouterr() == ("", told)


def test_the_readme_shows_the_committed_evidence() -> None:
    readme = (ROOT / "README.md").read_text()
    assert evidence_table(ROOT / "docs" / "evidence") in readme


def test_committed_evidence_was_made_with_the_recipes() -> None:
    for path in (ROOT / "docs" / "evidence").glob("*/result.json"):
        result = json.loads(path.read_text())
        recipe = RECIPES[result["recipe"]]
        assert (result["world"], result["total_timesteps"]) == (recipe.world, recipe.total_timesteps)
        assert result["algorithm"] == type(recipe.algorithm).__name__
        few = 1 if recipe.reach is None else 3  # seeds are enough
        assert len(result["seeds"]) >= recipe.seeds >= few
        assert recipe.verdict([row["eval_mean"] for row in result["seeds"]]) is result["reached"]


def test_a_recipe_with_run_directories_goes_on_where_it_stopped(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    half = replace(TINY, total_timesteps=200)
    for recipe in (half, TINY):
        (result,) = run_recipes([recipe], [3], tmp_path / "kept", jobs=1, runs=runs)
    commands = (runs / "tiny-seed-3" / "command.txt").read_text().splitlines()
    assert len(commands) == 2
    done = replace(TINY, total_timesteps=result["seeds"][0]["timesteps"] - 1)  # windows are whole: often more
    (again,) = run_recipes([done], [3], tmp_path / "kept", jobs=1, runs=runs)
    assert again["seeds"] == result["seeds"]
    (straight,) = run_recipes([TINY], [3], tmp_path / "straight", jobs=1)
    for row in (*result["seeds"], *straight["seeds"]):
        assert row.pop("seconds") > 0.0
    assert result["seeds"] == straight["seeds"]
    other = replace(TINY, algorithm=pg.A2C(learning_rate=0.1))
    with pytest.raises(pg.UsageError, match="learning_rate"):
        list(run_recipes([other], [3], tmp_path / "kept", jobs=1, runs=runs))
