"""The picture of the growth curves."""

from math import ceil, floor, log10
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from pgrad.drawing import COLOURS, DASHES, save


def draw_growth(result: dict[str, Any], path: Path) -> None:
    """One panel for everything that grows, both axes by factors of two."""
    panels = list(dict.fromkeys(curve["by"] for curve in result["curves"]))
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(3.3 * len(panels), 3.2), layout="constrained")
        for axes, by in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            curves = [curve for curve in result["curves"] if curve["by"] == by]
            for curve, colour, dash in zip(curves, COLOURS, DASHES, strict=False):
                x = [point for point, _ in curve["points"]]
                middle, low, high = zip(*(found for _, found in curve["points"]), strict=True)
                axes.plot(x, middle, color=colour, linestyle=dash, marker="o", ms=3, label=curve["name"])
                axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
            found = [x for curve in curves for _, numbers in curve["points"] for x in numbers]
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks := [x for x, _ in curves[0]["points"]], [_short(x) for x in ticks])
            axes.set_yscale("log")
            axes.set_ylim(10 ** floor(log10(min(found))), 10 ** ceil(log10(max(found))))
            axes.yaxis.set_major_formatter("{x:,.0f}")
            axes.yaxis.set_minor_formatter("")
            axes.set_xlabel(by)
            axes.legend(frameon=False, fontsize=7, loc="lower left", bbox_to_anchor=(0.0, 1.0))
        figure.axes[0].set_ylabel("steps/s")
        save(figure, path)


def _short(x: float) -> str:
    return f"{x / 1024:g}k" if x >= 1024 else f"{x:g}"
