"""Run a recipe over seeds, side by side, one thread each, and keep its curves, returns and picture."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from signal import SIGINT
from tempfile import TemporaryDirectory
from typing import Any

from pgrad.errors import PgradError
from pgrad.recipes.recipe import Recipe
from pgrad.report.evaluate import Evaluation
from pgrad.report.plots import EVALUATION, TRAINING, compare
from pgrad.report.statistics import over_runs
from pgrad.run import Run, resume, train
from pgrad.run.config import settled
from pgrad.run.scoreboard import Scoreboard
from pgrad.run.side_by_side import Job, Tell, at_once, side_by_side
from pgrad.training.disk.checkpoint import checkpoints, steps_of
from pgrad.training.disk.files import make_folder
from pgrad.training.disk.log import STEP, read
from pgrad.training.signals import StopOnSignal
from pgrad.training.versions import cores, hash_of_sources, versions

EPISODES = 100
SOURCES = hash_of_sources(
    *(
        f"{room}/**/*.py"
        for room in ("math", "environments", "data", "models", "worlds", "algorithms", "training")
    )
)[:12]
"""Of what decides the numbers of a run: with the same one, on the same machine, come the same bits."""

COLUMNS = (STEP, TRAINING, "rollout/ep_len_mean", EVALUATION, "eval/mean_ep_length")


def run_recipes(
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    folder: Path,
    jobs: int = 0,
    runs: Path | None = None,
    *,
    progress: bool = False,
) -> Iterator[dict[str, Any]]:
    """Train and evaluate every seed of every recipe; yields the result of each as its last seed is done.

    Writes folder/NAME/seed-N.csv, result.json and curve.png. With `runs`, every seed has a run directory
    runs/NAME-seed-N, and one that is there already is continued. jobs: seeds at the same time; 0 as many as
    the cores are for. Where one fails the others go on; its error is raised at last. Raises
    UsageError where `folder` cannot be made, KeyboardInterrupt or SystemExit after a signal.
    """
    for recipe in recipes:
        make_folder(folder / recipe.name)
    pairs = [(recipe, seed) for recipe in recipes for seed in seeds]
    work = [
        Job(
            f"{recipe.name} {seed}",
            recipe.total_timesteps,
            _one_seed,
            (recipe, seed, folder / recipe.name, runs),
        )
        for recipe, seed in pairs
    ]
    board = Scoreboard(
        [job.name for job in work],
        [job.total_timesteps for job in work],
        ", ".join(recipe.name for recipe in recipes),
        before=[_before(recipe, seed, runs) for recipe, seed in pairs],
        together=len(recipes) == 1,
        enabled=progress,
    )
    rows: dict[str, dict[int, dict[str, Any]]] = {recipe.name: {} for recipe in recipes}
    failed: list[PgradError] = []
    with StopOnSignal() as signals, board:
        for k, outcome in side_by_side(work, jobs or at_once(len(work), cores()), board, signals):
            recipe, seed = pairs[k]
            if outcome.error is not None:
                failed.append(outcome.error)
                board.message(f"{outcome.traceback}{outcome.name} failed: {outcome.error}")
            elif outcome.state == "done":
                rows[recipe.name][seed] = outcome.value
            if len(found := rows[recipe.name]) == len(seeds):
                yield _summarize(recipe, [found[seed] for seed in seeds], folder / recipe.name)
    if signals.requested is not None:
        raise KeyboardInterrupt if signals.requested == SIGINT else SystemExit(signals.exit_code)
    if failed:
        raise failed[0]


def _before(recipe: Recipe, seed: int, runs: Path | None) -> int:
    """Steps of a seed that were done earlier."""
    return 0 if runs is None else steps_of(_directory(recipe, seed, runs) / "checkpoints")


def _directory(recipe: Recipe, seed: int, runs: Path) -> Path:
    return runs / f"{recipe.name}-seed-{seed}"


def _summarize(recipe: Recipe, rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    means = [row["eval_mean"] for row in rows]
    seeds = [row["seed"] for row in rows]
    named = " ".join(map(str, seeds)) if len(seeds) > 1 else f"{seeds[0]}-{seeds[0]}"
    result = {
        "recipe": recipe.name,
        "command": f"pgrad recipe {recipe.name} --seeds {named}",
        "algorithm": type(recipe.algorithm).__name__,
        "world": recipe.world,
        "total_timesteps": recipe.total_timesteps,
        "episodes": EPISODES,
        **over_runs(means),
        "reach": recipe.reach,
        "every_seed": recipe.every_seed,
        "reached": recipe.verdict(means),
        "seeds": rows,
        "versions": {
            k: v for k, v in versions().items() if k in ("pgrad", "torch", "gymnasium", "mujoco", "numpy")
        },
        "sources": SOURCES,
    }
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    curves = [folder / f"seed-{seed}.csv" for seed in seeds]
    if all({TRAINING, EVALUATION} & read(curve).keys() for curve in curves):  # imitation earns nothing
        compare({recipe.name: curves}, folder / "curve.png", title=recipe.title, texts=recipe.texts)
    return result


def _one_seed(tell: Tell, recipe: Recipe, seed: int, folder: Path, runs: Path | None) -> dict[str, Any]:
    directory = None if runs is None else _directory(recipe, seed, runs)
    run, before = _trained(tell, recipe, seed, directory)
    evaluation = run.evaluate(EPISODES)
    digits = 3 if recipe.texts else 2  # rewards of texts are often within [0, 1]
    metrics = _columns(run)
    shown = {key: metrics[key] for key in COLUMNS if key in metrics}
    with (folder / f"seed-{seed}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(shown)
        if before is not None and EVALUATION in shown:
            first = {STEP: 0, EVALUATION: round(before.mean, digits)}
            writer.writerow([first.get(key, "") for key in shown])
        for row in zip(*shown.values(), strict=True):
            writer.writerow(["" if math.isnan(number) else round(number, digits) for number in row])
    elapsed = metrics["time/time_elapsed"]  # begins anew where the run was continued
    seconds = sum(now for now, after in zip(elapsed, [*elapsed[1:], 0.0], strict=True) if after < now)
    ess = [share for share in metrics.get("train/ess", ()) if not math.isnan(share)]
    return {
        "seed": seed,
        "eval_mean": round(evaluation.mean, digits),
        "eval_std": round(evaluation.std, digits),
        **({} if before is None else {"eval_before": round(before.mean, digits)}),
        "train_last_100": round(metrics.get(TRAINING, [math.nan])[-1], 2),
        "timesteps": run.timesteps,
        "seconds": round(seconds, 1),
        **({"ess_mean": round(sum(ess) / len(ess), 3), "ess_min": round(min(ess), 3)} if ess else {}),
    }


def _trained(tell: Tell, recipe: Recipe, seed: int, directory: Path | None) -> tuple[Run, Evaluation | None]:
    """The run, and how good it was at its beginning where another recipe came before it."""
    if directory is not None and checkpoints(directory / "checkpoints"):
        algorithm = settled(recipe.algorithm, recipe.agent)
        total = max(recipe.total_timesteps, steps_of(directory / "checkpoints"))  # it may be done already
        return resume(directory, total, algorithm=algorithm, progress=False, callback=tell), None
    with TemporaryDirectory() as place:
        warm, before = None, None
        if recipe.warm is not None:
            warm = Path(place) / "warm"
            first, _ = _trained(tell, recipe.warm, seed, warm)
            before = first.evaluate(EPISODES)
        run = train(
            recipe.algorithm,
            recipe.world,
            total_timesteps=recipe.total_timesteps,
            n_envs=recipe.n_envs,
            seed=seed,
            agent=recipe.agent,
            world_kwargs=recipe.world_kwargs,
            init_from=warm,
            run_dir=directory,
            overwrite=directory is not None,  # it was stopped before there was anything to continue from
            threads=1,
            device="cpu",
            log_every=math.ceil(recipe.total_timesteps / 100),
            eval_every=recipe.total_timesteps // recipe.evaluations if recipe.evaluations else 0,
            eval_episodes=EPISODES,
            progress=False,
            callback=tell,
        )
    return run, before


def _columns(run: Run) -> dict[str, list[float]]:
    """The metrics of the whole run by name, missing numbers as NaN."""
    if run.path is not None:
        return read(run.path / "metrics.csv")
    names = dict.fromkeys(name for row in run.history for name in row)
    return {name: [row.get(name, math.nan) for row in run.history] for name in names}
