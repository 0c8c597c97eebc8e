"""`pgrad recipe NAME`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from pgrad.cli.names import choose
from pgrad.cli.parse import parse
from pgrad.errors import UsageError
from pgrad.recipes import RECIPES
from pgrad.recipes.runner import run_recipe
from pgrad.training.versions import cores


@dataclass(frozen=True)
class Recipe:
    """Run a published result again: every seed trained and evaluated, side by side, one thread each."""

    name: Annotated[Positional[str], arg(metavar="NAME", help_behavior_hint="(none lists them)")] = ""
    """the recipe"""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """the seeds to run"""
    out: str = "docs/evidence"
    """a folder NAME is made in this one, with a curve per seed, a picture and result.json"""
    jobs: int = 0
    """seeds to run at the same time; 0 is one for each core"""


def run(args: list[str]) -> int:
    """Run, and print what came out beside what was to be reached."""
    given: Recipe = parse(Recipe, "recipe", args)
    if not given.name:
        for recipe in RECIPES.values():
            reach = "" if recipe.reach is None else f"≥ {recipe.reach:g}"
            print(f"{recipe.name:34} {recipe.world:15} {recipe.total_timesteps:>9,} steps  {reach}")
        return 0
    if not given.seeds or given.jobs < 0:
        raise UsageError(f"a recipe needs seeds and jobs ≥ 0, got {given.seeds} and {given.jobs}")
    recipe = RECIPES[choose(given.name, RECIPES, "recipe")]
    result = run_recipe(recipe, given.seeds, Path(given.out) / recipe.name, given.jobs or cores())
    for seed in result["seeds"]:
        print(
            f"seed {seed['seed']}: {seed['eval_mean']:.1f} ± {seed['eval_std']:.1f} ({seed['seconds']:.0f} s)"
        )
    low, high = result["interval"]
    verdict = {True: "reached", False: "not reached", None: "reported only"}[result["reached"]]
    print(f"mean {result['mean']:.1f} (95% interval over seeds {low:.1f} … {high:.1f}): {verdict}")
    return 0
