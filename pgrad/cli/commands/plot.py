"""`pgrad plot DIR [DIR ...]`."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from pgrad.algorithms import ALGORITHMS
from pgrad.cli.parse import parse
from pgrad.errors import UsageError
from pgrad.report.plots import common_metric, compare, points
from pgrad.run.config import CUSTOM, OWN
from pgrad.training.disk.log import STEP, read
from pgrad.training.disk.rundir import RunDir
from pgrad.worlds.language.kind import is_language

DECISIVE = ("algorithm", "hyperparameters", "world", "world_kwargs", "agent", "reward")
"""What tells groups of runs apart; runs that differ in nothing of it are seeds of the same group."""

OPTIONS = ("n_envs", "frame_stack")
"""Of the options of a run those that do so too."""

TOLD = 5
"""So many settings that differ are in a label, more only where these do not tell the runs apart."""


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
    """a column of metrics.csv (default: the first of eval/mean_reward, rollout/ep_rew_mean, train/accuracy
    and train/log_likelihood that every run has)"""


def run(args: list[str]) -> int:
    """Draw, and print where the picture is."""
    given: Plot = parse(Plot, "plot", args)
    if not given.run_dirs:
        raise UsageError("plot which runs? For example: pgrad plot runs/ppo")
    paths = list(dict.fromkeys(path for folder in given.run_dirs for path in find_runs(Path(folder))))
    configs = {path: RunDir(path).config() for path in paths}
    tables = {path: read(RunDir(path).metrics) for path in paths}
    copies = without_copies(configs, {path: max(table[STEP], default=0) for path, table in tables.items()})
    configs = {path: configs[path] for path in copies}
    metric = given.metric or common_metric([tables[path] for path in copies])
    groups = grouped(configs)
    files = {label: [RunDir(path).metrics for path in group] for label, group in groups.items()}
    worlds = {_decisive(config)["world"] for config in configs.values()}
    title = worlds.pop() if len(worlds) == 1 else ""
    texts = all(is_language(config["world"]) or "model" in config["agent"] for config in configs.values())
    print(compare(files, Path(given.out), metric=metric, title=title, texts=texts))
    for path, left_out in copies.items():
        if left_out:
            names = ", ".join(map(str, left_out))
            print(f"left out: {names}: the configuration and the seed of {path} again")
    for label, group in groups.items():
        other = common_metric([tables[path] for path in group])
        has_it = any(len(points(tables[path], metric)[0]) for path in group)
        if not (given.metric or has_it or other == metric):
            print(f"{label}: no {metric}; what it has is drawn with --metric {other}")
    return 0


def without_copies(
    configs: Mapping[Path, dict[str, Any]], steps: Mapping[Path, float]
) -> dict[Path, list[Path]]:
    """Runs of different configurations or seeds, each with those left out that are the same and no longer.

    What is a caller's own may be another thing by the same name: no such run is left out.
    """
    same: dict[str, list[Path]] = {}
    for path, config in configs.items():
        kept = {key: config.get(key) for key in (*DECISIVE, "files")}
        options = {key: config["options"].get(key) for key in (*OPTIONS, "seed", "init_from")}
        own = CUSTOM in kept.values() or config["algorithm"] not in ALGORITHMS
        kept |= {"path": str(path)} if own else {}
        same.setdefault(json.dumps(kept | options, sort_keys=True), []).append(path)
    longest = {max(paths, key=lambda path: steps[path]): paths for paths in same.values()}
    return {kept: [path for path in paths if path != kept] for kept, paths in longest.items()}


def grouped(configs: Mapping[Path, dict[str, Any]]) -> dict[str, list[Path]]:
    """The runs by their labels; a mean is only of seeds.

    Where a group has a seed twice, or something of a caller's own that has no name, nobody knows whether
    its runs are of the same: each is a group of its own then, called after its folder too.
    """
    groups: dict[str, list[Path]] = {}
    for path, label in zip(configs, labels(list(configs.values())), strict=True):
        groups.setdefault(label, []).append(path)
    found: dict[str, list[Path]] = {}
    for label, paths in groups.items():
        seeds = {configs[path]["options"]["seed"] for path in paths}
        unnamed = any(CUSTOM in _decisive(configs[path]).values() for path in paths)
        if len(paths) == 1 or (len(seeds) == len(paths) and not unnamed):
            found[label] = paths
        else:
            names = Counter(path.name for path in paths)
            found |= {f"{label} in {path.name if names[path.name] == 1 else path}": [path] for path in paths}
    return found


def find_runs(folder: Path) -> list[Path]:
    """The run that `folder` is, or the runs in it. Raises CheckpointError where there is none."""
    if not (folder / "config.json").exists():
        inside = sorted(file.parent for file in folder.rglob("config.json"))
        if inside:
            return inside
    RunDir(folder).config()
    return [folder]


def labels(configs: Sequence[dict[str, Any]]) -> list[str]:
    """What each run is called: its algorithm, and what it does not share with other runs of that algorithm.

    Of more than five such settings those that take most values, as many as tell the runs apart, and how many
    more there are. Runs with the same label differ in their seed, or in what does not decide the result.
    """
    settings = [dict(_settings(_decisive(config))) for config in configs]
    several_worlds = len({one["world"] for one in settings}) > 1
    found = []
    for one in settings:
        peers = [other for other in settings if all(other[key] == one[key] for key in ("algorithm", "world"))]
        parts = [str(one["algorithm"]), *([str(one["world"])] if several_worlds else [])]
        keys = _differing(peers)
        told = next(k for k in range(len(keys) + 1) if _kinds(peers, keys[:k]) == _kinds(peers, keys))
        told = len(keys) if len(keys) <= TOLD + 1 else max(TOLD, told)
        same = [config for config, other in zip(configs, settings, strict=True) if other == one]
        shown = one | {"init_from": _first_run(same)}
        parts += [f"{key.rpartition('.')[2]}={_text(shown[key])}" for key in keys[:told] if key in one]
        found.append(" ".join(parts + ([f"and {len(keys) - told} more"] if told < len(keys) else [])))
    return found


def _decisive(config: dict[str, Any]) -> dict[str, Any]:
    """What decides a run's result, but for the seed."""
    options, names = config["options"], config.get(OWN, {})
    own = {key: f"{name} ({CUSTOM})" for key, name in names.items() if name != CUSTOM}
    return {key: own.get(key, config[key]) for key in DECISIVE if key in config} | {
        **{key: options.get(key) for key in OPTIONS},
        "init_from": options.get("init_from") is not None,  # the seeds of a group begin with a run each
    }


def _first_run(configs: Sequence[dict[str, Any]]) -> str:
    """The folder of the run that runs began with, or the folder that all of several such are in."""
    sources = [config["options"].get("init_from") for config in configs]
    if None in sources:
        return "none"
    paths = [Path(source).absolute() for source in sources]
    runs = [path.parents[1] if path.parent.name in ("checkpoints", "best") else path for path in paths]
    return Path(os.path.commonpath(runs)).name


def _differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    """The settings in which runs differ, those with the most values first.

    Those of agents are compared among the runs that have them: a caller's own module has none.
    """
    keys = dict.fromkeys(key for one in settings for key in one)
    values = {
        key: _kinds([one for one in settings if key in one or not key.startswith("agent.")], [key])
        for key in keys
    }
    return sorted((key for key in keys if values[key] > 1), key=lambda key: -values[key])


def _kinds(settings: Sequence[dict[str, Any]], keys: Sequence[str]) -> int:
    """How many runs are told apart by these settings."""
    return len({json.dumps([one.get(key) for key in keys]) for one in settings})


def _settings(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
