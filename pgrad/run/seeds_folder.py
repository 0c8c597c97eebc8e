"""The folder of several seeds: seeds.json, a run directory each, and one picture."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from pgrad.errors import CheckpointError, UsageError
from pgrad.report.plots import common_metric, compare, points, unit
from pgrad.run.config import RunConfig
from pgrad.training.disk.files import reason, write_atomic
from pgrad.training.disk.log import read
from pgrad.training.disk.rundir import RunDir, folder_name
from pgrad.worlds.gym.envpool import is_envpool
from pgrad.worlds.language.kind import is_language

FORMAT, VERSION = "pgrad seeds", 1
FILE = "seeds.json"
PICTURE = "learning_curves.png"


def holds_seeds(folder: str | Path) -> bool:
    """Whether `train_seeds` made this folder."""
    return (Path(folder) / FILE).is_file()


def seed_folder(path: Path, seed: int) -> Path:
    """Where the run of a seed is."""
    return path / f"seed{seed}"


def error_file(path: Path, seed: int) -> Path:
    """Where it is told how a seed failed that nobody expected to fail."""
    return path / f"seed{seed}-error.txt"


def new_folder(config: RunConfig, folder: str | Path, overwrite: bool) -> Path:
    """A folder for several seeds. `overwrite` allows one with earlier runs, and deletes them.

    Runs that ended before there was anything to keep are no reason to ask for that.
    """
    if folder == "auto":
        base = Path("runs") / config.algorithm_name / folder_name(f"{config.world_name}-seeds")
        path, number = base, 1
        while path.exists() and not overwrite:
            number += 1
            path = base.with_name(f"{base.name}-{number}")
    else:
        path = Path(folder)
    try:
        if path.exists() and any(path.iterdir()):
            if not holds_seeds(path):
                raise UsageError(
                    f"{path} is not empty and holds no seeds: choose another (nothing was deleted)"
                )
            seeds = read_seeds(path)[1]
            folders = [one for seed in seeds if (one := seed_folder(path, seed)).exists()]
            if not overwrite and not all(RunDir(one).is_empty for one in folders):
                raise UsageError(
                    f"{path} already holds runs: resume it, choose another folder, or delete them with "
                    "--overwrite"
                )
            for old in folders:
                with RunDir.open(old):  # not while somebody trains in it
                    shutil.rmtree(old)
            for seed in seeds:
                error_file(path, seed).unlink(missing_ok=True)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot create the folder {path}: {reason(error)}") from error
    return path


def write(path: Path, config: RunConfig, seeds: Sequence[int]) -> None:
    """Write seeds.json, from which all of them can be begun. Raises CheckpointError."""
    content = {"format": FORMAT, "version": VERSION, "seeds": list(seeds), "config": config.to_json()}
    try:
        write_atomic(path / FILE, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
    except OSError as error:
        raise CheckpointError(f"cannot write {path / FILE}: {reason(error)}") from error


def read_seeds(path: Path) -> tuple[RunConfig, list[int]]:
    """The configuration and the seeds of a folder. Raises CheckpointError."""
    try:
        content = json.loads((path / FILE).read_bytes())
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise CheckpointError(f"{path / FILE} was written by another version of pgrad")
        return RunConfig.from_json(content["config"], None, None, None), [int(x) for x in content["seeds"]]
    except OSError as error:
        raise CheckpointError(f"cannot read {path / FILE}: {reason(error)}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{path / FILE} is damaged: {error}") from error


def can_go_on(path: Path) -> bool:
    """Whether the runs of a folder can be continued: their worlds can be saved."""
    return not is_envpool(read_seeds(path)[0].world)


def draw(path: Path, config: RunConfig, seeds: Sequence[int]) -> None:
    """All curves in one picture; nothing where no episode has ended."""
    files = [seed_folder(path, seed) / "metrics.csv" for seed in seeds]
    tables = {file: read(file) for file in files if file.exists()}
    metric = common_metric(list(tables.values()))
    there = [file for file, table in tables.items() if len(points(table, metric)[0])]
    if there:
        texts = is_language(config.world)
        title = f"{config.world_name} · {config.options.total_timesteps:,} {unit(texts)}"
        compare({config.algorithm_name: there}, path / PICTURE, metric=metric, title=title, texts=texts)
