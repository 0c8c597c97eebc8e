"""Pictures of runs."""

import math
from pathlib import Path

from pgrad.train.log import read


def learning_curve(metrics: Path, picture: Path, *, title: str = "") -> Path:
    """Draw the return against the steps from a metrics.csv; returns the picture's path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = read(metrics)
    steps = columns["time/total_timesteps"]
    figure = Figure(figsize=(7.0, 4.0), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for key, label in (
        ("rollout/ep_rew_mean", "training, last 100 episodes"),
        ("eval/mean_reward", "evaluation, deterministic"),
    ):
        points = [(x, y) for x, y in zip(steps, columns.get(key, []), strict=False) if math.isfinite(y)]
        if points:
            marker = "o" if key.startswith("eval") else ""
            axes.plot(*zip(*points, strict=True), label=label, marker=marker, markersize=4)
    axes.set_xlabel("steps")
    axes.set_ylabel("episode return")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)
    return picture
