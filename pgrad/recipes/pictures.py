"""Pictures of several recipes together, from the curves that are committed."""

from pathlib import Path

from pgrad.recipes.parity import LONGER, MIXED, REWARDED
from pgrad.report.plots import EVALUATION, compare


def draw_parity(folder: Path) -> Path:
    """Held-out accuracy over tokens of folder/NAME, rewarded after imitation and by imitation alone; returns
    the picture's path."""
    rewarded = "GRPO after imitation"
    curves = {
        rewarded: sorted((folder / REWARDED.name).glob("seed-*.csv")),
        "imitation alone": sorted((folder / LONGER.name).glob("seed-*.csv")),
    }
    return compare(
        curves,
        folder / "parity.png",
        metric=EVALUATION,
        title="parity of 50 bits, one demonstration in ten with a chain of thought",
        begin={rewarded: MIXED.total_timesteps},
        labels=("tokens learned from", "accuracy on held-out prompts, greedy"),
    )


if __name__ == "__main__":
    print(draw_parity(Path("docs/evidence")))
