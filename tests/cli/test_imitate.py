"""Recording, imitating and beginning with it, as commands."""

import json
import re
from pathlib import Path

import pytest

from pgrad.cli.commands import play
from tests.cli.tools import cli


@pytest.fixture(scope="module")
def recording(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recordings") / "d.pgrad"
    answer = cli("play", trained, "--episodes", 4, "--record", file)
    assert answer.code == 0, answer.err
    first, second = answer.out.splitlines()
    assert first == str(file)
    assert second.startswith("4 episodes, ")
    assert not (trained / "videos").exists() or not list((trained / "videos").glob("*"))
    return file


def test_from_a_recording_to_a_policy_to_another_run(recording: Path, tmp_path: Path) -> None:
    imitated = cli(
        "train imitate cartpole --quiet --total-timesteps 640 --demonstrations",
        recording,
        "--run-dir",
        tmp_path / "i",
    )
    assert imitated == (0, "", "")
    ended = cli(
        "train imitate cartpole --total-timesteps 64 --held-out 0.25 --final-eval-episodes 0 --run-dir",
        *(tmp_path / "e", "--demonstrations", recording),
    )
    held_out = next(line for line in ended.out.splitlines() if line.startswith("held out"))
    assert re.fullmatch(r"held out       log-likelihood -\d\.\d{3}, accuracy \d\.\d{3}", held_out)
    begun = cli(
        "train ppo cartpole --quiet --total-timesteps 64 --n-envs 1 --n-steps 64 --init-from",
        tmp_path / "i",
        "--run-dir",
        tmp_path / "p",
    )
    assert begun == (0, "", "")
    resumed = cli("resume", tmp_path / "p", "--total-timesteps", 128, "--quiet")
    assert resumed == (0, "", "")
    assert cli("eval", tmp_path / "i", "--episodes", 2).code == 0


def test_the_options_of_an_imitation_for_sac_are_sacs(tmp_path: Path) -> None:
    """What is usual depends on --squashed; what is given stays."""
    cli(
        "train ppo pendulum --quiet --n-steps 8 --batch-size 64 --total-timesteps 64 --run-dir",
        tmp_path / "p",
    )
    assert cli("play", tmp_path / "p", "--episodes", 2, "--record", tmp_path / "d").code == 0
    imitate = "train imitate pendulum --quiet --total-timesteps 64 --demonstrations"
    for given, widths, activation in (
        ("", [64, 64], "tanh"),
        ("--squashed", [256, 256], "relu"),
        ("--squashed --net-arch 16", [16], "relu"),
    ):
        run = tmp_path / f"i{len(given)}"
        assert cli(imitate, tmp_path / "d", "--run-dir", run, *given.split()) == (0, "", "")
        agent = json.loads((run / "config.json").read_text())["config"]["agent"]
        assert (agent["net_arch"], agent["activation"]) == (widths, activation)
    sac = "train sac pendulum --quiet --learning-starts 8 --total-timesteps 9 --n-envs 1 --init-from"
    assert cli(sac, tmp_path / "i10", "--run-dir", tmp_path / "s") == (0, "", "")


def test_what_is_wrong_is_one_line(recording: Path, trained: Path, tmp_path: Path) -> None:
    cases = [
        (("train imitate cartpole",), "Imitate needs demonstrations"),
        (("train imitate cartpole --demonstrations nowhere",), "there is no recording at nowhere"),
        (("train imitate pendulum --run-dir", tmp_path / "x", "--demonstrations", recording), "float32 [3]"),
        (
            ("train imitate cartpole --batch-size 5000 --demonstrations", recording),
            " or less (--batch-size), or record more episodes",
        ),
        (
            ("train imitate cartpole --demonstrations", trained),
            f"{trained} is a run, demonstrations are a file: record one with pgrad play {trained} --record",
        ),
        (
            ("train imitate cartpole --demonstrations", tmp_path),
            f"{tmp_path} is a folder, demonstrations are",
        ),
        (("play", trained, "--record", recording), "exists already"),
        (("play", trained, "--record", "d", "--out", "v.mp4"), "--record writes no video"),
        (
            ("play", trained, "--record", tmp_path / "d", "--episodes", 0),
            "episodes must be a whole number ≥ 1",
        ),
        (("train ppo cartpole --init-from", tmp_path / "nothing"), "there is no run at"),
        (("train ppo cartpole --net-arch 8 --init-from", trained), "net_arch=[64, 64] (here [8])"),
    ]
    for (command, *args), what in cases:
        answer = cli(command, *args)
        assert answer.code == 2, command
        assert what in answer.err
        assert len(answer.err.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_the_help_tells() -> None:
    assert "--record FILE" in cli("play --help").out
    assert "--demonstrations" in cli("train imitate --help").out
    assert "--init-from" in cli("train ppo --help").out
    assert play.Play().record is None
