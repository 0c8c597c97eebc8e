"""The chapter in docs says what the claims say, in both languages, and looks the same on every machine."""

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pgrad.errors import UsageError
from pgrad.lab.chapter import (
    FILES,
    PICTURES_IN,
    chapter,
    check,
    draw,
    escaped,
    measure,
    printed,
    words,
    write,
)
from pgrad.lab.claim import Claim, Measured, Verdict
from pgrad.lab.claims import CHAPTERS, CLAIMS

DOCS = Path(__file__).parents[2] / "docs"
LANGUAGES = tuple(FILES)


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    found = measure()
    return {language: chapter(words(language), found) for language in LANGUAGES}


def a_claim(**changes: object) -> Claim:
    claim = Claim(
        id="X-1",
        title="a title",
        statement="a* statement",
        verdict=Verdict.FALSE,
        measure=lambda case: Measured(False, True, {"rel. error": 0.25, "tiny": 1e-12}),
        equation="x = y",
        source="000:1",
        paper="Nobody 1900",
        explanation="because",
        correction="this",
        audit={"rel. error": ".2500", "tiny": "<1e-9"},
    )
    return replace(claim, **changes)  # type: ignore[arg-type]


def told(claim: Claim) -> str:
    chapters = {"objective": (claim,)}
    return chapter(words("english"), measure(chapters), chapters)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_committed_chapter_is_the_generated_one(texts: dict[str, str], language: str) -> None:
    path = DOCS / FILES[language]
    assert path.exists(), "python -m pgrad.lab.chapter docs"
    assert path.read_text(encoding="utf-8") == texts[language], "python -m pgrad.lab.chapter docs"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_chapter_has_its_pictures(texts: dict[str, str], language: str) -> None:
    named = re.findall(r"^!\[.*\]\((.*)\)$", texts[language], re.MULTILINE)
    assert len(named) == len(set(named)) == len({x.picture for x in CLAIMS.values() if x.picture}) + 1
    for name in named:
        assert (DOCS / name).stat().st_size > 5_000


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_claim_is_told_once_and_every_link_leads_somewhere(
    texts: dict[str, str], language: str
) -> None:
    text = texts[language]
    anchors = re.findall(r'<a id="(.*?)"></a>', text)
    assert len(anchors) == len(set(anchors))
    assert {name.lower() for name in CLAIMS} <= set(anchors)
    assert set(re.findall(r"\]\(#(.*?)\)", text)) <= set(anchors)
    for name in CLAIMS:
        assert len(re.findall(rf"^### {re.escape(name)} · ", text, re.MULTILINE)) == 1


def test_both_languages_have_the_same_words_and_chapters() -> None:
    english, chinese = (words(language).chapter for language in LANGUAGES)
    assert {*english, "phrases"} == set(chinese)
    for table in ("summary", "differences", "labels", "chapters", "pictures"):
        assert english[table].keys() == chinese[table].keys()
    for name, entry in english["chapters"].items():
        assert entry.keys() == chinese["chapters"][name].keys() == {"short", "heading", "text"}
    assert list(english["chapters"]) == list(CHAPTERS)


def test_chinese_tells_no_claim_that_is_none() -> None:
    assert set(words("chinese").claims) <= set(CLAIMS)


def test_both_languages_show_the_same_numbers(texts: dict[str, str]) -> None:
    english, chinese = (re.findall(r"\| (−?[\d.]+(?:e−?\d+)?) \|", texts[x]) for x in LANGUAGES)
    assert english == chinese
    assert len(english) > 3 * len(CLAIMS)


