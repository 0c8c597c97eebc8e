"""A claim's first number on many problems, and all claims at a glance."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pgrad.drawing import COLOURS
from pgrad.lab.claim import ZERO, Claim, Verdict
from pgrad.lab.pictures.style import SIZE, SMALL, WIDTH, canvas, label, sheet
from pgrad.lab.problems import N_PROBLEMS, Case, random_problems, reference

SPREAD = 50.0
"""Numbers that differ by more than this factor are drawn on a logarithmic axis."""

ALIKE = 1e-5  # relative difference below which numbers are drawn as one
FLOOR = "< 1e-9"

COLUMNS, ROW, HEADING, DOT, ID = 3, 0.142, 0.24, 0.064, 0.42  # of the glance, inches


def picture(claim: Claim, case: Case) -> Any:
    """The first number of a claim on this problem and on 20 random ones, and what the verdict expects.

    A dot is filled where the statement holds and hollow where it fails; the diamond is this problem.
    """
    cases = [case] * claim.fits(case) + list(random_problems(claim.fits))
    found = [(one, claim.measure(one)) for one in cases]
    name = next(iter(found[0][1].numbers))
    figure, (axes,) = canvas(f"{claim.id}  {expected(claim)}", height=1.45)
    numbers = [float(measured.numbers[name]) for _, measured in found]
    places = place(axes, numbers)
    for k, ((one, measured), x) in enumerate(zip(found, places, strict=True)):
        colour = COLOURS[1] if one is case else COLOURS[0]
        style = (
            {"marker": "D", "ms": 9, "zorder": 4} if one is case else {"marker": "o", "ms": 5, "zorder": 3}
        )
        y = 0.0 if one is case else 0.12 * (k % 7 - 3)
        axes.plot([x], [y], mfc=colour if measured.holds else "white", mec=colour, mew=1.2, **style)
    axes.set_ylim(-0.6, 0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    lost = sum(not math.isfinite(x) for x in numbers)
    remark = f"{lost} not finite; " if lost else ""
    which = f"◆ {case.name}, " if claim.fits(case) else ""
    label(axes, f"{name}  ({remark}{which}● random problems)")
    return figure


def expected(claim: Claim) -> str:
    """What the verdict says must come out."""
    if claim.verdict is Verdict.TRUE:
        return "TRUE: holds on every problem (filled)"
    where = "every problem" if claim.always else "some problems"
    return f"{claim.verdict}: as it stands it fails on {where} (hollow)"


def place(axes: Any, numbers: Sequence[float]) -> list[float]:
    """Where to draw each number, on an axis made for them: logarithmic with a floor where they ask for it."""
    finite = [x for x in numbers if math.isfinite(x)]
    sizes = sorted(abs(x) for x in finite if abs(x) >= ZERO)
    if not sizes or max(finite) - min(finite) < ALIKE * sizes[-1]:
        text = f"{finite[0]:.4g}" if sizes else FLOOR
        axes.set_xlim(-1, 1)
        axes.set_xticks([0.0], [text if finite else "no finite number"])
        return [0.0 if math.isfinite(x) else math.nan for x in numbers]
    if min(finite) > -ZERO and sizes[-1] > SPREAD * sizes[0]:
        return _logarithmic(axes, numbers, sizes)
    axes.margins(x=0.06)
    middle = sizes[len(sizes) // 2]
    if sizes[-1] > SPREAD * middle:
        axes.set_xscale("symlog", linthresh=middle)
    else:
        axes.ticklabel_format(axis="x", useOffset=False)
    return list(numbers)


def _logarithmic(axes: Any, numbers: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Decades, and one more for the zeros if there are any."""
    low, high = math.floor(math.log10(sizes[0])), math.ceil(math.log10(sizes[-1]))
    every = max(1, math.ceil((high - low) / 6))
    ticks = {10.0**k: f"{10.0**k:g}" for k in range(high, low - 1, -every)}
    floor = 10.0 ** (low - 1)
    if len(sizes) < len(numbers):
        ticks[floor] = FLOOR
        sizes = [floor, *sizes]
    axes.set_xscale("log")
    axes.set_xlim(sizes[0] / 1.7, sizes[-1] * 1.7)
    shown = {x: text for x, text in ticks.items() if sizes[0] / 1.7 <= x <= sizes[-1] * 1.7}
    axes.set_xticks(list(shown), list(shown.values()))
    axes.set_xticks([], minor=True)
    return [x if abs(x) >= ZERO else floor for x in numbers]


def glance(chapters: Mapping[str, Sequence[Claim]]) -> Any:
    """Every claim on the reference problem (diamond) and on 20 random ones: filled where it holds."""
    columns = _columns(chapters)
    height = max(sum(map(_height, column)) for column in columns)
    figure = sheet(height + 0.45)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height + 0.4, -0.05)
    axes.axis("off")
    for k, column in enumerate(columns):
        left, y = 0.08 + k * WIDTH / COLUMNS, 0.0
        for line in column:
            y += _height(line)
            if isinstance(line, str):
                axes.text(left, y, line, fontsize=SIZE, fontweight="bold", va="center")
                continue
            axes.text(left, y, line.id, fontsize=SMALL, va="center", color="0.15")
            _row(axes, left + ID, y, outcomes(line))
    _key(axes, height + 0.25)
    return figure


def outcomes(claim: Claim) -> list[bool | None]:
    """Whether the statement holds on the reference problem (None: cannot be tried) and on random ones."""
    first = claim.measure(reference()).holds if claim.fits(reference()) else None
    return [first, *(claim.measure(case).holds for case in random_problems(claim.fits))]


def _row(axes: Any, x: float, y: float, holds: Sequence[bool | None]) -> None:
    for k, held in enumerate(holds):
        if held is not None:
            colour = COLOURS[0] if held else COLOURS[1]
            style = {"marker": "o", "ms": 3.4} if k else {"marker": "D", "ms": 4.6}
            at = x + DOT * (k + 0.8) if k else x
            axes.plot([at], [y], mfc=colour if held else "white", mec=colour, mew=0.9, ls="", **style)


def _key(axes: Any, y: float) -> None:
    for x, holds, text in ((0.15, True, "holds as it stands"), (1.75, False, "fails as it stands")):
        _row(axes, x, y, [holds, holds])
        axes.text(x + 0.25, y, text, fontsize=SMALL, va="center")
    text = f"◇ the reference problem   ○ {N_PROBLEMS} random problems"
    axes.text(WIDTH - 0.08, y, text, fontsize=SMALL, va="center", ha="right")


def _columns(chapters: Mapping[str, Sequence[Claim]]) -> list[list[str | Claim]]:
    """Headings and claims in order, in columns of about equal height; a heading stays with its first."""
    lines: list[str | Claim] = []
    for name, claims in chapters.items():
        lines += [name, *claims] if claims else []
    total = sum(map(_height, lines))
    columns: list[list[str | Claim]] = [[] for _ in range(COLUMNS)]
    used = 0.0
    for line in lines:
        ahead = _height(line) + (ROW if isinstance(line, str) else 0.0)
        k = min(COLUMNS - 1, int(COLUMNS * (used + ahead - 1e-9) / total))
        columns[max(k, max((i for i, column in enumerate(columns) if column), default=0))].append(line)
        used += _height(line)
    return columns


def _height(line: str | Claim) -> float:
    return HEADING if isinstance(line, str) else ROW
