"""`pgrad lab`: what it prints, what programs get, exit codes, and one line for whatever is wrong."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgrad.cli.commands import lab
from pgrad.errors import UsageError
from pgrad.lab import Case, Claim, Measured, Verdict
from pgrad.lab.claims import CLAIMS
from pgrad.lab.estimators import every_estimator
from tests.cli.tools import cli, start

GOOD: dict[str, Any] = {
    "P": [[[0.5, 0.5], [0.2, 0.8]], [[0.9, 0.1], [0.3, 0.7]]],
    "r": [[1, 0], [0, 2.0]],
    "rho0": [0.5, 0.5],
    "horizon": 3,
}


def measured(case: Case) -> Measured:
    return Measured(True, True, {"rel. error": 1.2345678e-12, "cosine": float("nan"), "far": 3.14159265})


def refuses(case: Case) -> Measured:
    if case.seed is not None:
        raise UsageError("the horizon is too long")
    return measured(case)


TRUTH = Claim(
    id="T-01",
    title="a title with [brackets] and :smile:",
    statement="What everybody says.",
    verdict=Verdict.TRUE,
    measure=measured,
    equation="E[x] = y",
    source="000:1",
    paper="Somebody 1999",
    explanation="Because it is so.",
    audit={"far": "3.14"},
    also=("E-71",),
)
LIE = replace(
    TRUTH,
    id="F-02",
    also=(),
    verdict=Verdict.FALSE,
    correction="It is not so.",
    measure=lambda case: Measured(False, True, {"far": 2.5}),
    differs={"far": "the audit rounds"},
)
IFFY = replace(
    LIE, id="I-03", verdict=Verdict.TRUE_IF, always=False, audit={}, differs={}, source="often said"
)
SHY = replace(TRUTH, id="S-04", also=("E-71",), measure=refuses)
OWN = replace(TRUTH, id="O-06", also=(), own=True)
PICKY = replace(TRUTH, id="P-05", also=(), fits=lambda case: case.seed is None, needs="the audit's numbers")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "CHAPTERS", {"first": (TRUTH, LIE), "second": (IFFY, SHY, PICKY)})


@pytest.fixture
def problem(here: Path) -> Path:
    path = here / "mine.json"
    path.write_text(json.dumps(GOOD))
    return path


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_whole_laboratory_confirms_every_claim() -> None:
    answer = cli("lab --json")
    assert (answer.code, answer.err) == (0, "")
    given = json.loads(answer.out)
    assert (given["problem"], given["gamma"]) == ("the reference problem", 0.9)
    assert [claim["id"] for claim in given["claims"]] == list(CLAIMS)
    for claim in given["claims"]:
        assert claim["confirmed"] is True, claim["id"]
        assert claim["holds"] is (claim["verdict"] == "TRUE"), claim["id"]
        assert set(claim["audit"]) <= set(claim["numbers"]), claim["id"]
        assert all(x is None or isinstance(x, float) for x in claim["numbers"].values()), claim["id"]


@pytest.mark.usefixtures("few")
class TestTable:
    def test_chapters_claims_verdicts_numbers_and_counts(self) -> None:
        answer = cli("lab")
        assert (answer.code, answer.err) == (0, "")
        lines = answer.out.splitlines()
        assert lines[0] == (
            "the reference problem: 3 states, 2 actions, 4 decisions, 1,296 trajectories, γ = 0.9"
        )
        order = ["FIRST", "T-01", "E-71", "F-02", "SECOND", "I-03", "S-04", "P-05"]
        places = [next(i for i, line in enumerate(lines) if name in line) for name in order]
        assert places == sorted(places)
        assert "a title with [brackets] and :smile:" in answer.out
        row = next(line for line in lines if "T-01" in line)
        assert "TRUE" in row
        assert "rel. error 0" in row
        assert "cosine –" in answer.out
        assert "far 3.1416 (3.14)" in answer.out
        assert "TRUE IF" in answer.out
        assert re.fullmatch(r"5 claims: 5 confirmed \(\d+\.\d s\)", lines[-1])

    def test_another_problem_says_what_cannot_be_tried(
        self, problem: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "200")
        answer = cli("lab --problem", problem, "--gamma", "0.5")
        assert answer.code == 0
        text = words(answer.out)
        assert answer.out.startswith("mine: 2 states, 2 actions, 3 decisions, 64 trajectories, γ = 0.5\n")
        assert "not on this problem: the horizon is too long" in text
        assert "needs the audit's numbers" in text
        assert "(3.14)" not in text
        assert "5 claims: 3 confirmed, 2 not tried" in text

    def test_the_audit_is_of_one_discount(self) -> None:
        answer = cli("lab --gamma 0.95")
        assert answer.code == 0
        assert "(3.14)" not in answer.out

    def test_a_random_problem(self) -> None:
        first, again, other = (cli(f"lab --random {seed} --json").out for seed in (5, 5, 6))
        assert first == again
        assert json.loads(first)["gamma"] != json.loads(other)["gamma"]
        assert json.loads(cli("lab --random 5 --gamma 0.7 --json").out)["gamma"] == 0.7

    @pytest.mark.parametrize(
        ("claim", "on_reference", "elsewhere"),
        [
            (replace(TRUTH, measure=lambda case: Measured(False, True, {})), 1, 1),
            (replace(TRUTH, measure=lambda case: Measured(True, False, {})), 1, 1),
            (replace(LIE, measure=measured), 1, 0),  # elsewhere it may hold
            (replace(IFFY, measure=measured), 1, 0),
            (replace(LIE, measure=lambda case: Measured(False, False, {})), 1, 1),
            (replace(LIE, measure=lambda case: Measured(True, False, {})), 1, 1),
            (PICKY, 0, 0),
            (replace(PICKY, fits=lambda case: False), 1, 0),  # must be tried
        ],
    )
    def test_a_verdict_that_must_be_confirmed_and_is_not(
        self, claim: Claim, on_reference: int, elsewhere: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lab, "CHAPTERS", {"only": (claim,)})
        assert cli("lab").code == on_reference
        assert cli("lab --json").code == on_reference
        answer = cli("lab --random 3")
        assert answer.code == elsewhere
        assert ("NOT CONFIRMED" in answer.out) == bool(elsewhere)
        (given,) = json.loads(cli("lab --random 3 --json").out)["claims"]
        assert (given["confirmed"] is False) == bool(elsewhere)

    @pytest.mark.parametrize("claim", [LIE, IFFY])
    def test_where_a_claim_that_is_not_true_happens_to_hold(
        self, claim: Claim, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lab, "CHAPTERS", {"only": (replace(claim, measure=measured),)})
        answer = cli("lab --random 3")
        assert "holds here" in answer.out
        assert "NOT CONFIRMED" not in answer.out
        assert "1 claims: 1 confirmed" in answer.out
        (given,) = json.loads(cli("lab --random 3 --json").out)["claims"]
        assert (given["holds"], given["confirmed"]) == (True, True)

    def test_an_exception_on_the_reference_problem_is_a_fault_of_ours_and_surfaces(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lab, "CHAPTERS", {"only": (replace(TRUTH, measure=lambda case: 1 / 0),)})
        with pytest.raises(ZeroDivisionError):
            cli("lab")

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            (ZeroDivisionError("division by zero"), "division by zero"),
            (RuntimeError("singular\nat line 3"), "singular"),
            (IndexError(), "IndexError"),
        ],
    )
    def test_an_exception_elsewhere_is_a_line_of_its_claim(
        self, fault: Exception, said: str, problem: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(case: Case) -> Measured:
            raise fault

        odd = replace(PICKY, fits=fails)
        monkeypatch.setattr(lab, "CHAPTERS", {"only": (replace(TRUTH, measure=fails), odd, LIE)})
        monkeypatch.setenv("COLUMNS", "200")
        for where in ("--gamma 0", "--random 3", f"--problem {problem}"):
            answer = cli(f"lab {where}")
            assert (answer.code, answer.err) == (0, "")
            assert answer.out.count(f"could not be measured here: {said}\n".rstrip()) == 2
            assert "3 claims: 1 confirmed, 2 not tried" in answer.out
            first, _, last = json.loads(cli(f"lab {where} --json").out)["claims"]
            assert first["not_tried"] == f"could not be measured here: {said}"
            assert last["confirmed"] is True

    def test_an_example_of_its_own_is_marked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lab, "CHAPTERS", {"only": (OWN, TRUTH)})
        for command in ("lab", "lab --random 3"):
            assert cli(command).out.count("own example") == 1
        assert "own example: not of the problem given" in words(cli("lab O-06 --random 3").out)
        given = json.loads(cli("lab --json").out)["claims"]
        assert [claim["own_example"] for claim in given] == [True, False]

    @pytest.mark.parametrize("width", [40, 60, 200])
    def test_fits_the_terminal(self, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", str(width))
        out = cli("lab").out
        assert max(map(len, out.splitlines())) <= width
        for verdict in ("TRUE", "FALSE", "TRUE IF"):
            assert verdict in out

    def test_colour_only_where_it_is_wanted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        colour = re.compile(r"\x1b\[[\d;]*3[123]m")
        assert "\x1b" not in cli("lab").out
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
        coloured = cli("lab")
        assert coloured.err == ""
        assert len(colour.findall(coloured.out)) >= 5
        monkeypatch.setenv("NO_COLOR", "1")
        assert not colour.search(cli("lab").out)


@pytest.mark.usefixtures("few")
class TestOneClaim:
    def test_everything_about_it(self) -> None:
        answer = cli("lab F-02 --out pictures")
        assert (answer.code, answer.err) == (0, "")
        text = words(answer.out)
        for part in (
            "F-02 a title with [brackets] and :smile:",
            "statement What everybody says.",
            "verdict FALSE",
            "instead It is not so.",
            "equation E[x] = y",
            "numbers far 2.5 (audit 3.14) differs: the audit rounds "
            "(audit: an earlier, independent reading of the notes) explanation",
            "explanation Because it is so.",
            "source 000:1 (notes, file:line)",
            "paper Somebody 1999",
            "picture pictures/F-02.png",
        ):
            assert part in text
        assert Path("pictures/F-02.png").read_bytes().startswith(b"\x89PNG")

    def test_what_has_no_notes_and_no_audit_explains_none(self, problem: Path) -> None:
        text = words(cli("lab I-03").out)
        assert "numbers far 2.5 explanation" in text
        assert "source often said paper" in text
        assert "numbers far 2.5 explanation" in words(cli("lab F-02 --problem", problem).out)

    def test_the_condition_of_one_that_is_true_if(self) -> None:
        assert "condition It is not so." in words(cli("lab I-03").out)

    @pytest.mark.parametrize("spelled", ["T-01", "t-01", "t1", "T_01", "T-1"])
    def test_spellings(self, spelled: str) -> None:
        answer = cli(f"lab {spelled} --json")
        assert [claim["id"] for claim in json.loads(answer.out)["claims"]] == ["T-01"]

    def test_another_id_stands_for_all_that_answer_it(self) -> None:
        found = json.loads(cli("lab e71 F-02 T-01 --json").out)["claims"]
        assert [claim["id"] for claim in found] == ["T-01", "S-04", "F-02"]

    @pytest.mark.parametrize(
        ("asked", "hint"),
        [
            ("F-20", ": did you mean F-02?"),
            ("E-72", ": did you mean E-71?"),
            ("zzz", ""),
            ("L-999", ""),
        ],
    )
    def test_an_unknown_one(self, asked: str, hint: str, here: Path) -> None:
        expected = f"pgrad: error: unknown claim '{asked}'{hint} (pgrad lab lists all)\n"
        assert cli(f"lab T-01 {asked}") == (2, "", expected)
        assert list(here.iterdir()) == []

    def test_one_that_cannot_be_tried_has_no_picture(self, problem: Path) -> None:
        answer = cli("lab P-05 --problem", problem)
        assert answer.code == 0
        assert "numbers needs the audit's numbers" in words(answer.out)
        assert "picture" not in answer.out
        assert not Path("runs").exists()

    def test_a_picture_that_fails_elsewhere_is_a_line(
        self, problem: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*args: object) -> Path:
            raise ZeroDivisionError("division by zero")

        monkeypatch.setattr("pgrad.lab.pictures.draw", fails)
        answer = cli("lab T-01 F-02 --problem", problem)
        assert answer.code == 0
        assert answer.out.count("picture      could not be drawn here: division by zero\n") == 2
        with pytest.raises(ZeroDivisionError):
            cli("lab T-01")

    def test_json_draws_nothing(self, here: Path) -> None:
        assert cli("lab T-01 --json").code == 0
        assert list(here.iterdir()) == []

    def test_a_folder_that_cannot_be_made(self, here: Path) -> None:
        (here / "file").write_text("years of work")
        answer = cli("lab T-01 --out file")
        assert (answer.code, answer.err) == (
            2,
            "pgrad: error: cannot write pictures to file: File exists\n",
        )
        assert (here / "file").read_text() == "years of work"


@pytest.mark.usefixtures("few")
def test_json_has_one_schema(problem: Path) -> None:
    keys = ["id", "also", "statement", "verdict", "correction", "holds", "confirmed", "own_example"]
    for command in ("lab --json", f"lab --json --problem {problem}"):
        answer = cli(command)
        assert (answer.code, answer.err) == (0, "")
        given = json.loads(answer.out, parse_constant=lambda x: pytest.fail(f"{x} is not JSON"))
        assert list(given) == ["problem", "gamma", "claims"]
        assert all(list(claim) == [*keys, "numbers", "audit", "not_tried"] for claim in given["claims"])
    truth, lie, _, shy, picky = given["claims"]
    assert truth["numbers"] == {"rel. error": 1.2345678e-12, "cosine": None, "far": 3.14159265}
    assert (truth["holds"], truth["confirmed"], truth["audit"], truth["also"]) == (True, True, {}, ["E-71"])
    assert (lie["holds"], lie["confirmed"], lie["verdict"]) == (False, True, "FALSE")
    assert (shy["holds"], shy["confirmed"], shy["numbers"]) == (None, None, {})
    assert shy["not_tried"] == "not on this problem: the horizon is too long"
    assert picky["not_tried"] == "needs the audit's numbers"


class TestEstimators:
    def test_tables(self, problem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a usual and of a narrow terminal, of numbers that are estimated once."""
        estimated = []

        def noted(*given: Any) -> Iterator[Any]:
            for group in every_estimator(*given):
                estimated.append(group)
                yield group

        monkeypatch.setattr(lab, "every_estimator", noted)
        answer = cli("lab estimators --problem", problem)
        assert (answer.code, answer.err) == (0, "")
        for name in ("A2C, V", "leave_one_out (RLOO)", "per-decision return", "k3, actions of π", "V-trace"):
            assert name in answer.out
        assert "bias, s = 1" in answer.out
        assert max(map(len, answer.out.splitlines())) <= 100
        monkeypatch.setattr(lab, "every_estimator", lambda *_: iter(estimated))
        monkeypatch.setenv("COLUMNS", "50")
        out = cli("lab estimators --problem", problem).out
        assert max(map(len, out.splitlines())) <= 50

    def test_json(self, problem: Path) -> None:
        answer = cli("lab estimators --json --off-policy 0 --gamma 0.8 --problem", problem)
        assert (answer.code, answer.err) == (0, "")
        given = json.loads(answer.out, parse_constant=lambda x: pytest.fail(f"{x} is not JSON"))
        assert list(given) == ["problem", "gamma", "off_policy", "groups"]
        assert (given["problem"], given["gamma"], given["off_policy"]) == ("mine", 0.8, 0.0)
        assert len(given["groups"]) == 9
        for group in given["groups"]:
            assert list(group) == ["title", "note", "estimators"]
            assert group["estimators"]
        assert given["groups"][4]["estimators"][0]["bias for KL(π‖μ)"] is None  # 0/0: the policies are one
        assert len(given["groups"][5]["estimators"][0]["bias"]) == 2

    @pytest.mark.parametrize("far", ["nan", "inf"])
    def test_a_distance_that_is_none(self, far: str) -> None:
        expected = f"pgrad: error: off_policy must be a finite number, got {far}\n"
        assert cli(f"lab estimators --off-policy {far}") == (2, "", expected)

    def test_it_comes_first(self) -> None:
        expected = "pgrad: error: estimators comes first: pgrad lab estimators, then options\n"
        assert cli("lab --json estimators") == (2, "", expected)


