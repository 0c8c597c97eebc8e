"""Help: what a person reads before the first run."""

import dataclasses
import re
from typing import Any

import pytest

import pgrad as pg
from pgrad.algorithms import ALGORITHMS
from pgrad.algorithms.usual import both
from pgrad.cli import COMMANDS
from pgrad.run.config import RunOptions, default_spec
from tests.cli.tools import cli


def plain(text: str) -> str:
    """Help without boxes and line breaks."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", text)


@pytest.mark.parametrize("command", ["", "-h", "--help", "help"])
def test_bare_and_help_name_every_command(command: str) -> None:
    answer = cli(command)
    assert (answer.code, answer.err) == (0, "")
    for name, what in COMMANDS.items():
        assert re.search(rf"^  {name} +{what}$", answer.out, re.MULTILINE)


def test_version() -> None:
    assert cli("--version") == (0, f"pgrad {pg.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    answer = cli(f"{command} --help")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"usage: pgrad {command}")


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("train grpo p.jsonl --help", "train grpo [-h] [OPTIONS] PROMPTS"),
        ("train ppo cartpole -h --seed 1", "train ppo [-h] [OPTIONS] WORLD"),
        ("eval runs/x --help", "eval [-h] [OPTIONS] DIR"),
    ],
)
def test_help_names_what_must_be_given_though_it_is(command: str, usage: str) -> None:
    answer = cli(command)
    assert (answer.code, answer.out.splitlines()[0]) == (0, f"usage: pgrad {usage}")
    assert "(required)" in answer.out


def test_bare_help_names_the_algorithms_of_both_ends() -> None:
    assert "from REINFORCE to PPO, TRPO, SAC and GRPO.\n" in cli("").out


def test_the_budget_is_said_to_be_rounded_up() -> None:
    assert "over all environments; rounded up to whole windows" in plain(cli("train ppo --help").out)


def test_help_on_training_names_every_algorithm() -> None:
    out = cli("train --help").out
    for name, algorithm in ALGORITHMS.items():
        line = next(line for line in out.splitlines() if line.startswith(f"  {name} "))
        assert len(line.split()) > 4, algorithm


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_field_is_an_option_with_words_and_its_default(name: str) -> None:
    answer = cli(f"train {name} --help")
    assert (answer.code, answer.err) == (0, "")
    text = plain(answer.out)
    algorithm: Any = ALGORITHMS[name]()
    for source in (algorithm, RunOptions(), default_spec(algorithm)):
        for field in dataclasses.fields(source):
            option = "--" + field.name.replace("_", "-")
            found = re.search(rf"{option},? .*?\(default: (.*?)\)", text)
            assert found, option
            default = getattr(source, field.name)
            default = "none" if default is None else default
            shown = " ".join(map(str, default)) if isinstance(default, tuple) else both(default)
            assert found[1] == shown, option
            assert len(found[0].split()) >= 5, f"{option} has no words of help"


def test_help_shows_each_options_own_comment() -> None:
    text = plain(cli("train ppo --help").out)
    assert "--n-epochs INT passes over each rollout (default: 10, text: 4)" in text
    assert "--keep INT checkpoints to keep (default: 3)" in text
    assert (
        "--target-kl none|FLOAT end the passes after the step that finds approx_kl over 1.5 times this "
        "(default: none)" in text
    )
