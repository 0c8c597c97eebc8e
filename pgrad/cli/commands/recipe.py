"""`pgrad recipe NAME`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from pgrad.cli.names import choose
from pgrad.cli.order import Several, chosen_seeds
from pgrad.cli.parse import parse
from pgrad.recipes import RECIPES
from pgrad.recipes.runner import run_recipes
from pgrad.recipes.table import digits
from pgrad.report.plots import unit
from pgrad.report.statistics import told


@dataclass(frozen=True)
class Recipe:
    """Run published results again: every seed trained and evaluated, side by side, one thread each."""

    names: Annotated[
        Positional[tuple[str, ...]], arg(metavar="NAME [NAME ...]", help_behavior_hint="(none lists them)")
    ] = ()
    """the recipes"""
    own: OmitArgPrefixes[Several] = field(default_factory=lambda: Several(("5",)))
    out: str = "runs/recipes"
    """a folder NAME is made in this one, with a curve per seed, a picture and result.json"""
    runs: str | None = None
    """keep the run directories in this folder, and continue those that are there already"""
    quiet: FlagCreatePairsOff[bool] = False
    """show no progress"""


def run(args: list[str]) -> int:
    """Run, and print what came out beside what was to be reached."""
    given: Recipe = parse(Recipe, "recipe", args)
    if not given.names:
        for recipe in RECIPES.values():
            reach = "" if recipe.reach is None else f"≥ {recipe.reach:g}"
            size = f"{recipe.total_timesteps:>9,} {unit(recipe.texts):6}"
            print(f"{recipe.name:34} {recipe.world:15} {size}  {reach}".rstrip())
        return 0
    seeds = chosen_seeds(given.own.seeds)
    recipes = [RECIPES[choose(name, RECIPES, "recipe", "pgrad recipe lists all")] for name in given.names]
    runs = None if given.runs is None else Path(given.runs)
    out, jobs = Path(given.out), given.own.limit
    for result in run_recipes(recipes, seeds, out, jobs, runs, progress=not given.quiet):
        print(result["recipe"])
        k = digits(result)
        for seed in result["seeds"]:
            returns = f"{seed['eval_mean']:.{k}f} ± {seed['eval_std']:.{k}f}"
            print(f"  seed {seed['seed']}: {returns} ({seed['seconds']:.0f} s)")
        mean = told(result, len(result["seeds"]), f"{{:.{k}f}}".format)
        verdict = {True: "reached", False: "not reached", None: "reported only"}[result["reached"]]
        print(f"  mean {mean}: {verdict}")
    print(f"curves and results: {given.out}")
    return 0