@pytest.mark.parametrize("command", ["lab --help", "lab estimators --help"])
def test_help(command: str) -> None:
    answer = cli(command)
    assert (answer.code, answer.err) == (0, "")
    for option in ("--problem FILE", "--random SEED", "--gamma", "--json"):
        assert option in answer.out
    assert ("--out" in answer.out) == ("--off-policy" not in answer.out)
    assert "pgrad lab estimators" in answer.out


BAD: dict[str, tuple[object, str]] = {
    "rows": (GOOD | {"P": [[[0.5, 0.6], [0.2, 0.8]], [[0.9, 0.1], [0.3, 0.7]]]}, "every row of P must be"),
    "negative": (GOOD | {"rho0": [1.5, -0.5]}, "every row of rho0 must be"),
    "shape": (GOOD | {"P": [[0.5, 0.5], [0.2, 0.8]]}, "P must have shape [S, A, S], got [2, 2]"),
    "ragged": (GOOD | {"P": [[[1.0], [0.2, 0.8]], [[0.9, 0.1], [0.3, 0.7]]]}, "P is not a table of numbers"),
    "rewards": (GOOD | {"r": [1, 0]}, "r must have shape [2, 2], got [2]"),
    "nan": (GOOD | {"r": [[float("nan"), 0], [0, 2]]}, "r has an entry that is NaN"),
    "infinite": (GOOD | {"r": [[float("inf"), 0], [0, 2]]}, ""),
    "words": (GOOD | {"r": "many"}, "r is not a table of numbers"),
    "nothing": (GOOD | {"P": None}, "P is not a table of numbers"),
    "no_horizon": ({key: GOOD[key] for key in ("P", "r", "rho0")}, "horizon"),
    "null_horizon": (GOOD | {"horizon": None}, "give the problem a horizon"),
    "zero_horizon": (GOOD | {"horizon": 0}, "horizon must be a whole number of at least 1, got 0"),
    "long_horizon": (GOOD | {"horizon": 10**6}, "too many to enumerate"),
    "half_horizon": (GOOD | {"horizon": 2.5}, "horizon must be a whole number"),
    "observation": (GOOD | {"observation": [0, 5]}, "observations must be numbered 0, 1, … without a gap"),
    "fraction": (GOOD | {"observation": [0, 0.5]}, "observation has an entry"),
    "ends_at_once": (GOOD | {"terminal": [False, True]}, "no episode may start in a terminal state"),
    "theta": (GOOD | {"theta": [[1, 2, 3], [1, 2, 3]]}, "theta must be finite numbers of shape [2, 2]"),
    "theta_nan": (GOOD | {"direction": [[1, float("nan")], [1, 2]]}, "direction must be finite numbers"),
    "unknown_key": (GOOD | {"rewards": [[1, 2], [3, 4]]}, "rewards"),
    "misspelt_key": ({"rho_0" if key == "rho0" else key: x for key, x in GOOD.items()}, "rho_0"),
    "a_list": ([1, 2], "got a list"),
    "no_gradient": (GOOD | {"r": [[1, 1], [1, 1]]}, "the gradient of J is zero"),
}


