"""What cannot be read of a command line is told in one line: what it was, what is allowed, what is near."""

from pathlib import Path

import pytest

from pgrad.cli.unread import one_line
from tests.cli.tools import cli

ALL = "(pgrad train ppo --help shows all)"
UNREAD = {
    "--learning-rate abc": f"--learning-rate takes a number, got 'abc' {ALL}",
    "--lr=abc": f"--learning-rate takes a number, got 'abc' {ALL}",
    "--learning-rate 0,1": f"--learning-rate takes a number, got '0,1' {ALL}",
    "--n-envs 2.5": f"--n-envs takes a whole number, got '2.5' {ALL}",
    "--seed 1.5 --n-envs 3": f"--seed takes a whole number, got '1.5' {ALL}",
    "--clip-range-vf x": f"--clip-range-vf takes a number or none, got 'x' {ALL}",
    "--net-arch 8 x --n-envs 3": f"--net-arch takes whole numbers, got '8 x' {ALL}",
    "--memory foo": "--memory cannot be 'foo' (there are: none, gru, lstm)",
    "--memory GRUU": "--memory cannot be 'GRUU': did you mean gru? (there are: none, gru, lstm)",
    "--sign-reward maybe": "--sign-reward cannot be 'maybe' (there are: ",
    "--seed": f"--seed needs a value {ALL}",
    "--seed --n-envs 3": f"--seed needs a value {ALL}",
    "--run-dir": f"--run-dir needs a value {ALL}",
    "--learn-std=yes": f"--learn-std takes no value, got 'yes' {ALL}",
    "--n-env 3": f"unknown option --n-env: did you mean --n-envs? {ALL}",
    "3": f"unexpected argument '3' {ALL}",
}


@pytest.mark.parametrize("options", UNREAD)
@pytest.mark.parametrize("columns", ["40", "200"])
def test_one_line(options: str, columns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However wide the terminal is, coloured or not; and nothing is written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", columns)
    answer = cli(f"train ppo cartpole {options}")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith(f"pgrad: error: {UNREAD[options]}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["play --episodes x", "eval --n-envs x", "bench ppo --seed x"])
def test_of_every_command(command: str) -> None:
    name, _, option = command.removesuffix(" x").rpartition(" ")
    expected = f"{option} takes a whole number, got 'x' (pgrad {name} --help shows all)"
    assert cli(command) == (2, "", f"pgrad: error: {expected}\n")


@pytest.mark.parametrize(
    ("frame", "end"), [("│{}│", "╰────╯"), ("|{}|", "+----+"), ("\x1b[31m│\x1b[0m{}\x1b[31m│\x1b[0m", "")]
)
def test_what_is_not_known_is_told_in_tyros_words(frame: str, end: str) -> None:
    """In one line too, whatever its box is drawn with."""
    said = (" The moon is       ", " in the wrong house ", " ────────── ", " For full helptext, see x ")
    box = "\n".join([end.replace("╰", "╭"), *(frame.format(line) for line in said), end])
    assert one_line(box, [], "(more)") == "The moon is in the wrong house (more)"


def test_help_stays_help() -> None:
    answer = cli("train ppo --help")
    assert (answer.code, answer.err) == (0, "")
    assert "--learning-rate" in answer.out
