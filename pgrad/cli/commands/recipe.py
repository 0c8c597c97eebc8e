"""`pgrad recipe NAME`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from pgrad.cli.names import choose
from pgrad.cli.parse import parse
from pgrad.errors import UsageError
from pgrad.recipes import RECIPES
from pgrad.recipes.runner import run_recipes
from pgrad.recipes.table import digits
from pgrad.training.versions import cores


@dataclass(frozen=True)
class Recipe:
    """Run published results again: every seed trained and evaluated, side by side, one thread each."""

    names: Annotated[
        Positional[tuple[str, ...]], arg(metavar="NAME [NAME ...]", help_behavior_hint="(none lists them)")
    ] = ()
    """the recipes"""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """the seeds to run"""
    out: str = "runs/recipes"
    """a folder NAME is made in this one, with a curve per seed, a picture and result.json"""
    runs: str | None = None
    """keep the run directories in this folder, and continue those that are there already"""
    jobs: int = 0
    """seeds to run at the same time; 0 is one for each core"""


def run(args: list[str]) -> int:
    """Run, and print what came out beside what was to be reached."""
    given: Recipe = parse(Recipe, "recipe", args)
    if not given.names:
        for recipe in RECIPES.values():
            reach = "" if recipe.reach is None else f"≥ {recipe.reach:g}"
            print(f"{recipe.name:34} {recipe.world:15} {recipe.total_timesteps:>9,} steps  {reach}")
        return 0
    if not given.seeds or given.jobs < 0:
        raise UsageError(f"a recipe needs seeds and jobs ≥ 0, got {given.seeds} and {given.jobs}")
    recipes = [RECIPES[choose(name, RECIPES, "recipe")] for name in given.names]
    runs = None if given.runs is None else Path(given.runs)
    for result in run_recipes(recipes, given.seeds, Path(given.out), given.jobs or cores(), runs):
        print(result["recipe"])
        k = digits(result)
        for seed in result["seeds"]:
            returns = f"{seed['eval_mean']:.{k}f} ± {seed['eval_std']:.{k}f}"
            print(f"  seed {seed['seed']}: {returns} ({seed['seconds']:.0f} s)")
        low, high = result["interval"]
        if len(result["seeds"]) < 5:
            print("  fewer than 5 seeds: the interval says little")
        verdict = {True: "reached", False: "not reached", None: "reported only"}[result["reached"]]
        print(
            f"  mean {result['mean']:.{k}f} (95% interval over seeds {low:.{k}f} … {high:.{k}f}): {verdict}"
        )
    print(f"curves and results: {given.out}")
    return 0
