"""The cart-pole without velocities needs a memory: a search that needs no gradient fails too."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "without_memory.py"


@pytest.mark.parametrize(("seen", "generations", "low", "high"), [(False, 30, 40, 60), (True, 10, 475, 500)])
def test_a_direct_search_ends_there(seen: bool, generations: int, low: float, high: float) -> None:
    page = runpy.run_path(str(EXAMPLE))
    assert low <= page["search"](page["CartPole"](velocities_seen=seen), generations) <= high
