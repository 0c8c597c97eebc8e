"""Pictures of runs: learning curves of one run and of several, for print and for the colour-blind."""

import math
import textwrap
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
LEARNING = (
    (TRAINING, EVALUATION),
    ("train/accuracy", "held_out/accuracy"),
    ("train/log_likelihood", "held_out/log_likelihood"),
)
"""What shows that a run learns, and the same where it does not learn: of imitation, which earns nothing, one
of the last two."""
NAMES = {
    TRAINING: "episode return",
    EVALUATION: "episode return (evaluation)",
    "rollout/ep_len_mean": "episode length",
    "train/accuracy": "accuracy",
    "train/log_likelihood": "log-likelihood",
}
TEXT_NAMES = NAMES | {
    TRAINING: "reward",
    EVALUATION: "reward (evaluation)",
    "rollout/ep_len_mean": "tokens of a completion",
}
GRID = 200  # points at which the runs of a group are averaged
WIDTH, HEIGHT = 7.0, 4.2  # inches
LABEL_SIZE, LINE_HEIGHT = 9, 0.19  # of a legend: points, inches
SHORT, MANY, LINE = 60, 8, 80  # characters of a label, and labels, that the axes take; characters below

Points = tuple[NDArray[np.float64], NDArray[np.float64]]


def learning_curve(metrics: Path, picture: Path, *, title: str = "", texts: bool = False) -> Path:
    """Draw what one run learned against its steps from metrics.csv; returns the picture's path.

    The line is the mean return of the last 100 training episodes, the circles are evaluations; of imitation
    they are accuracies, or else log-likelihoods. texts: whether the run is of completions of prompts, whose
    steps are tokens. A run in which no episode ended gets a picture that says so. Raises CheckpointError for
    metrics that cannot be read.
    """
    columns = read(metrics)
    found = (pair for pair in LEARNING if any(len(points(columns, metric)[0]) for metric in pair))
    pair = next(found, LEARNING[0])
    training, other = (points(columns, metric) for metric in pair)
    figure, axes = _canvas(title, (TEXT_NAMES if texts else NAMES)[pair[0]], unit(texts))
    labels, style = ("training", "held out"), dict[str, Any](ls=DASHES[1])
    if pair == LEARNING[0]:
        style = {"marker": "o", "ms": 4.5, "mfc": "white"}
        labels = ("training, mean of the last 100 episodes", "evaluation, deterministic")
        if texts:
            labels = ("training, mean of a batch", "evaluation, greedy")
    if len(training[0]):
        marker = "." if len(training[0]) == 1 else ""
        axes.plot(*training, color=COLOURS[0], lw=1.8, marker=marker, label=labels[0])
    if len(other[0]):
        axes.plot(*other, color=COLOURS[1], lw=1.2, label=labels[1], **style)
    if len(training[0]) + len(other[0]):
        _legend(axes)
    else:
        steps = int(max(columns[STEP], default=0))
        axes.set_xlim(0, max(steps, 1))
        nothing = "no completion was judged" if texts else "no episode ended"
        text = f"{nothing} in {steps:,} {unit(texts)}"
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
    labels: tuple[str, str] = ("", ""),
    texts: bool = False,
) -> Path:
    """Draw the curves of several runs in one picture; returns its path.

    groups: label → the metrics.csv of runs that differ only in their seed. Each run is a thin line; more than
        one get a thick line, their mean where all have values, in a 95 % bootstrap interval over the runs.
    metric: a column of metrics.csv; by default that of `common_metric`.
    begin: label → steps that the runs of that group began after, those of the runs they began with.
    labels: what stands at the axes; where nothing is given, steps and the metric's name.
    texts: whether the runs are of completions of prompts, whose steps are tokens.

    Raises UsageError where a metric is in none of the runs.
    """
    tables = {label: [read(path) for path in paths] for label, paths in groups.items()}
    metric = metric or common_metric([table for group in tables.values() for table in group])
    curves = {
        label: [_moved(points(table, metric), (begin or {}).get(label, 0)) for table in group]
        for label, group in tables.items()
    }
    if not any(len(x) for group in curves.values() for x, _ in group):
        known = sorted({key for group in tables.values() for table in group for key in table})
        raise UsageError(f"no run has a number for {metric!r}; there are: {', '.join(known)}")
    name = (TEXT_NAMES if texts else NAMES).get(metric, metric)
    figure, axes = _canvas(title, labels[1] or name, labels[0] or unit(texts))
    for k, (label, group) in enumerate(curves.items()):
        _draw_group(axes, label, [curve for curve in group if len(curve[0])], k)
    _legend(axes)
    figure.axes[0].set_xlim(left=0)  # steps count from 0
    return save(figure, picture)


def common_metric(tables: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """What runs are compared by: evaluations where every run has some, else training returns, else how well
    they imitate; where they have nothing in common, the first of these that one has."""
    known = (EVALUATION, *(training for training, _ in LEARNING))
    have = [{metric for metric in known if len(points(table, metric)[0])} for table in tables]
    first = (metric for enough in (all, any) for metric in known if enough(metric in one for one in have))
    return next(first, TRAINING) if tables else TRAINING


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


def unit(texts: bool) -> str:
    """What the steps of a run are."""
    return "tokens" if texts else "steps"


def _legend(axes: Any) -> None:
    """The labels: in the axes, or where they are long or many in lines below them, in a higher picture."""
    handles, labels = axes.get_legend_handles_labels()
    longest = max(map(len, labels))
    if len(labels) <= MANY and longest <= SHORT:
        axes.legend(frameon=False, fontsize=LABEL_SIZE)
        return
    columns = max(1, LINE // (longest + 8))
    labels = [textwrap.fill(label, LINE, break_on_hyphens=False) for label in labels]
    lines = sum(label.count("\n") + 1 for label in labels)
    figure = axes.figure
    figure.set_size_inches(WIDTH, HEIGHT + LINE_HEIGHT * (math.ceil(lines / columns) + 1))
    below = {"loc": "outside lower left", "ncols": columns}
    figure.legend(handles, labels, frameon=False, fontsize=LABEL_SIZE, **below)


def _canvas(title: str, ylabel: str, xlabel: str) -> tuple[Any, Any]:
    """A figure of its own, without pyplot and its global state."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(xlabel)
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
