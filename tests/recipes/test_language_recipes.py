"""Language recipes: fair comparisons, the mixture that is claimed, curves and pictures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pgrad as pg
from pgrad.models.language.scratch import scratch_model
from pgrad.recipes import RECIPES, parity
from pgrad.recipes.pictures import TITLES, draw
from pgrad.recipes.recipe import Recipe
from pgrad.recipes.runner import run_recipes
from pgrad.report.plots import EVALUATION, compare
from pgrad.training.disk.log import STEP, read
from pgrad.worlds.language.tasks import make_task
from pgrad.worlds.language.tokenizer import character_tokenizer


@pytest.mark.parametrize("name", ["parity", "reverse", "reverse-few", "addition"])
def test_imitation_alone_gets_all_the_tokens_that_the_other_learns_from(name: str) -> None:
    rewarded, alone = RECIPES[f"grpo-{name}"], RECIPES[f"imitate-{name}-longer"]
    warm = rewarded.warm
    assert warm is not None
    assert alone.total_timesteps == warm.total_timesteps + rewarded.total_timesteps
    shown = (warm.algorithm, warm.agent, warm.world, warm.world_kwargs)
    assert (alone.algorithm, alone.agent, alone.world, alone.world_kwargs) == shown
    assert rewarded.agent == warm.agent


@pytest.mark.parametrize(("chain", "goes_on"), [(0.1, False), (0.3, False), (0.4, True)])
def test_the_most_likely_demonstration_reasons_only_above_a_third_of_chains(
    chain: float, goes_on: bool
) -> None:
    task = make_task("parity", **{**parity.MIXED.world_kwargs, "chain": chain})
    shown = task.instances("train", 20_000, 0)
    first = [one for one in shown if one.solution[0] == one.prompt[0]]
    assert len(first) / len(shown) == pytest.approx((1 + chain) / 2, abs=0.02)  # the likeliest first token
    share = sum(len(one.solution) > 1 for one in first) / len(first)
    assert share == pytest.approx(2 * chain / (1 + chain), abs=0.02)
    assert (share > 0.5) is goes_on


def test_of_the_strings_to_copy_a_fifth_is_never_trained_on() -> None:
    recipe = RECIPES["grpo-copy"]
    options = {k: v for k, v in recipe.world_kwargs.items() if k != "max_completion_length"}
    task = make_task("copy", **options)
    seen = {one.prompt for one in task.instances("train", 5_000, 0)}
    held_out = {one.prompt for one in task.instances("held_out", 3_000, 0)}
    assert not seen & held_out
    assert len(seen | held_out) == 8**3
    assert len(held_out) == 99
    assert recipe.warm is None


def test_evaluations_while_it_trains_are_in_the_curves(tmp_path: Path) -> None:
    recipe = Recipe("tiny", pg.A2C(), "probe-both", total_timesteps=400, n_envs=2, evaluations=4)
    (result,) = run_recipes([recipe], [3], tmp_path, jobs=1)
    curve = read(tmp_path / "tiny" / "seed-3.csv")[EVALUATION]
    found = [number for number in curve if number == number]
    assert len(found) == 4
    assert found[-1] == pytest.approx(result["seeds"][0]["eval_mean"], abs=0.25)
    (without,) = run_recipes([replace(recipe, evaluations=0)], [3], tmp_path / "without", jobs=1)
    assert without["seeds"][0]["eval_mean"] == result["seeds"][0]["eval_mean"]  # looking changes nothing


def test_the_curve_of_what_went_on_begins_with_what_it_had(tmp_path: Path) -> None:
    warm = Recipe("first", pg.A2C(), "probe-both", total_timesteps=200, n_envs=2)
    recipe = replace(warm, name="then", total_timesteps=400, warm=warm, evaluations=2)
    (result,) = run_recipes([recipe], [3], tmp_path, jobs=1)
    curve = read(tmp_path / "then" / "seed-3.csv")
    assert curve[STEP][0] == 0.0
    assert curve[EVALUATION][0] == result["seeds"][0]["eval_before"]


def curve(path: Path, first: int) -> Path:
    path.write_text(f"time/total_timesteps,{EVALUATION}\n{first},0.5\n{first + 100},1.0\n")
    return path


def test_a_run_that_went_on_from_another_is_drawn_after_it(tmp_path: Path) -> None:
    early, late = curve(tmp_path / "early.csv", 100), curve(tmp_path / "late.csv", 400)
    moved = compare({"a": [early]}, tmp_path / "moved.png", begin={"a": 300})
    assert moved.read_bytes() == compare({"a": [late]}, tmp_path / "late.png").read_bytes()
    assert moved.read_bytes() != compare({"a": [early]}, tmp_path / "early.png").read_bytes()


@pytest.mark.parametrize("name", TITLES)
def test_pictures_are_drawn_from_the_curves_of_both(tmp_path: Path, name: str) -> None:
    for recipe in (f"grpo-{name}", f"imitate-{name}-longer"):
        (tmp_path / recipe).mkdir()
        for seed in range(2):
            curve(tmp_path / recipe / f"seed-{seed}.csv", 1000)
    assert draw(tmp_path, name).stat().st_size > 5_000


def test_a_padding_token_that_is_sampled_weighs_as_much_as_any_other() -> None:
    tokenizer = character_tokenizer("abc")
    model = scratch_model("scratch:tiny", tokenizer, torch.Generator().manual_seed(0))
    embedding = model.get_input_embeddings()
    embedding.padding_idx = None  # as `LanguageNetwork` has it
    ids = torch.randint(len(tokenizer), (1, 200), generator=torch.Generator().manual_seed(1))
    logp = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)
    logp.gather(-1, ids[0, 1:, None]).mean().backward()
    sizes = embedding.weight.grad.norm(dim=1)
    assert float(sizes[tokenizer.pad_token_id]) < 3.0 * float(sizes.median())
