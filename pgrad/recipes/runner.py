"""Run a recipe over seeds, side by side, one thread each, and keep its curves, returns and picture."""

import csv
import json
import math
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from pgrad.recipes.recipe import Recipe
from pgrad.report.plots import compare
from pgrad.report.statistics import bootstrap_interval, interquartile_mean
from pgrad.run import train
from pgrad.training.versions import versions

EPISODES = 100
COLUMNS = ("time/total_timesteps", "rollout/ep_rew_mean", "rollout/ep_len_mean")


def run_recipes(
    recipes: Sequence[Recipe], seeds: Sequence[int], folder: Path, jobs: int
) -> Iterator[dict[str, Any]]:
    """Train and evaluate every seed of every recipe; yields the result of each as its last seed is done.

    Writes folder/NAME/seed-N.csv, result.json and curve.png.
    """
    for recipe in recipes:
        (folder / recipe.name).mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {
            recipe.name: [pool.submit(_one_seed, recipe, seed, folder / recipe.name) for seed in seeds]
            for recipe in recipes
        }
        for recipe in recipes:
            rows = [future.result() for future in running[recipe.name]]
            yield _summarize(recipe, rows, folder / recipe.name)


def _summarize(recipe: Recipe, rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    means = [row["eval_mean"] for row in rows]
    seeds = [row["seed"] for row in rows]
    result = {
        "recipe": recipe.name,
        "command": f"pgrad recipe {recipe.name} --seeds {' '.join(map(str, seeds))}",
        "algorithm": type(recipe.algorithm).__name__,
        "world": recipe.world,
        "total_timesteps": recipe.total_timesteps,
        "episodes": EPISODES,
        "mean": sum(means) / len(means),
        "interval": bootstrap_interval(means),
        "iqm": interquartile_mean(means),
        "reach": recipe.reach,
        "every_seed": recipe.every_seed,
        "reached": recipe.verdict(means),
        "seeds": rows,
        "versions": {
            k: v for k, v in versions().items() if k in ("pgrad", "torch", "gymnasium", "mujoco", "numpy")
        },
    }
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    curves = [folder / f"seed-{seed}.csv" for seed in seeds]
    compare({recipe.name: curves}, folder / "curve.png", title=recipe.title)
    return result


def _one_seed(recipe: Recipe, seed: int, folder: Path) -> dict[str, Any]:
    began = time.perf_counter()
    run = train(
        recipe.algorithm,
        recipe.world,
        total_timesteps=recipe.total_timesteps,
        n_envs=recipe.n_envs,
        seed=seed,
        agent=recipe.agent,
        threads=1,
        device="cpu",
        log_every=math.ceil(recipe.total_timesteps / 100),
        progress=False,
    )
    seconds = time.perf_counter() - began
    evaluation = run.evaluate(EPISODES)
    with (folder / f"seed-{seed}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in run.history:
            writer.writerow([round(row[key], 2) if key in row else "" for key in COLUMNS])
    ess = [row["train/ess"] for row in run.history if "train/ess" in row]
    return {
        "seed": seed,
        "eval_mean": round(evaluation.mean, 2),
        "eval_std": round(evaluation.std, 2),
        "train_last_100": round(run.history[-1].get("rollout/ep_rew_mean", math.nan), 2),
        "timesteps": run.timesteps,
        "seconds": round(seconds, 1),
        **({"ess_mean": round(sum(ess) / len(ess), 3), "ess_min": round(min(ess), 3)} if ess else {}),
    }
