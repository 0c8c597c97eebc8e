"""Learning curves: what is drawn is what metrics.csv says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrad.errors import CheckpointError, UsageError
from pgrad.report.plots import COLOURS, compare, learning_curve, mean_curve, points, thousands
from pgrad.report.statistics import bootstrap_interval
from pgrad.training.disk.log import MetricsLog

RETURN, EVAL = "rollout/ep_rew_mean", "eval/mean_reward"


def write(path: Path, rows: Sequence[tuple[int, dict[str, float]]]) -> Path:
    log = MetricsLog(path)
    for step, metrics in rows:
        log.write(step, metrics)
    log.close()
    return path


def lines(drawn: dict[str, Any]) -> list[list[list[float]]]:
    return [np.column_stack(line.get_data()).tolist() for line in drawn["axes"].get_lines()]


def labels(drawn: dict[str, Any]) -> list[str]:
    return [text.get_text() for text in drawn["axes"].get_legend().get_texts()]


def test_training_and_evaluations_are_drawn_where_they_happened(
    tmp_path: Path, drawn: dict[str, Any]
) -> None:
    rows = [
        (10, {}),
        (20, {RETURN: 1.5}),
        (30, {RETURN: 2.0, EVAL: 7.0}),
        (40, {RETURN: float("nan"), EVAL: 8.0}),
    ]
    picture = learning_curve(write(tmp_path / "m.csv", rows), tmp_path / "a" / "b.png", title="title")
    assert picture == tmp_path / "a" / "b.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert lines(drawn) == [[[20, 1.5], [30, 2.0]], [[30, 7.0], [40, 8.0]]]
    assert labels(drawn) == ["training, mean of the last 100 episodes", "evaluation, deterministic"]
    assert drawn["axes"].get_title(loc="left") == "title"
    assert drawn["axes"].get_xlim()[0] == 0


def test_a_run_in_which_no_episode_ended_says_so(tmp_path: Path, drawn: dict[str, Any]) -> None:
    learning_curve(write(tmp_path / "m.csv", [(1000, {"train/loss": 1.0}), (2000, {})]), tmp_path / "x.png")
    assert [text.get_text() for text in drawn["axes"].texts] == ["no episode ended in 2,000 steps"]
    learning_curve(write(tmp_path / "none.csv", []), tmp_path / "y.png")
    assert [text.get_text() for text in drawn["axes"].texts] == ["no episode ended in 0 steps"]


def test_imitation_is_drawn_by_what_it_learns(tmp_path: Path, drawn: dict[str, Any]) -> None:
    rows = [
        (10, {"train/accuracy": 0.5, "train/log_likelihood": -2.0}),
        (20, {"train/accuracy": 0.75, "held_out/accuracy": 0.7, "train/log_likelihood": -1.0}),
    ]
    path = write(tmp_path / "discrete.csv", rows)
    learning_curve(path, tmp_path / "x.png")
    assert lines(drawn) == [[[10, 0.5], [20, 0.75]], [[20, 0.7]]]
    assert labels(drawn) == ["training", "held out"]
    assert (drawn["axes"].get_ylabel(), drawn["axes"].get_xlabel()) == ("accuracy", "steps")
    assert list(drawn["axes"].texts) == []
    compare({"imitate": [path]}, tmp_path / "y.png")
    assert lines(drawn) == [[[10, 0.5], [20, 0.75]]]
    learning_curve(write(tmp_path / "box.csv", [(10, {"train/log_likelihood": -2.0})]), tmp_path / "x.png")
    assert lines(drawn) == [[[10, -2.0]]]
    assert drawn["axes"].get_ylabel() == "log-likelihood"
    learning_curve(write(tmp_path / "eval.csv", [(10, {EVAL: 3.0, **rows[0][1]})]), tmp_path / "x.png")
    assert lines(drawn) == [[[10, 3.0]]]  # what it earns says more


def test_runs_with_nothing_in_common_are_compared_by_what_one_has(
    tmp_path: Path, drawn: dict[str, Any]
) -> None:
    imitation = write(tmp_path / "a.csv", [(1, {"train/accuracy": 0.5})])
    reward = write(tmp_path / "b.csv", [(1, {RETURN: 2.0})])
    compare({"imitation": [imitation], "reward": [reward]}, tmp_path / "x.png")
    assert lines(drawn) == [[], [[1, 2.0]]]
    assert labels(drawn) == ["imitation (no values)", "reward"]


def test_texts_have_tokens_and_rewards(tmp_path: Path, drawn: dict[str, Any]) -> None:
    def names() -> tuple[str, str]:
        return drawn["axes"].get_xlabel(), drawn["axes"].get_ylabel()

    path = write(tmp_path / "m.csv", [(10, {RETURN: 0.5}), (20, {RETURN: 0.75, EVAL: 0.25})])
    learning_curve(path, tmp_path / "x.png", texts=True)
    assert names() == ("tokens", "reward")
    assert labels(drawn) == ["training, mean of a batch", "evaluation, greedy"]
    compare({"grpo": [path]}, tmp_path / "x.png", texts=True)
    assert names() == ("tokens", "reward (evaluation)")
    compare({"grpo": [path]}, tmp_path / "x.png")
    assert names() == ("steps", "episode return (evaluation)")
    compare({"grpo": [path]}, tmp_path / "x.png", labels=("questions", "grade"), texts=True)
    assert names() == ("questions", "grade")
    learning_curve(write(tmp_path / "none.csv", [(1000, {})]), tmp_path / "x.png", texts=True)
    assert [text.get_text() for text in drawn["axes"].texts] == ["no completion was judged in 1,000 tokens"]


@pytest.mark.parametrize(
    "names",
    [
        ["a very long name of settings=0.123 " * 8, "b" * 300],
        [f"ppo clip_range={k}" for k in range(40)],
    ],
    ids=["long", "many"],
)
def test_long_and_many_labels_stand_below_the_axes(
    tmp_path: Path, drawn: dict[str, Any], names: list[str]
) -> None:
    """Nothing is cut off and the axes keep their size."""
    path = write(tmp_path / "a.csv", [(1, {RETURN: 1.0}), (2, {RETURN: 2.0})])

    def size() -> tuple[float, float]:
        axes = drawn["axes"].get_window_extent()
        return float(axes.width), float(axes.height)

    compare({"short": [path]}, tmp_path / "x.png")
    usual = size()
    compare({name: [path] for name in names}, tmp_path / "y.png")
    assert size() == pytest.approx(usual, rel=0.1)
    assert drawn["axes"].get_legend() is None
    figure = drawn["axes"].figure
    (legend,) = figure.legends
    told, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= told.x0 < told.x1 <= whole.x1
    assert whole.y0 <= told.y0 < told.y1 < drawn["axes"].get_window_extent().y0
    texts = ["".join(text.get_text().split()) for text in legend.get_texts()]
    assert texts == ["".join(name.split()) for name in names]


def test_a_single_point_is_visible(tmp_path: Path, drawn: dict[str, Any]) -> None:
    learning_curve(write(tmp_path / "m.csv", [(10, {RETURN: 3.0})]), tmp_path / "x.png")
    assert drawn["axes"].get_lines()[0].get_marker() == "."


def test_several_seeds_are_thin_lines_and_their_mean(tmp_path: Path, drawn: dict[str, Any]) -> None:
    paths = [
        write(tmp_path / f"{seed}.csv", [(x, {RETURN: seed + 0.1 * x}) for x in range(10 * seed, 110, 10)])
        for seed in (1, 2, 3)
    ]
    single = write(tmp_path / "one.csv", [(5, {RETURN: 1.0}), (50, {RETURN: 2.0})])
    compare({"many": paths, "one": [single]}, tmp_path / "x.png")
    *thin, mean, alone = lines(drawn)
    assert thin == [[[x, pytest.approx(s + 0.1 * x)] for x in range(10 * s, 110, 10)] for s in (1, 2, 3)]
    steps, values = np.array(mean).T
    assert (steps[0], steps[-1]) == (30, 100)  # where all three have values
    np.testing.assert_allclose(values, 2 + 0.1 * steps)
    assert alone == [[5, 1.0], [50, 2.0]]
    assert labels(drawn) == ["many (mean of 3, 95% interval)", "one"]
    widths = [line.get_linewidth() for line in drawn["axes"].get_lines()]
    assert max(widths[:3]) < min(widths[3:])
    styles = {(line.get_color(), str(line.get_linestyle())) for line in drawn["axes"].get_lines()[3:]}
    assert len(styles) == 2


@settings(max_examples=12)
@given(st.lists(st.lists(st.floats(-100, 100), min_size=2, max_size=6), min_size=2, max_size=4))
def test_the_mean_is_that_of_the_interpolated_curves(values: list[list[float]]) -> None:
    curves = [(np.arange(len(v), dtype=np.float64), np.array(v)) for v in values]
    steps, mean, (low, high) = mean_curve(curves)
    assert steps[-1] == min(len(v) for v in values) - 1
    for k in (0, len(steps) // 3, len(steps) - 1):
        column = []
        for v in values:  # interpolation written out
            i = min(int(steps[k]), len(v) - 2)
            column.append(v[i] + (steps[k] - i) * (v[i + 1] - v[i]))
        assert mean[k] == pytest.approx(sum(column) / len(column), abs=1e-9)
        assert (low[k], high[k]) == pytest.approx(bootstrap_interval(column), abs=1e-9)


def test_curves_without_common_steps_have_no_mean(tmp_path: Path, drawn: dict[str, Any]) -> None:
    early = write(tmp_path / "a.csv", [(1, {RETURN: 1.0}), (2, {RETURN: 1.0})])
    late = write(tmp_path / "b.csv", [(5, {RETURN: 2.0}), (6, {RETURN: 2.0})])
    compare({"both": [early, late]}, tmp_path / "x.png")
    assert lines(drawn)[2] == []


def test_evaluations_are_compared_where_every_run_has_some(tmp_path: Path, drawn: dict[str, Any]) -> None:
    both = write(tmp_path / "a.csv", [(1, {RETURN: 1.0, EVAL: 10.0})])
    only = write(tmp_path / "b.csv", [(1, {RETURN: 2.0})])
    compare({"a": [both]}, tmp_path / "x.png")
    assert lines(drawn) == [[[1, 10.0]]]
    assert drawn["axes"].get_ylabel() == "episode return (evaluation)"
    compare({"a": [both], "b": [only]}, tmp_path / "x.png")
    assert lines(drawn) == [[[1, 1.0]], [[1, 2.0]]]
    compare({"a": [both], "b": [only]}, tmp_path / "x.png", metric=EVAL)
    assert labels(drawn) == ["a", "b (no values)"]


def test_a_metric_that_no_run_has_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [(1, {RETURN: 1.0})])
    with pytest.raises(
        UsageError, match=r"^no run has a number for 'train/x'; there are: .*rollout/ep_rew_mean"
    ):
        compare({"a": [path]}, tmp_path / "x.png", metric="train/x")


def test_pictures_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [(1, {RETURN: 1.0})])
    with pytest.raises(UsageError, match=r"cannot draw a picture named .*x\.mp4: end it with one of .*\.png"):
        learning_curve(path, tmp_path / "x.mp4")
    with pytest.raises(UsageError, match="cannot write the picture"):
        learning_curve(path, path / "x.png")
    with pytest.raises(CheckpointError, match="cannot read"):
        learning_curve(tmp_path / "missing.csv", tmp_path / "x.png")


def test_only_finite_values_are_points() -> None:
    columns = {"time/total_timesteps": [1.0, 2.0, 3.0], "x": [1.0, float("nan"), float("inf")]}
    steps, values = points(columns, "x")
    assert (steps.tolist(), values.tolist()) == ([1.0], [1.0])
    assert [len(part) for part in points(columns, "missing")] == [0, 0]


@pytest.mark.parametrize(
    ("steps", "text"), [(0, "0"), (500, "500"), (2000, "2k"), (2500, "2.5k"), (1e6, "1M"), (1.5e6, "1.5M")]
)
def test_steps_on_an_axis(steps: float, text: str) -> None:
    assert thousands(steps) == text


def test_colours_differ_to_the_colour_blind() -> None:
    """Viénot, Brettel & Mollon 1999: what a deuteranope sees, in linear RGB."""
    deuteranope = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ deuteranope.T, 0, 1) ** (1 / 2.2)
    assert min(np.linalg.norm(seen[i] - seen[j]) for i in range(len(seen)) for j in range(i)) > 0.1
