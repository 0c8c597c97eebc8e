import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pgrad.errors import TrainingError, UsageError
from pgrad.worlds.language.builtin import Mathematics, Overlong, exact_match, regex
from pgrad.worlds.language.isolated import Isolated
from pgrad.worlds.language.load import load_reward
from pgrad.worlds.language.rewards import Rewards

REWARDS = """
import os, re, sys, time
from dataclasses import dataclass
import beside

@dataclass
class Point:
    x: int = beside.X

def where(completions, **_):
    print("this goes to standard error")
    return [float(os.getpid())] * len(completions)

def shows(prompts, completions, **columns):
    return [[prompts, completions, columns]]

def raises(completions, **_):
    raise ValueError("no", "good")

def dies(completions, **_):
    os._exit(3)

def backtracks(completions, **_):
    return [float(bool(re.fullmatch("(a+)+b", one))) for one in completions]

NUMBER = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("X = 5\n")
    path = tmp_path / "own_rewards.py"
    path.write_text(REWARDS)
    return path


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_exact_match() -> None:
    found = exact_match([" 4\n", chat("4"), "5", "x"], answer=["4", 4, "4", None])
    assert found == [1.0, 1.0, 0.0, None]


def test_overlong_is_dapos_equation_13() -> None:
    cost = Overlong(max_completion_length=10, cache=4)
    assert cost([[0] * n for n in (0, 6, 7, 8, 9, 10, 11, 50)]) == [0, 0, -0.25, -0.5, -0.75, -1, -1, -1]
    for cache in (0, 11):
        with pytest.raises(UsageError, match="between 1 and max_completion_length"):
            Overlong(10, cache)


def test_patterns_match_whole_completions_and_do_not_hold_up_the_run() -> None:
    tagged = regex(r"<think>.*</think>\s*\d+")
    texts: list[Any] = ["<think>\nso\n</think> 4\n", chat("<think></think>4"), "4", "<think>a</think> 4 x"]
    assert tagged(None, texts) == [1.0, 1.0, 0.0, 0.0]
    tagged.close()
    with pytest.raises(UsageError, match="not a regular expression"):
        regex("(")


def test_isolated_functions_see_everything_and_keep_their_process(file: Path) -> None:
    shows = Isolated(file, "shows", pattern="p")
    assert shows(["q"], ["c"], answer=[{"a": (1, None)}]) == [
        [["q"], ["c"], {"answer": [{"a": (1, None)}], "pattern": "p"}]
    ]
    shows.close()
    where = Isolated(file, "where")
    (first,), (again,) = where(None, ["a"]), where(None, ["a"])
    assert first == again != os.getpid()
    where.close()
    assert not Path(f"/proc/{int(first)}").exists()
    assert where(None, ["a"])[0] != first
    where.close()


def test_isolated_functions_that_fail_are_told_and_started_again(file: Path) -> None:
    for name, words in (
        ("raises", r"ValueError: \('no', 'good'\)"),
        ("dies", r"process of dies died \(exit code 3\)"),
        ("nothing", "has no attribute 'nothing'"),
    ):
        one = Isolated(file, name)
        for _ in range(2):
            with pytest.raises(TrainingError, match=words):
                one(None, ["a"])
        one.close()


def test_a_hang_in_c_code_is_killed(file: Path) -> None:
    """`re` holds Python's lock while it matches: no thread could wait for it with a time-out."""
    isolated = Isolated(file, "backtracks", timeout=1.0)
    rewards = Rewards(isolated, timeout=20.0)
    began = time.monotonic()
    found = rewards.score([""] * 3, ["aab", "a" * 60, "c"], [[]] * 3, {})
    assert time.monotonic() - began < 15
    assert found.total.nan_to_num(-1.0).tolist() == [1.0, -1.0, 0.0]
    assert "no answer within" in found.failures[0].error
    rewards.close()


def test_processes_end_with_who_asked(file: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pgrad.worlds.language.isolated import Isolated\n"
        f"one = Isolated(Path({str(file)!r}), 'where'); print(int(one(None, ['a'])[0]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50
    )
    assert "this goes to standard error" in done.stderr
    assert not Path(f"/proc/{int(done.stdout)}").exists()


def test_mathematics_compares_values() -> None:
    pytest.importorskip("math_verify")
    judge = Mathematics()
    texts = ["so $\\boxed{\\frac{1}{2}}$", "it is 0.5", chat("$x^2+2x+1$"), "no idea", "72", "3"]
    answers = ["1/2", "\\frac12", "(x+1)^2", "3", "36 · 2 = 72\n#### 72", None]
    assert judge(completions=texts, answer=answers) == [1.0, 1.0, 1.0, 0.0, 1.0, None]
    judge.close()
    rewards = Rewards(load_reward("math:solution"))
    assert rewards.names == ["math"]
    rewards.require(["solution"])
    with pytest.raises(UsageError, match="reward math needs a column 'solution'"):
        rewards.require(["answer"])


def test_rewards_by_name(file: Path) -> None:
    assert load_reward("exact-match") is exact_match
    assert load_reward("length:2", 4)(completion_ids=[[1] * 3]) == [-0.5]
    pattern = load_reward("regex:a:b.py?")
    assert pattern(None, ["a:b.p", "a"]) == [1.0, 0.0]
    pattern.close()
    assert load_reward(f"{file}:where")(completions=["a"]) == [float(os.getpid())]
    assert load_reward(f"{file}:Point")().x == 5  # what lies beside the file is found


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("exact_match", "did you mean exact-match"),
        ("length:x", "whole number"),
        ("length:9", "between 1 and"),
        ("own_rewards.py", "which function of .*own_rewards.py:NAME .*where, shows, raises"),
        ("own_rewards.py:", "which function"),
        ("own_rewards.py:wher", "no function 'wher': did you mean where"),
        ("own_rewards.py:NUMBER", "is a int, not a function"),
        ("own_reward.py:where", "there is no file .*did you mean own_rewards.py"),
        ("syntax.py:f", "syntax.py, line 2, cannot be imported: SyntaxError"),
        ("raises.py:f", "raises.py, line 3, cannot be imported: ZeroDivisionError"),
        ("exits.py:f", "exits.py, line 2, cannot be imported: SystemExit"),
    ],
)
def test_bad_names(spec: str, words: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    Path("syntax.py").write_text("\ndef f(:\n")
    Path("raises.py").write_text("\n\nx = 1 / 0\n")
    Path("exits.py").write_text("import sys\nsys.exit(2)\n")
    with pytest.raises(UsageError, match=words):
        load_reward(spec, 4)
