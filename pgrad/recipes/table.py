"""The evidence as a table, from the results that are committed."""

import json
from pathlib import Path
from typing import Any

HEAD = (
    "| | environment, steps | to reach | reached | lowest seed | seeds |",
    "|---|---|---|---|---|---|",
)


def evidence_table(folder: Path) -> str:
    """Markdown, one row for each folder/*/result.json; the name links to the curves."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))]
    return "\n".join([*HEAD, *(_row(result) for result in results)])


def _row(result: dict[str, Any]) -> str:
    low, high = result["interval"]
    means = [seed["eval_mean"] for seed in result["seeds"]]
    reach = "reported" if result["reach"] is None else f"≥ {result['reach']:g}"
    if result["every_seed"] is not None:
        reach += f", every seed ≥ {result['every_seed']:g}"
    reached = f"{result['mean']:.1f} [{low:.1f}, {high:.1f}]"
    if result["reached"] is False:
        reached += " (short)"
    name = f"[{result['recipe']}](docs/evidence/{result['recipe']}/curve.png)"
    steps = f"{result['world']}, {result['total_timesteps']:,}"
    return f"| {name} | {steps} | {reach} | {reached} | {min(means):.1f} | {len(means)} |"


if __name__ == "__main__":
    print(evidence_table(Path("docs/evidence")))