class TestBadProblems:
    @pytest.mark.parametrize("name", BAD)
    def test_one_line_and_nothing_written(self, name: str, here: Path) -> None:
        content, message = BAD[name]
        path = here / f"{name}.json"
        path.write_text(json.dumps(content))
        for command in ("lab", "lab estimators", "lab L-13 --json"):
            answer = cli(f"{command} --problem", path)
            assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), answer.err
            assert answer.err.startswith("pgrad: error: ")
            assert message in answer.err
        assert list(here.iterdir()) == [path]

    @pytest.mark.parametrize("content", [b"{'P': 1", b"", b"\xff\xfe\x00", b"P = 1"])
    def test_what_is_not_json(self, content: bytes, here: Path) -> None:
        (here / "x.json").write_bytes(content)
        answer = cli("lab --problem x.json")
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert answer.err.startswith("pgrad: error: the problem x.json is not JSON: ")

    def test_what_cannot_be_read(self, here: Path) -> None:
        (here / "folder").mkdir()
        expected = "pgrad: error: cannot read the problem {}: {}\n"
        assert cli("lab --problem folder") == (2, "", expected.format("folder", "Is a directory"))
        assert cli("lab --problem x.json") == (2, "", expected.format("x.json", "No such file or directory"))

    @pytest.mark.parametrize("gamma", ["1.5", "-0.1", "nan", "inf"])
    @pytest.mark.parametrize("what", ["", "--random 1", "--problem mine.json"])
    def test_a_discount_that_is_none(self, gamma: str, what: str, problem: Path) -> None:
        expected = f"pgrad: error: gamma must be in [0, 1], got {float(gamma)}\n"
        assert cli(f"lab {what} --gamma {gamma}") == (2, "", expected)

    def test_two_problems(self, problem: Path) -> None:
        expected = "pgrad: error: give --problem or --random, not both\n"
        assert cli("lab --random 1 --problem", problem) == (2, "", expected)

    @pytest.mark.parametrize("seed", ["-1", str(2**32)])
    def test_a_seed_that_is_none(self, seed: str) -> None:
        expected = f"pgrad: error: --random takes a seed from 0 to 2³² − 1, got {seed}\n"
        assert cli(f"lab --random {seed}") == (2, "", expected)

    def test_an_unknown_option(self) -> None:
        answer = cli("lab --gama 0.9")
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert "did you mean --gamma?" in answer.err


def test_a_process_without_colour_or_progress_in_its_pipe() -> None:
    with start("lab", "L-03", "--json", NO_COLOR="1") as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["claims"][0]["id"] == "L-03"
