"""Pictures of what reward adds to imitation, from the curves that are committed."""

from pathlib import Path

from pgrad.recipes import RECIPES
from pgrad.report.plots import EVALUATION, compare

TITLES = {
    "parity": "parity of 50 bits, one demonstration in ten with a chain of thought",
    "reverse-few": "reversing strings, answers to 500 of them shown",
}
"""By the end of the names of the two recipes, grpo-… and imitate-…-longer."""


def draw(folder: Path, name: str) -> Path:
    """Held-out accuracy over tokens of folder/NAME, rewarded after imitation and by imitation alone; returns
    the picture's path."""
    rewarded, alone = RECIPES[f"grpo-{name}"], RECIPES[f"imitate-{name}-longer"]
    curves = {
        "GRPO after imitation": sorted((folder / rewarded.name).glob("seed-*.csv")),
        "imitation alone": sorted((folder / alone.name).glob("seed-*.csv")),
    }
    return compare(
        curves,
        folder / f"{name}.png",
        metric=EVALUATION,
        title=TITLES[name],
        begin={"GRPO after imitation": alone.total_timesteps - rewarded.total_timesteps},
        labels=("tokens learned from", "accuracy on held-out prompts, greedy"),
    )


if __name__ == "__main__":
    for one in TITLES:
        print(draw(Path("docs/evidence"), one))
