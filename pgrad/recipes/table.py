"""The evidence as a table, from the results that are committed."""

import json
from pathlib import Path
from typing import Any

HEAD = (
    "| | environment, steps | to reach | reached | lowest seed | seeds |",
    "|---|---|---|---|---|---|",
)


def evidence_table(folder: Path) -> str:
    """Markdown, one row for each folder/*/result.json; the name links to the curves, where there are any."""
    rows = []
    for path in sorted(folder.glob("*/result.json")):
        shown = "curve.png" if (path.parent / "curve.png").exists() else path.name
        rows.append(_row(json.loads(path.read_text()), shown))
    return "\n".join([*HEAD, *rows])


def digits(result: dict[str, Any]) -> int:
    """Decimals that returns are told with: three where all are within ±1."""
    return 3 if all(abs(seed["eval_mean"]) <= 1.0 for seed in result["seeds"]) else 1


def _row(result: dict[str, Any], shown: str) -> str:
    means, k = [seed["eval_mean"] for seed in result["seeds"]], digits(result)
    reach = "reported" if result["reach"] is None else f"≥ {result['reach']:g}"
    if result["every_seed"] is not None:
        reach += f", every seed ≥ {result['every_seed']:g}"
    reached = f"{result['mean']:.{k}f}"
    if "interval" in result:
        low, high = result["interval"]
        reached += f" [{low:.{k}f}, {high:.{k}f}]"
    before = [seed["eval_before"] for seed in result["seeds"] if "eval_before" in seed]
    if before:
        reached += f", from {sum(before) / len(before):.{k}f}"
    if result["reached"] is False:
        reached += " (short)"
    name = f"[{result['recipe']}](docs/evidence/{result['recipe']}/{shown})"
    steps = f"{result['world']}, {result['total_timesteps']:,}"
    return f"| {name} | {steps} | {reach} | {reached} | {min(means):.{k}f} | {len(means)} |"


if __name__ == "__main__":
    print(evidence_table(Path("docs/evidence")))
