"""How the laboratory's pictures look: A5 width, 8 points at least, names in place, no need of colour."""

from collections.abc import Sequence
from typing import Any

from pgrad.drawing import COLOURS

OLD, REF = r"θ$_{old}$", r"π$_{ref}$"
CPI, CLIP = r"L$^{CPI}$", r"L$^{CLIP}$"

WIDTH = 5.8  # inches, an A5 page
SIZE, SMALL = 9, 8  # points


def canvas(*names: str, height: float = 2.9, sharey: bool = False) -> tuple[Any, list[Any]]:
    """A figure with a panel of each name, side by side."""
    figure = sheet(height)
    panels = list(figure.subplots(1, len(names), sharey=sharey, squeeze=False)[0])
    for axes, name in zip(panels, names, strict=True):
        dress(axes, name)
    return figure, panels


def sheet(height: float) -> Any:
    """An empty figure of its own, without pyplot and its global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), dpi=200, layout="constrained")


def dress(axes: Any, name: str = "") -> None:
    """One panel's look."""
    if name:
        axes.set_title(name, loc="left", fontsize=SIZE)
    axes.tick_params(labelsize=SMALL, colors="0.25")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("0.4")
    axes.grid(axis="y", color="0.9", lw=0.7)
    axes.set_axisbelow(True)


def label(axes: Any, x: str, y: str = "") -> None:
    """What the axes are."""
    axes.set_xlabel(x, fontsize=SIZE)
    axes.set_ylabel(y, fontsize=SIZE)


def say(axes: Any, text: str, at: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    """A few words near a point, so many typographic points off, joined by a thin line if `arrow`."""
    arrow = (
        {"arrowstyle": "-", "lw": 0.6, "color": "0.35", "shrinkB": 2} if style.pop("arrow", False) else None
    )
    axes.annotate(
        text,
        at,
        xytext=offset,
        textcoords="offset points",
        fontsize=SMALL,
        arrowprops=arrow,
        **{"color": "0.15"} | style,
    )


def name_lines(axes: Any, names: Sequence[str], *, gap: float = 0.075) -> None:
    """Write every line's name behind its last point, apart by at least `gap` of the height.

    To be called when the limits of the axes are what they will be.
    """
    lines = axes.get_lines()[: len(names)]
    inverse = axes.transAxes.inverted()
    ends = []
    for line, name in zip(lines, names, strict=True):
        x, y = (float(values[-1]) for values in line.get_data())
        height = inverse.transform(axes.transData.transform((x, y)))[1]
        ends.append((min(max(float(height), 0.0), 1.0), name, line.get_color()))
    ends.sort()
    places = _apart([height for height, _, _ in ends], gap)
    for (height, name, colour), place in zip(ends, places, strict=True):
        axes.annotate(
            name,
            (1.0, height),
            xycoords="axes fraction",
            xytext=(1.06, place),
            textcoords="axes fraction",
            fontsize=SMALL,
            va="center",
            color=darker(colour),
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "lw": 0.6, "color": colour, "shrinkA": 0, "shrinkB": 0},
        )


def dots(
    axes: Any, y: float, x: Sequence[float], here: Sequence[float] = (), colour: str = COLOURS[5]
) -> None:
    """A row of small dots, a little apart in height so that they can be counted, and a large one: `here`."""
    offsets = [0.08 * (k % 5 - 2) for k in range(len(x))]
    axes.plot(x, [y + d for d in offsets], ls="", marker="o", ms=4, mew=0, color=colour, alpha=0.8)
    axes.plot(here, [y] * len(here), ls="", marker="D", ms=8, mfc=COLOURS[1], mec="white", zorder=5)


def rows(axes: Any, names: Sequence[str], remarks: Sequence[str] = ()) -> None:
    """Rows of dots from the top, with their names on the left and a remark on the right."""
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", lw=0.7)
    for y, remark in enumerate(remarks):
        at, how = (1.02, y), ("axes fraction", "data")
        axes.annotate(
            remark, at, xycoords=how, fontsize=SMALL, va="center", color="0.15", annotation_clip=False
        )


def legend_of_dots(axes: Any, here: str, others: str) -> None:
    """Which dots are which, above the panel."""
    axes.plot([], [], ls="", marker="D", ms=7, mfc=COLOURS[1], mec="white", label=here)
    axes.plot([], [], ls="", marker="o", ms=4, mew=0, color=COLOURS[5], label=others)
    where = {"loc": "lower left", "bbox_to_anchor": (0.0, 0.97), "ncols": 2, "borderaxespad": 0.2}
    axes.legend(frameon=False, fontsize=SMALL, handletextpad=0.2, **where)


def darker(colour: str, factor: float = 0.75) -> tuple[float, ...]:
    """A colour dark enough to read letters in."""
    from matplotlib.colors import to_rgb

    return tuple(factor * channel for channel in to_rgb(colour))


def _apart(heights: list[float], gap: float) -> list[float]:
    """Ascending heights moved as little as this simple rule can until they are `gap` apart."""
    groups: list[tuple[float, int]] = []  # centre, members
    for height in heights:
        centre, members = height, 1
        while (
            groups and centre - gap * (members - 1) / 2 - gap < groups[-1][0] + gap * (groups[-1][1] - 1) / 2
        ):
            other, more = groups.pop()
            centre = (centre * members + other * more) / (members + more)
            members += more
        groups.append((centre, members))
    return [centre + gap * (k - (members - 1) / 2) for centre, members in groups for k in range(members)]