def test_the_example_in_the_chapter_runs(texts: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    codes = [re.findall(r"```python\n(.*?)```", text, re.DOTALL) for text in texts.values()]
    assert codes[0] == codes[1]
    assert len(codes[0]) == 1
    exec(codes[0][0], {})
    printed_grade = capsys.readouterr().out
    assert "the reference problem" in printed_grade
    assert printed_grade.splitlines()[-1].startswith("biased")


def test_a_missing_translation_is_named() -> None:
    chinese = words("chinese")
    with pytest.raises(UsageError, match=r"X-1 title: a title\n(.*\n)*X-1 explanation: because"):
        check(chinese, {"objective": (a_claim(),)})
    odd = a_claim(differs={"rel. error": "an odd reason"}, needs="odd problems", source="an odd place")
    with pytest.raises(UsageError, match=r"an odd reason\n(.*\n)*.*odd problems\n(.*\n)*.*an odd place"):
        check(chinese, {"objective": (odd,)})
    with pytest.raises(UsageError, match="a caption for nothing"):
        check(words("english"), {"objective": (a_claim(picture="nothing"),)})


def test_what_is_said_of_a_claim() -> None:
    text = told(a_claim(also=("Y-2",), needs="two hands"))
    assert "### X-1 · a title · FALSE\n" in text
    assert "> a\\* statement\n" in text
    assert "```text\nx = y\n```" in text
    assert "**Instead:** this" in text
    assert "| rel. error | 0.25 | 0.2500 |\n| tiny | 0 | \\< 1e−9 |" in text
    assert "<sub>Source: 000:1 · Paper: Nobody 1900 · Also answers: Y-2 · Tried on: two hands</sub>" in text
    assert "1 claims: 0 are true, 1 are false, and 0 are true under a condition." in text
    assert "differences" not in text.split("### X-1")[1]
    assert "**Condition:** this" in told(a_claim(verdict=Verdict.TRUE_IF))
    assert "| number | here |\n|---|---:|\n| rel. error | 0.25 |\n" in told(a_claim(audit={}))


def test_an_example_of_its_own_is_marked() -> None:
    mark = " · The numbers are of an example of its own, not of the reference problem</sub>"
    assert mark in told(a_claim(own=True))
    assert mark not in told(a_claim())


@pytest.mark.parametrize("name", CLAIMS)
def test_what_is_not_all_symbols_is_translated(name: str) -> None:
    """No English word is left in a Chinese equation, and a translated one has the same signs and digits."""

    def signs(text: str) -> Counter[str]:
        return Counter(x for x in text if not (x.isalpha() or x.isspace() or x in ",;:?，；：？（）、"))

    equation = words("chinese").of(CLAIMS[name], "equation")
    english = (
        r"\b(for|with|over|of|the|as|under|wherever|where|to|against|only|at|after|and|per|unless|is|so)\b"
    )
    assert re.findall(english, equation) == []
    assert signs(equation) == signs(CLAIMS[name].equation)


def test_differences_are_listed_by_reason() -> None:
    text = told(
        a_claim(
            audit={"rel. error": ".3", "tiny": "1e-3"}, differs=dict.fromkeys(["rel. error", "tiny"], "why")
        )
    )
    assert "| rel. error | 0.25 | 0.3 [≠](#differences) |" in text
    assert "- [X-1](#x-1) *rel. error*: 0.25 (audit 0.3); *tiny*: 0 (audit 1e−3). Why.\n" in text


def test_a_claim_that_does_not_fit_has_no_numbers() -> None:
    text = told(a_claim(fits=lambda case: False))
    assert "rel. error |" not in text.split("### X-1")[1]


@pytest.mark.parametrize(
    ("x", "beside", "expected"),
    [
        (0.24471541, "", "0.2447"),
        (0.24471541, ".244715", "0.244715"),
        (9e-10, "", "0"),
        (-1.1e-9, "", "−1.1e−9"),
        (0.091, "9.1e-2", "0.091"),
        (134.0569, "134.1", "134.1"),
        (3300000.0, "3.3e6", "3.3e6"),
        (1.00005, "1.0000", "1.0001"),
        (-0.5, "", "−0.5"),
        (float("nan"), "", "–"),
        (float("inf"), "", "∞"),
        (float("-inf"), "", "−∞"),
    ],
)
def test_numbers_are_printed_alike(x: float, beside: str, expected: str) -> None:
    assert printed(x, beside) == expected


def test_ties_fall_the_same_way() -> None:
    for tie in (0.10005, 2.0015, 31.415, 0.00012345):
        assert printed(tie * (1 - 1e-13), "11111") == printed(tie * (1 + 1e-13), "11111")
        assert printed(tie * (1 - 1e-13)) == printed(tie * (1 + 1e-13))


def test_markdown_is_escaped_but_not_in_code() -> None:
    assert escaped("E[x_t]*y < z|w~") == r"E\[x\_t]\*y \< z\|w\~"
    assert escaped("a_b `a_b` a_b") == r"a\_b `a_b` a\_b"


def test_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: dict[str, str]) -> None:
    monkeypatch.setattr("pgrad.lab.chapter.measure", dict)
    monkeypatch.setattr("pgrad.lab.chapter.chapter", lambda words, found: texts[words.language])
    write(tmp_path / "new", pictures=False)
    for language, name in FILES.items():
        assert (tmp_path / "new" / name).read_text(encoding="utf-8") == texts[language]


def test_pictures_are_drawn_once_each(tmp_path: Path) -> None:
    twice = {"kl": (a_claim(picture="kl"), a_claim(id="X-2", picture="kl"))}
    drawn = list(draw(tmp_path, twice))
    assert [path.name for path in drawn] == ["claims.png", "kl.png"]
    assert all(path.stat().st_size > 5_000 for path in drawn)
    assert PICTURES_IN == "laboratory"


def test_a_claim_told_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "chinese"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.toml").write_text('["X-1"]\ntitle = "t"\n')
    monkeypatch.setattr("pgrad.lab.chapter.HERE", tmp_path)
    with pytest.raises(UsageError, match="X-1 is told twice"):
        words("chinese")
    (folder / "b.toml").write_text("[")
    with pytest.raises(UsageError, match="cannot read"):
        words("chinese")


def test_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pgrad.lab.chapter"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "--text" in helped.stdout
