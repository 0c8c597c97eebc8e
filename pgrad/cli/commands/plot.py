"""`pgrad plot DIR [DIR ...]`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from pgrad.cli.parse import parse
from pgrad.errors import UsageError
from pgrad.report.plots import compare
from pgrad.training.disk.rundir import RunDir

DECISIVE = ("algorithm", "hyperparameters", "world", "world_kwargs", "agent")
"""What tells groups of runs apart; runs that differ in nothing of it are seeds of the same group."""


@dataclass(frozen=True)
class Plot:
    """Draw the learning curves of runs in one picture, and the mean of those that differ by seed only."""

    run_dirs: Annotated[
        Positional[tuple[str, ...]], arg(metavar="DIR [DIR ...]", help_behavior_hint="(required)")
    ] = ()
    """folders of runs, or folders in which there are runs"""
    out: str = "learning_curves.png"
    """the picture to write; its kind by its ending: .png, .pdf, .svg"""
    metric: str = ""
    """a column of metrics.csv (default: eval/mean_reward where every run has it, else rollout/ep_rew_mean)"""


def run(args: list[str]) -> int:
    """Draw, and print where the picture is."""
    given: Plot = parse(Plot, "plot", args)
    if not given.run_dirs:
        raise UsageError("plot which runs? For example: pgrad plot runs/ppo")
    paths = list(dict.fromkeys(path for folder in given.run_dirs for path in find_runs(Path(folder))))
    configs = [RunDir(path).config() for path in paths]
    groups: dict[str, list[Path]] = {}
    for path, label in zip(paths, labels(configs), strict=True):
        groups.setdefault(label, []).append(RunDir(path).metrics)
    worlds = {config["world"] for config in configs}
    title = worlds.pop() if len(worlds) == 1 else ""
    print(compare(groups, Path(given.out), metric=given.metric, title=title))
    return 0


def find_runs(folder: Path) -> list[Path]:
    """The run that `folder` is, or the runs in it. Raises CheckpointError where there is none."""
    if not (folder / "config.json").exists():
        inside = sorted(file.parent for file in folder.rglob("config.json"))
        if inside:
            return inside
    RunDir(folder).config()
    return [folder]


def labels(configs: list[dict[str, Any]]) -> list[str]:
    """What each run is called: its algorithm, and what it does not share with other runs of that algorithm.

    Runs with the same label differ in their seed, or in what does not decide the result.
    """
    settings = [dict(_settings({key: config[key] for key in DECISIVE})) for config in configs]
    several_worlds = len({one["world"] for one in settings}) > 1
    found = []
    for one in settings:
        peers = [other for other in settings if all(other[key] == one[key] for key in ("algorithm", "world"))]
        differing = [key for key in one if any(json.dumps(p.get(key)) != json.dumps(one[key]) for p in peers)]
        parts = [str(one["algorithm"]), *([str(one["world"])] if several_worlds else [])]
        found.append(" ".join(parts + [f"{key.rpartition('.')[2]}={_text(one[key])}" for key in differing]))
    return found


def _settings(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
