"""Sides in turn, in fresh processes, and what comes of it."""

import platform
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.measure import SideError, once, python_of
from bench.work import Row, Side, Target

MEASURES = (
    "steps_per_second",
    "steps_per_cpu_second",
    "first_update",
    "solved_after",
    "wall_seconds",
    "cpu_seconds",
    "peak_mb",
    "score",
)
BOUNDS = {"steps": (0.99, 1.1), "gradient_steps": (1.0, 1.1), "parameters": (1.0, 1.0)}
"""What pgrad's share of a peer's work may be. It does not count the row of a reset as a step, and so updates
more often on the way to a number of steps."""


def compare(row: Row, rounds: int, ours: Path | None, theirs: Path | None) -> dict[str, Any]:
    """Run the sides of a row in turn; the result as it is written."""
    found: dict[str, list[dict[str, Any]]] = {side.name: [] for side in row.sides}
    cold: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}

    def run(side: Side, cache: Path, seed: int) -> dict[str, Any] | None:
        if side.name in failed:
            return None
        try:
            one = once(side, python_of(ours if side.ours else theirs), cache, seed)
        except SideError as error:
            failed[side.name] = str(error)
            print(f"  {side.name}: {error}", flush=True)
            return None
        shown = ", ".join(f"{key} {one[key]:,.4g}" for key in MEASURES if key in one)
        print(f"  {side.name}: {shown}", flush=True)
        return one

    with tempfile.TemporaryDirectory() as folder:
        for side in row.sides:  # what compiles is slowest the first time on a machine
            if side.train.get("compile") == "yes":
                print("with nothing compiled yet", flush=True)
                if (first := run(side, Path(folder), 0)) is not None:
                    cold[side.name] = first
        for k in range(rounds):
            print(f"round {k + 1} of {rounds}", flush=True)
            for side in row.sides:
                if (one := run(side, Path(folder), k)) is not None:
                    found[side.name].append(one)
    found = {name: ones for name, ones in found.items() if ones and name not in failed}
    result = {
        "title": row.title,
        "rounds": rounds,
        "machine": machine(),
        "sides": {name: side_result(ones, cold.get(name)) for name, ones in found.items()},
        "ratios": all_ratios(found),
        "targets": [judged(target, found) for target in row.targets],
        "failed": failed,
    }
    return result | {"unequal": unequal(row, result["sides"])}


def side_result(ones: list[dict[str, Any]], cold: dict[str, Any] | None) -> dict[str, Any]:
    """Median, lowest and highest of all measures, and what was done."""
    result: dict[str, Any] = {key: spread([one[key] for one in ones]) for key in MEASURES if key in ones[0]}
    if cold is not None:
        result["cold"] = {key: round(cold[key], 3) for key in ("first_update", "peak_mb")}
    return result | {key: ones[0][key] for key in ("work", "versions") if key in ones[0]}


def spread(numbers: Sequence[float]) -> list[float]:
    """[median, lowest, highest]."""
    return [round(f(numbers), 4) for f in (statistics.median, min, max)]


def ratio(ones: list[dict[str, Any]], others: list[dict[str, Any]], measure: str) -> list[float]:
    """The spread of the ratios within each round, where the machine was in the same mood for both."""
    return spread([a[measure] / b[measure] for a, b in zip(ones, others, strict=True)])


def all_ratios(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Of every side of pgrad to every peer, by measure."""
    return {
        name: {
            rival: {key: ratio(ones, others, key) for key in MEASURES if key in ones[0] and key in others[0]}
            for rival, others in found.items()
            if not rival.startswith("pgrad")
        }
        for name, ones in found.items()
        if name.startswith("pgrad")
    }


def judged(target: Target, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """A target and what was reached."""
    ones, others = found.get(target.side), found.get(target.peer)
    reached = None
    if ones and target.peer and others:
        reached = ratio(ones, others, target.measure)
    elif ones and not target.peer:
        reached = spread([one[target.measure] for one in ones])
    met = None
    if reached is not None:
        counted = reached[1] if target.measure == "score" else reached[0]  # every seed is to solve it
        met = counted >= target.bound if target.at_least else counted <= target.bound
    return {
        "side": target.side,
        "measure": target.measure,
        "peer": target.peer,
        "bound": target.bound,
        "moonshot": target.moonshot,
        "at_least": target.at_least,
        "reached": reached,
        "met": met,
    }


def unequal(row: Row, sides: dict[str, dict[str, Any]]) -> list[str]:
    """Where two sides that were given the same work did not do the same."""
    found = []
    given = {side.name: replace(side.work, world=side.work.world.split(":")[-1]) for side in row.sides}
    for name, mine in sides.items():
        for rival, other in sides.items():
            same = given[name] == given[rival] and name.startswith("pgrad") and not rival.startswith("pgrad")
            if not same or "work" not in mine or "work" not in other:
                continue
            for what, (least, most) in BOUNDS.items():
                a, b = mine["work"][what], other["work"][what]
                if not least * b <= a <= (most + row.larger_by * (what == "parameters")) * b:
                    found.append(f"{what}: {name} {a:,}, {rival} {b:,}")
    return found


def machine() -> dict[str, Any]:
    """What this is measured on."""
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    cpus = [line.split(":", 1)[1].strip() for line in facts if line.startswith("model name")]
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": len(cpus),
        "memory_gb": round(int(memory) / 2**20),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }
