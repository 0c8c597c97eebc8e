"""bench/RESULTS.md, made from the results of the rows."""

import json
from pathlib import Path
from typing import Any

from bench.rows import ROWS

NAMES = {
    "steps_per_second": "steps/s",
    "first_update": "first update",
    "peak_mb": "peak memory",
    "solved_after": "solved after",
    "score": "mean return",
}
UNITS = {"first_update": " s", "peak_mb": " MB", "solved_after": " s"}
INTRODUCTION = """# Speed, measured

`python -m bench ROW` runs pgrad and its peers in turn, every time in a fresh process, on one core with one
thread unless the side says more. Ratios are taken within each round; shown are the median and (lowest …
highest). Counts of environment steps, gradient steps and parameters are read from both sides and compared.
Steps/s is the steady rate, after the first fifth of the run (SAC: after its first updates), and counts
decisions: where an environment of pgrad only resets, that is none. The first update is counted from the start
of the process, with all that earlier runs compiled at hand (JAX compiles in every process); what the very
first run on a machine takes is in brackets. Memory is the peak of the process and its children together,
libraries counted once. Everything is in [results](results).
"""


def write_table(folder: Path) -> None:
    """Write RESULTS.md beside the folder of results."""
    paths = [folder / f"{name}.json" for name in (*ROWS, "growth")]
    results = {path.stem: json.loads(path.read_text()) for path in paths if path.exists()}
    (folder.parent / "RESULTS.md").write_text(table(results))
    if "growth" in results:
        from bench.draw import draw_growth

        draw_growth(results["growth"], folder / "growth.png")


def table(results: dict[str, dict[str, Any]]) -> str:
    """The whole text."""
    rows = {name: result for name, result in results.items() if name != "growth"}
    parts = [INTRODUCTION, surroundings(results), targets(rows)]
    parts += [row_table(name, result) for name, result in rows.items()]
    if "growth" in results:
        parts.append(growth_table(results["growth"]))
    return "\n".join(parts)


def surroundings(results: dict[str, dict[str, Any]]) -> str:
    """The machines and the versions."""
    machines: dict[str, list[str]] = {}
    versions: dict[str, set[str]] = {}
    for name, result in results.items():
        one = result["machine"]
        text = f"{one['cpu']}, {one['cores']} cores, {one['memory_gb']} GB, {one['system']}, "
        text += f"Python {one['python']}"
        machines.setdefault(text, []).append(name)
        for side in result.get("sides", {}).values():
            for package, number in side["versions"].items():
                versions.setdefault(package, set()).add(number)
    where = [
        f"{text} ({', '.join(names)})" if len(machines) > 1 else text for text, names in machines.items()
    ]
    what = [f"{package} {' and '.join(sorted(numbers))}" for package, numbers in sorted(versions.items())]
    return f"{'; '.join(where)}.\n{', '.join(what)}.\n"


def targets(rows: dict[str, dict[str, Any]]) -> str:
    """What was hoped for, and what was reached."""
    lines = ["## Targets", "", "| row | | target | reached | |", "|---|---|---|---|---|"]
    for name, result in rows.items():
        for one in result["targets"]:
            if one["reached"] is None:
                continue
            sign, unit = (
                ("≥" if one["at_least"] else "≤"),
                "×" if one["peer"] else UNITS.get(one["measure"], ""),
            )
            bound = f"{sign} {one['bound']:g}{unit} {one['peer']}".strip()
            bound += f" (moonshot {one['moonshot']:g}{unit})" if one["moonshot"] else ""
            mark = "met" if one["met"] else "**missed**"
            what = f"{one['side']}: {NAMES[one['measure']]}"
            lines.append(f"| {name} | {what} | {bound} | {spread(one['reached'], unit)} | {mark} |")
    return "\n".join(lines) + "\n"


def row_table(name: str, result: dict[str, Any]) -> str:
    """One row: its sides, and our ratios to the peers."""
    rivals = [side for side in result["sides"] if not side.startswith("pgrad")]
    timed = any("steps_per_second" in side for side in result["sides"].values())
    measure = "steps_per_second" if timed else "solved_after"
    first = ["steps/s", "first update"] if timed else ["solved after", "mean return"]
    head = ["", *first, "wall", "CPU", "peak memory", *(f"{NAMES[measure]} / {rival}" for rival in rivals)]
    lines = [f"## {name}: {result['title']}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for side, one in result["sides"].items():
        cells = [side]
        if timed:
            cold = f" ({one['cold']['first_update']:.1f} s)" if "cold" in one else ""
            cells += [f"{one['steps_per_second'][0]:,.0f}", f"{one['first_update'][0]:.2f} s{cold}"]
        else:
            cells.append(spread(one["solved_after"], " s"))
            cells.append(f"{one['score'][0]:.1f} (lowest {one['score'][1]:.1f})")
        cells += [f"{one[key][0]:.1f} s" for key in ("wall_seconds", "cpu_seconds")]
        cells.append(f"{one['peak_mb'][0]:.0f} MB")
        ratios = result["ratios"].get(side, {})
        cells += [spread(ratios[rival][measure], "×") if rival in ratios else "" for rival in rivals]
        lines.append(f"| {' | '.join(cells)} |")
    work = {side: one["work"] for side, one in result["sides"].items() if "work" in one}
    notes = [
        f"{side} {w['steps']:,} / {w['gradient_steps']:,} / {w['parameters']:,}" for side, w in work.items()
    ]
    notes = [f"Steps / gradient steps / parameters: {'; '.join(notes)}."] if notes else []
    notes += [f"Not the same work: {line}." for line in result["unequal"]]
    notes += [f"{side} failed: {why}." for side, why in result["failed"].items()]
    notes.append(f"Rounds: {result['rounds']}.")
    return "\n".join([*lines, "", *notes, ""])


def growth_table(result: dict[str, Any]) -> str:
    """The curves as numbers."""
    lines = ["## Growth", "", "![growth](results/growth.png)", ""]
    for curve in result["curves"]:
        points = ", ".join(f"{x:g}: {found[0]:,.0f}" for x, found in curve["points"])
        lines.append(f"- {curve['name']}: steps/s by {curve['by']}: {points}")
    if five := result.get("seeds"):
        ratio = spread(five["ratio"], "×")
        lines.append(f"- five seeds side by side: {ratio} the time of one (target ≤ {five['target']}×)")
    lines += [f"- {what} failed: {why}" for what, why in result["failed"].items()]
    return "\n".join(lines) + "\n"


def spread(numbers: list[float], unit: str) -> str:
    """median (lowest … highest)."""
    middle, low, high = (f"{x:,.0f}" if abs(x) >= 100 else f"{x:.2f}" for x in numbers)
    return f"{middle}{unit} ({low} … {high})"
