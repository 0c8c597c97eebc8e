"""Pictures of runs: learning curves of one run and of several, for print and for the colour-blind."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgrad.drawing import COLOURS, DASHES, save
from pgrad.errors import UsageError
from pgrad.report.statistics import bootstrap_interval
from pgrad.training.disk.log import STEP, read

TRAINING, EVALUATION = "rollout/ep_rew_mean", "eval/mean_reward"
NAMES = {
    TRAINING: "episode return",
    EVALUATION: "episode return (evaluation)",
    "rollout/ep_len_mean": "episode length",
}
GRID = 200  # points at which the runs of a group are averaged

Points = tuple[NDArray[np.float64], NDArray[np.float64]]


def learning_curve(metrics: Path, picture: Path, *, title: str = "") -> Path:
    """Draw the returns of one run against its steps from metrics.csv; returns the picture's path.

    The line is the mean return of the last 100 training episodes, the circles are evaluations. A run in which
    no episode ended gets a picture that says so. Raises CheckpointError for metrics that cannot be read.
    """
    columns = read(metrics)
    training, evaluation = points(columns, TRAINING), points(columns, EVALUATION)
    figure, axes = _canvas(title, "episode return")
    if len(training[0]):
        marker = "." if len(training[0]) == 1 else ""
        axes.plot(
            *training,
            color=COLOURS[0],
            lw=1.8,
            marker=marker,
            label="training, mean of the last 100 episodes",
        )
    if len(evaluation[0]):
        circles = {"marker": "o", "ms": 4.5, "mfc": "white"}
        axes.plot(*evaluation, color=COLOURS[1], lw=1.2, label="evaluation, deterministic", **circles)
    if len(training[0]) + len(evaluation[0]):
        axes.legend(frameon=False, fontsize=9)
    else:
        steps = int(max(columns[STEP], default=0))
        axes.set_xlim(0, max(steps, 1))
        text = f"no episode ended in {steps:,} steps"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color="0.4")
        axes.set_yticks([])
    figure.axes[0].set_xlim(left=0)  # steps count from 0
    return save(figure, picture)


def compare(
    groups: Mapping[str, Sequence[Path]],
    picture: Path,
    *,
    metric: str = "",
    title: str = "",
    begin: Mapping[str, int] | None = None,
    labels: tuple[str, str] = ("steps", ""),
) -> Path:
    """Draw the curves of several runs in one picture; returns its path.

    groups: label → the metrics.csv of runs that differ only in their seed. Each run is a thin line; more than
        one get a thick line, their mean where all have values, in a 95 % bootstrap interval over the runs.
    metric: a column of metrics.csv; by default evaluations where every run has some, else training returns.
    begin: label → steps that the runs of that group began after, those of the runs they began with.
    labels: what stands at the axes; at the upright one the metric's name where nothing is given.

    Raises UsageError where a metric is in none of the runs.
    """
    tables = {label: [read(path) for path in paths] for label, paths in groups.items()}
    metric = metric or _common_metric([table for group in tables.values() for table in group])
    curves = {
        label: [_moved(points(table, metric), (begin or {}).get(label, 0)) for table in group]
        for label, group in tables.items()
    }
    if not any(len(x) for group in curves.values() for x, _ in group):
        known = sorted({key for group in tables.values() for table in group for key in table})
        raise UsageError(f"no run has a number for {metric!r}; there are: {', '.join(known)}")
    figure, axes = _canvas(title, labels[1] or NAMES.get(metric, metric))
    axes.set_xlabel(labels[0])
    for k, (label, group) in enumerate(curves.items()):
        _draw_group(axes, label, [curve for curve in group if len(curve[0])], k)
    axes.legend(frameon=False, fontsize=9)
    figure.axes[0].set_xlim(left=0)  # steps count from 0
    return save(figure, picture)


def points(columns: Mapping[str, Sequence[float]], metric: str) -> Points:
    """The steps and values at which a metric is a finite number."""
    values = columns.get(metric, ())
    kept = [(x, y) for x, y in zip(columns[STEP], values, strict=False) if math.isfinite(y)]
    both = np.array(kept, dtype=np.float64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _moved(curve: Points, steps: int) -> Points:
    return curve[0] + steps, curve[1]


def mean_curve(
    curves: Sequence[Points],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Steps [G], mean [G] and 95 % interval [2, G] of several curves, interpolated, where all have values.

    Empty where the curves have no steps in common.
    """
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    steps = np.linspace(first, last, GRID) if first < last else np.empty(0)
    values = np.stack([np.interp(steps, x, y) for x, y in curves])
    bands = [bootstrap_interval(column) for column in values.T]
    return steps, values.mean(0), np.array(bands).reshape(-1, 2).T


def _draw_group(axes: Any, label: str, curves: list[Points], k: int) -> None:
    if not curves:
        axes.plot([], [], color=COLOURS[k % len(COLOURS)], label=f"{label} (no values)")
        return
    style = {"color": COLOURS[k % len(COLOURS)], "ls": DASHES[k % len(DASHES)]}
    if len(curves) == 1:
        axes.plot(*curves[0], lw=1.8, label=label, marker="." if len(curves[0][0]) == 1 else "", **style)
        return
    for curve in curves:
        axes.plot(*curve, lw=0.7, alpha=0.45, color=style["color"])
    steps, mean, (low, high) = mean_curve(curves)
    axes.plot(steps, mean, lw=2.2, label=f"{label} (mean of {len(curves)}, 95% interval)", **style)
    axes.fill_between(steps, low, high, color=style["color"], alpha=0.18, lw=0)


def _common_metric(tables: list[dict[str, list[float]]]) -> str:
    return EVALUATION if all(len(points(table, EVALUATION)[0]) for table in tables) else TRAINING


def _canvas(title: str, ylabel: str) -> tuple[Any, Any]:
    """A figure of its own, without pyplot and its global state."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=(7.0, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("steps")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: thousands(x)))
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(axis="y", color="0.88", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("0.4")
    axes.tick_params(colors="0.25")
    axes.margins(x=0.01)
    return figure, axes


def thousands(x: float) -> str:
    """A number of steps as on an axis: 500, 20k, 1.5M."""
    if abs(x) >= 999_999:
        return f"{x / 1e6:g}M"
    return f"{x / 1e3:g}k" if abs(x) >= 1000 else f"{x:g}"
