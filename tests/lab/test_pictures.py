"""The laboratory's pictures show what they say, in axes that fit, the same every time."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgrad import drawing
from pgrad.errors import UsageError
from pgrad.lab import Case, Claim, Measured, Verdict, random_case, reference
from pgrad.lab.claims import CHAPTERS, CLAIMS
from pgrad.lab.pictures import PICTURES, draw, draw_glance, draw_named, figure, kl, language, strip, style
from pgrad.lab.pictures.baselines import variances
from pgrad.lab.problems import random_problems


def a_claim(measure: Callable[[Case], Measured], **changes: Any) -> Claim:
    texts = dict.fromkeys(["title", "statement", "equation", "source", "paper", "explanation"], "a")
    claim = Claim(id="X-1", verdict=Verdict.TRUE, measure=measure, **texts)
    return replace(claim, **changes)


def numbered(*values: float) -> Claim:
    """A claim that measures one value after the other."""
    left = list(values)
    return a_claim(lambda case: Measured(True, True, {"number": left.pop(0) if len(left) > 1 else left[0]}))


def data(axes: Any, k: int) -> tuple[list[float], list[float]]:
    x, y = axes.get_lines()[k].get_data()
    return [float(v) for v in x], [float(v) for v in y]


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


@pytest.fixture(scope="module", params=PICTURES)
def named(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, PICTURES[request.param](reference())


def test_named_pictures_are_drawn(named: tuple[str, Any], tmp_path: Path) -> None:
    path = drawing.save(named[1], tmp_path / "new" / f"{named[0]}.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000
    width, height = named[1].get_size_inches()
    assert width == style.WIDTH
    assert 1 < height < 8


def test_letters_are_large_enough_and_inside(named: tuple[str, Any], tmp_path: Path) -> None:
    picture = named[1]
    drawing.save(picture, tmp_path / "first.png")  # the layout is found while it is drawn
    picture.canvas.draw()
    drawn, (width, height) = picture.get_tightbbox(), picture.get_size_inches()
    assert min(drawn.x0, drawn.y0) > -0.01
    assert drawn.x1 < width + 0.01
    assert drawn.y1 < height + 0.01
    for axes in picture.axes:
        labels = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        labels += [*axes.get_xticklabels(), *axes.get_yticklabels()]
        assert min(label.get_fontsize() for label in labels) >= style.SMALL


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("seed", [3, 101])
def test_named_pictures_of_other_problems(name: str, seed: int, tmp_path: Path) -> None:
    case = random_case(seed, n_states=3, n_actions=2 + seed % 2, n_terminal=seed % 2)
    assert draw_named(name, case, tmp_path / "x.png").exists()


def test_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    for name in ("kl", "gae"):
        first, second = (draw_named(name, reference(), tmp_path / f"{k}.png").read_bytes() for k in range(2))
        assert first == second


def test_every_claim_names_a_picture_that_there_is() -> None:
    assert {claim.picture for claim in CLAIMS.values() if claim.picture} <= set(PICTURES)


def test_variance_by_baseline() -> None:
    found = variances(reference())
    assert {name: round(x, 4) for name, x in found.items()} == {
        "none": 2.8095,
        "mean return": 2.6142,
        "V": 2.9201,
        "b* of one step": 1.8475,
        "b* of all steps": 1.7540,
    }


def test_gae_has_no_bias_with_the_exact_critic_nor_at_one() -> None:
    left, right = PICTURES["gae"](reference()).axes
    assert max(data(left, 0)[1]) < 1e-9
    for k in (1, 2):
        x, bias = data(left, k)
        assert x[-1] == 1.0
        assert bias[-1] < 1e-9 < bias[0]
    assert texts(right) == ["V = 0", "exact V", "V + error"]


def test_importance_weights_cost_what_the_audit_says() -> None:
    left, right = PICTURES["importance"](reference()).axes
    at_one = [data(left, k)[1][-1] for k in range(6)]
    assert [float(f"{x:.3g}") for x in at_one] == [
        134.0,
        55.7,
        24.8,
        8.86,
        4.71,
        pytest.approx(3.07, abs=0.05),
    ]
    assert [data(right, k)[1][0] for k in range(4)] == pytest.approx([1, 1, 1, 1])
    assert data(right, 0)[1][-1] == pytest.approx(0.3039, abs=5e-5)


def test_long_episodes_leave_few_samples() -> None:
    _, right = PICTURES["horizon"](reference()).axes
    T, whole = data(right, 0)
    assert T == [1, 2, 3, 4, 5, 6]
    assert whole == sorted(whole, reverse=True)
    assert [data(right, k)[1][0] for k in range(4)] == pytest.approx([whole[0]] * 4)


def test_surrogates_touch_at_zero_and_part_further_off() -> None:
    left, right = PICTURES["landscape"](reference()).axes
    for axes in (left, right):
        x, J = data(axes, 0)
        near = min(range(len(x)), key=lambda k: abs(x[k]))
        for k in (1, 2):
            assert data(axes, k)[1][near] == pytest.approx(J[near], abs=2e-3)
        assert all(a <= b + 1e-12 for a, b in zip(data(axes, 2)[1], data(axes, 1)[1], strict=True))
    J, cpi = data(right, 0)[1], data(right, 1)[1]
    assert right.get_title(loc="left") == "a random problem, chosen"
    fallen = [b < a and d > c for a, b, c, d in zip(J, J[1:], cpi, cpi[1:], strict=False)]
    assert sum(fallen) > 20


def test_the_ratio_escapes_to_two_point_eight() -> None:
    (axes,) = PICTURES["escape"](reference()).axes
    assert data(axes, 0)[1][-1] == pytest.approx(2.80, abs=5e-3)
    assert data(axes, 1)[1][-1] == pytest.approx(0.80, abs=5e-3)


def test_the_chain_gets_worse_where_its_surrogate_is_best() -> None:
    (axes,) = PICTURES["monotone"](reference()).axes
    p, J = data(axes, 0)
    assert pytest.approx(J, abs=1e-9) == [x - 1.8 * x**4 for x in p]
    clip = data(axes, 2)[1]
    assert p[clip.index(max(clip))] == pytest.approx(0.6)
    assert any("J = 0.3667" in text for text in texts(axes))
    assert all(text.arrow_patch is not None for text in axes.texts)


def test_inner_steps_end_where_nothing_is_left_to_climb() -> None:
    left, right = PICTURES["inner_epochs"](reference()).axes
    angles = data(left, 0)[1]
    assert angles[0] == pytest.approx(0, abs=1e-4)
    assert len(angles) < 41 == len(data(right, 0)[1])
    assert len(texts(right)) == 4


def test_scatter_of_the_kl_estimators() -> None:
    values, true = kl.scatter()
    assert true == pytest.approx(0.245)
    assert float(values["k1"].mean()) == pytest.approx(true, abs=1e-4)
    assert float(values["k3"].mean()) == pytest.approx(true, abs=1e-4)
    assert float(values["k2"].mean()) == pytest.approx(true + true**2 / 2, abs=1e-4)
    assert float(values["k1"].std()) == pytest.approx(0.7, abs=1e-3)


def test_weight_of_a_prompt_is_the_audits() -> None:
    q = torch.tensor([0.5, 0.9, 0.99], dtype=torch.float64)
    scaled = language.weight_of_prompt(q, language.scaled)
    assert [round(float(x), 3) for x in scaled] == pytest.approx([1.856, 2.328, 2.609], abs=1.5e-3)
    assert language.weight_of_prompt(q, language.without_itself).tolist() == pytest.approx([1, 1, 1])
    assert language.weight_of_prompt(q, language.centred).tolist() == pytest.approx([7 / 8] * 3)


def test_no_curve_of_difficulty_is_cut() -> None:
    (axes,) = PICTURES["difficulty"](reference()).axes
    assert max(max(data(axes, k)[1]) for k in range(4)) < axes.get_ylim()[1]
    assert data(axes, 0)[0][-1] == axes.get_xlim()[1]


def test_only_a_constant_keeps_the_direction() -> None:
    (axes,) = PICTURES["averaging"](reference()).axes
    angles = [data(axes, k)[0] for k in range(6)]  # random ones and the uniform policy, by average
    assert max(angles[0] + angles[1]) < 1e-4
    assert min(angles[2] + angles[3]) > 0.1
    assert min(angles[4] + angles[5]) > 0.1


def test_a_strip_fills_what_holds() -> None:
    claim = a_claim(
        lambda case: Measured(case.seed is None, True, {"steps": case.steps, "other": 0.0}),
        verdict=Verdict.FALSE,
        always=False,
    )
    (axes,) = figure(claim, reference()).axes
    lines = axes.get_lines()
    assert len(lines) == 21
    assert lines[0].get_marker() == "D"
    assert lines[0].get_markerfacecolor() != "white"
    assert all(line.get_markerfacecolor() == "white" for line in lines[1:])
    assert axes.get_title(loc="left") == "X-1  FALSE: as it stands it fails on some problems (hollow)"
    assert axes.get_xlabel().startswith("steps")
    assert [data(axes, k)[0][0] for k in range(21)] == [4.0, *(case.steps for case in random_problems())]


def test_a_strip_of_a_claim_that_does_not_fit() -> None:
    claim = a_claim(lambda case: Measured(True, True, {"n": 1.0}), fits=lambda case: case.seed is not None)
    (axes,) = figure(claim, reference()).axes
    assert len(axes.get_lines()) == 20
    assert "reference" not in axes.get_xlabel()


@pytest.mark.parametrize(
    ("verdict", "always", "said"),
    [
        (Verdict.TRUE, True, "TRUE: holds on every problem (filled)"),
        (Verdict.FALSE, True, "FALSE: as it stands it fails on every problem (hollow)"),
        (Verdict.TRUE_IF, False, "TRUE IF: as it stands it fails on some problems (hollow)"),
    ],
)
def test_what_a_verdict_expects(verdict: Verdict, always: bool, said: str) -> None:
    assert strip.expected(replace(numbered(1.0), verdict=verdict, always=always)) == said


@pytest.mark.parametrize(
    ("values", "scale", "tick"),
    [
        ([0.0], "linear", "< 1e-9"),
        ([1e-17, -1e-16], "linear", "< 1e-9"),
        ([0.5, 0.5 + 1e-9], "linear", "0.5"),
        ([1.0, 2.0, 30.0], "linear", None),
        ([0.0, 1.0, 2.0], "linear", None),
        ([1e-12, 1e-3, 1.0], "log", "< 1e-9"),
        ([1e-3, 1.0], "log", "0.01"),
        ([-1.0, 1.0, 2.0], "linear", None),
        ([1e4, -1.0, 2.0, 1.0], "symlog", None),
        ([1.0, math.inf, math.nan], "linear", "1"),
        ([math.nan], "linear", "no finite number"),
    ],
)
def test_the_axis_fits_the_numbers(values: list[float], scale: str, tick: str | None, tmp_path: Path) -> None:
    picture = strip.picture(numbered(*values), reference())
    (axes,) = picture.axes
    assert axes.get_xscale() == scale
    if tick is not None:
        assert tick in [label.get_text() for label in axes.get_xticklabels()]
    lost = sum(not math.isfinite(x) for x in values)
    assert ("not finite" in axes.get_xlabel()) == bool(lost)
    assert drawing.save(picture, tmp_path / "x.png").exists()
    low, high = axes.get_xlim()
    for line in axes.get_lines():
        x = float(line.get_xdata()[0])
        assert math.isnan(x) or math.isinf(x) or low <= x <= high


def test_draw_takes_the_named_picture_or_the_strip(tmp_path: Path) -> None:
    claim = numbered(1.0)
    assert draw(claim, reference(), tmp_path / "strip.png").exists()
    drawn = draw(replace(claim, picture="kl"), reference(), tmp_path / "kl.png")
    assert drawn.read_bytes() == draw_named("kl", reference(), tmp_path / "x.png").read_bytes()
    with pytest.raises(UsageError, match="no picture 'moon'; there are: baselines, gae"):
        draw(replace(claim, picture="moon"), reference(), tmp_path / "moon.png")


def test_bad_paths_are_one_clear_line(tmp_path: Path) -> None:
    claim = numbered(1.0)
    with pytest.raises(UsageError, match=r"end it with one of \."):
        draw(claim, reference(), tmp_path / "x.doc")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write the picture"):
        draw(claim, reference(), tmp_path / "file" / "x.png")


def test_other_kinds_of_files(tmp_path: Path) -> None:
    for kind in ("pdf", "svg"):
        assert draw(numbered(1.0), reference(), tmp_path / f"x.{kind}").stat().st_size > 1000


def test_all_claims_at_a_glance(tmp_path: Path) -> None:
    chapters = {
        "one": tuple(replace(numbered(1.0), id=f"X-{k}") for k in range(7)),
        "none": (),
        "two": (numbered(1.0),),
    }
    picture = strip.glance(chapters)
    (axes,) = picture.axes
    shown = texts(axes)
    assert {"one", "two", *(f"X-{k}" for k in range(7))} <= set(shown)
    assert "none" not in shown
    assert len(axes.get_lines()) == 8 * 21 + 4
    assert draw_glance(chapters, tmp_path / "x.png").exists()


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_columns_hold_everything_in_order(sizes: list[int]) -> None:
    claim = numbered(1.0)
    chapters = {f"c{k}": (claim,) * n for k, n in enumerate(sizes)}
    columns = strip._columns(chapters)
    flat = [line for column in columns for line in column]
    assert flat == [line for name, claims in chapters.items() for line in (name, *claims)]
    assert not any(isinstance(column[-1], str) for column in columns if column)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(0.01, 0.2))
def test_names_are_apart(heights: list[float], gap: float) -> None:
    heights = sorted(heights)
    places = style._apart(heights, gap)
    assert len(places) == len(heights)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(places))
    assert sum(places) == pytest.approx(sum(heights))
    if all(b - a >= gap for a, b in pairwise(heights)):
        assert places == pytest.approx(heights)


def test_random_problems_are_of_every_kind() -> None:
    cases = list(random_problems())
    assert len(cases) == 20
    assert any(bool(case.problem.terminal.any()) for case in cases)  # type: ignore[union-attr]
    assert any(case.problem.n_observations < case.problem.n_states for case in cases)
    assert all(case.steps == 2 for case in random_problems(lambda case: case.steps == 2, 3))


def test_the_real_claims_have_a_strip_each_of_the_chapters() -> None:
    for claims in CHAPTERS.values():
        for claim in claims[:1]:
            (axes,) = strip.picture(claim, reference()).axes
            assert len(axes.get_lines()) == 20 + claim.fits(reference())
