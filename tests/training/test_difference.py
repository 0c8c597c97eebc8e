"""What changed between two configurations, for programs and for people."""

from pathlib import Path

from pgrad.training.disk.difference import ABSENT, config_difference, difference_text


def test_settings_are_compared_as_json_keeps_them() -> None:
    saved = {
        "a": {"x": 1, "layers": [64, 64], "old": 3},
        "nan": float("nan"),
        "flag": True,
        "f": 1.0,
        "e": {},
    }
    given = {"a": {"x": 2, "layers": (64, 64), "new": None}, "nan": float("nan"), "flag": 1, "f": 1, "e": {}}
    assert config_difference(saved, given) == [
        ("a.new", ABSENT, None),
        ("a.old", 3, ABSENT),
        ("a.x", 1, 2),
        ("flag", True, 1),
    ]
    assert config_difference(saved, saved) == []
    assert config_difference({"e": {}}, {"e": {"k": 1}}) == [("e", {}, ABSENT), ("e.k", ABSENT, 1)]


def test_the_text_fits_a_screen() -> None:
    differences = config_difference({"n": 8, "clip": 0.2}, {"n": 16, "clip": 0.1, "name": "é" * 100})
    assert difference_text(Path("runs/x"), differences).splitlines() == [
        "runs/x was started with another configuration:",
        "  setting  saved      given",
        "  clip     0.2        0.1",
        "  n        8          16",
        '  name     (not set)  "éééééééééééééééééééééééé...',
        "Leave these out to continue the run as it was, or start a new run.",
    ]
    many = config_difference({}, {f"setting_{i:03}": i for i in range(100)})
    text = difference_text(Path("runs/x"), many).splitlines()
    assert len(text) <= 24
    assert text[-2] == "  and 85 more"
