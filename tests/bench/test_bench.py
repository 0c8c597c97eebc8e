"""The benchmark's own arithmetic, and that its rows ask for what there is; no peer is needed."""

import dataclasses
import inspect
import json
from pathlib import Path

import pytest

import pgrad as pg
from bench import compare, measure, rows, table, work

ALGORITHMS = {"ppo": pg.PPO, "a2c": pg.A2C, "trpo": pg.TRPO, "sac": pg.SAC}
SIDES = [(name, side) for name, row in rows.ROWS.items() for side in row.sides]


def took(notes: list[list[float]], **others: float) -> measure.Took:
    report = {"notes": notes, "parameters": 10, "peak_mb": 200.0, "versions": {}, **others}
    return measure.Took(["noise", json.dumps(report)], 100.0, 112.0, 9.0, 150.0)


def side_result(rates: list[float], steps: int = 100) -> list[dict]:
    done = {"steps": steps, "gradient_steps": 10, "parameters": 5}
    common = {"first_update": 1.0, "wall_seconds": 3.0, "cpu_seconds": 2.0, "peak_mb": 50.0}
    return [common | {"steps_per_second": x, "work": done, "versions": {"torch": "2"}} for x in rates]


def test_the_steady_rate_begins_after_its_share_of_the_steps() -> None:
    notes = [[100, 0, 103.0, 2.0], [200, 4, 106.0, 3.0], [600, 8, 108.0, 4.0], [1000, 12, 109.0, 4.5]]
    found = measure.summary(took(notes), settled=0.2)
    assert found["steps_per_second"] == 800 / 3.0
    assert found["steps_per_cpu_second"] == 800 / 1.5
    assert found["first_update"] == 6.0  # the first note with a step of gradients, from the process's start
    assert found["wall_seconds"] == 12.0
    assert found["peak_mb"] == 200.0
    assert found["work"] == {"steps": 1000, "gradient_steps": 12, "parameters": 10}


def test_what_is_to_be_solved_is_timed_from_the_start_of_the_process_and_by_its_worst_seed() -> None:
    ones = [
        measure.summary(took([[0, 0, when, 1.0]], score=score), 0.2)
        for when, score in ((103, 500), (104, 470))
    ]
    assert [one["solved_after"] for one in ones] == [3.0, 4.0]
    assert compare.judged(work.Target("pgrad", "score", 475.0), {"pgrad": ones})["met"] is False
    assert compare.judged(work.Target("pgrad", "solved_after", 3.5), {"pgrad": ones})["met"] is True


def test_a_run_without_a_steady_part_is_refused() -> None:
    with pytest.raises(measure.SideError, match="too few"):
        measure.summary(took([[1000, 12, 109.0, 4.5]]), settled=0.2)


def test_ratios_are_taken_within_rounds() -> None:
    # Medians of the sides would give 30/10 = 3; the machine's slow second round belongs to both.
    ones, others = side_result([30.0, 8.0, 40.0]), side_result([10.0, 4.0, 20.0])
    assert compare.ratio(ones, others, "steps_per_second") == [2.0, 2.0, 3.0]


def test_more_is_better_for_rates_and_less_for_time_and_memory() -> None:
    found = {"pgrad": side_result([30.0]), "sb3": side_result([10.0])}
    fast = compare.judged(rows.faster("pgrad", 3.0, "sb3"), found)
    light = compare.judged(rows.lighter("pgrad", "sb3"), found)
    slow = compare.judged(work.Target("pgrad", "first_update", 0.5), found)
    absent = compare.judged(rows.faster("other", 3.0, "sb3"), found)
    assert (fast["met"], light["met"], slow["met"], absent["met"]) == (True, True, False, None)
    assert (fast["reached"], slow["reached"]) == ([3.0, 3.0, 3.0], [1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("ours", "theirs", "what"),
    [
        ({}, {}, []),
        ({"steps": 990, "gradient_steps": 105}, {}, []),  # resets are no steps, so it updates more often
        ({"steps": 980}, {}, ["steps"]),
        ({"gradient_steps": 99}, {}, ["gradient_steps"]),
        ({"gradient_steps": 111}, {}, ["gradient_steps"]),
        ({"parameters": 51}, {}, ["parameters"]),
    ],
)
def test_unequal_work_is_told(ours: dict, theirs: dict, what: list[str]) -> None:
    row = rows.ROWS["A"]
    same = {"steps": 1000, "gradient_steps": 100, "parameters": 50}
    sides = {"pgrad eager": {"work": same | ours}, "sb3": {"work": same | theirs}}
    assert [line.split(":")[0] for line in compare.unequal(row, sides)] == what


def test_only_the_same_work_is_compared() -> None:
    sides = {"pgrad eager": {"work": {"steps": 1}}, "sb3": {"work": {"steps": 2}}}
    assert compare.unequal(rows.ROWS["B"], sides) == []


def test_the_table_shows_targets_reached_and_missed() -> None:
    found = {"pgrad eager": side_result([30.0]), "sb3": side_result([10.0])}
    result = {
        "title": "a row",
        "rounds": 1,
        "machine": {"cpu": "x", "cores": 4, "memory_gb": 23, "system": "Linux", "python": "3.11"},
        "sides": {name: compare.side_result(ones, None) for name, ones in found.items()},
        "ratios": compare.all_ratios(found),
        "targets": [compare.judged(rows.faster("pgrad eager", bound, "sb3"), found) for bound in (2.0, 5.0)],
        "failed": {"sbx": "no such module"},
        "unequal": [],
    }
    text = table.table({"A": json.loads(json.dumps(result))})
    assert "| A | pgrad eager: steps/s | ≥ 2× sb3 | 3.00× (3.00 … 3.00) | met |" in text
    assert "| A | pgrad eager: steps/s | ≥ 5× sb3 | 3.00× (3.00 … 3.00) | **missed** |" in text
    assert "| pgrad eager | 30 | 1.00 s | 3.0 s | 2.0 s | 50 MB | 3.00× (3.00 … 3.00) |" in text
    assert "sbx failed: no such module." in text


@pytest.mark.parametrize(("name", "side"), SIDES, ids=[f"{name}-{side.name}" for name, side in SIDES])
def test_rows_ask_for_what_there_is(name: str, side: work.Side) -> None:
    assert (Path(measure.SIDES) / f"{side.program}.py").is_file()
    json.dumps(dataclasses.asdict(side))
    if side.program == "on_pgrad":
        algorithm = ALGORITHMS[side.work.algorithm](**side.work.settings)
        algorithm.collects(side.work.n_envs)
        pg.AgentSpec(**side.agent)
        assert set(side.train) <= set(inspect.signature(pg.train).parameters)


@pytest.mark.parametrize("name", rows.ROWS)
def test_targets_name_sides_of_their_row(name: str) -> None:
    row = rows.ROWS[name]
    names = {side.name for side in row.sides}
    assert len(names) == len(row.sides)
    for target in row.targets:
        assert {target.side, target.peer or target.side} <= names
