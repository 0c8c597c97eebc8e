"""`pgrad train` and `pgrad resume`: what reaches the run, where it goes, what is said."""

import json
from pathlib import Path
from typing import Any

import pytest

import pgrad as pg
from pgrad.algorithms import ALGORITHMS
from pgrad.training.disk.log import read
from pgrad.training.disk.rundir import RunDir
from tests.cli.tools import cli

SMALL = "probe-both --total-timesteps 128 --n-envs 4 --final-eval-episodes 0 --quiet"
WINDOW = "--n-steps 16"


def config(path: Path) -> dict[str, Any]:
    return json.loads((path / "config.json").read_text())["config"]  # type: ignore[no-any-return]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_trains_from_the_command_line(name: str, here: Path) -> None:
    soft = f"{WINDOW} --learning-starts 64 --batch-size 8 --gradient-steps 2 --net-arch 8"
    window = {
        "reinforce": "--n-episodes 8",
        "grpo": "--n-prompts 4 --num-generations 2",
        "imitate": "--demonstrations d --batch-size 8",
        "trpo": f"{WINDOW} --batch-size 64",
        "sac": soft,
        "discrete-sac": soft,
    }.get(name, WINDOW)
    if name == "imitate":
        pg.train(pg.A2C(), "probe-both", total_timesteps=8).demonstrate("d")
    world = "probe-both-continuous" if name == "sac" else "probe-both"
    answer = cli(f"train {name} {SMALL.replace('probe-both', world)} {window} --seed 3")
    assert answer == (0, "", "")
    folder = here / "runs" / name / f"{world}-seed3"
    assert config(folder)["algorithm"] == name
    assert max(read(folder / "metrics.csv")["time/total_timesteps"]) >= 128
    assert len(list((folder / "checkpoints").iterdir())) >= 1
    assert (folder / "plots" / "learning_curve.png").exists()


def test_every_kind_of_option_reaches_the_run(here: Path) -> None:
    answer = cli(
        f"train PPO {SMALL} --n_steps 16 --batch-size 32 --clip-coef 0.3 --target-kl 0.5 "
        "--clip-range-vf none --no-normalize-advantage --anneal-lr --net-arch 8 16 --activation relu "
        "--normalize-obs --log-std-init=-1 --gae-lambda 0.5 --save-every 1e2 --keep 7 --seed 1_0"
    )
    assert answer == (0, "", "")
    saved = config(here / "runs/ppo/probe-both-seed10")
    hyperparameters, agent, options = saved["hyperparameters"], saved["agent"], saved["options"]
    assert hyperparameters["clip_range"] == 0.3
    assert hyperparameters["target_kl"] == 0.5
    assert hyperparameters["clip_range_vf"] is None
    assert hyperparameters["normalize_advantage"] is False
    assert hyperparameters["learning_rate_schedule"] == "linear"
    assert hyperparameters["gae_lambda"] == 0.5
    assert agent["net_arch"] == [8, 16]
    assert agent["activation"] == "relu"
    assert agent["normalize_obs"] is True
    assert agent["log_std_init"] == -1.0
    assert options["save_every"] == 100
    assert (options["keep"], options["seed"], options["n_envs"]) == (7, 10, 4)


def test_defaults_are_those_of_the_dataclasses(here: Path) -> None:
    assert cli("train ppo cartpole --total-timesteps 1 --quiet").code == 0
    saved = config(here / "runs/ppo/cartpole-seed0")
    fresh = ALGORITHMS["ppo"]()
    assert saved["hyperparameters"] == {key: getattr(fresh, key) for key in saved["hyperparameters"]}


def test_an_algorithms_own_networks_are_the_default(here: Path) -> None:
    """Without flags SAC has its 256-256 and ReLU, each flag counts for itself, and PPO stays as it is."""
    short = "--total-timesteps 9 --n-envs 1 --quiet --final-eval-episodes 0"
    soft = f"{short} --learning-starts 8 --batch-size 2"
    for k, (command, widths, activation) in enumerate(
        (
            (f"sac pendulum {soft}", [256, 256], "relu"),
            (f"discrete-sac cartpole {soft} --activation tanh", [256, 256], "tanh"),
            (f"sac pendulum {soft} --net-arch 8 4", [8, 4], "relu"),
            (f"a2c cartpole {short}", [64, 64], "tanh"),
        )
    ):
        assert cli(f"train {command} --run-dir {here}/{k}") == (0, "", "")
        agent = config(here / str(k))["agent"]
        assert (agent["net_arch"], agent["activation"]) == (widths, activation)


def test_actions_that_an_algorithm_has_no_policy_for(here: Path) -> None:
    answer = cli("train sac CartPole-v1")
    assert answer.code == 2
    assert "use DiscreteSAC (discrete-sac)" in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert "use SAC (sac)" in cli("train discrete-sac pendulum").err
    assert not (here / "runs").exists()


def test_world_kwargs_reach_the_environment(here: Path) -> None:
    command = (
        f"train a2c Pendulum-v1 {WINDOW} --total-timesteps 64 --n-envs 1 --quiet --world-kwargs g=5 --seed 2"
    )
    assert cli(command) == (0, "", "")
    assert config(here / "runs/a2c/Pendulum-v1-seed2")["world_kwargs"] == {"g": 5}


def test_a_second_run_gets_a_folder_of_its_own_and_overwrite_replaces_the_first(here: Path) -> None:
    for _ in range(2):
        assert cli(f"train a2c {SMALL} {WINDOW}").code == 0
    folders = here / "runs/a2c"
    assert sorted(path.name for path in folders.iterdir()) == ["probe-both-seed0", "probe-both-seed0-2"]
    assert cli(f"train a2c {SMALL} {WINDOW} --gamma 0.5 --overwrite").code == 0
    assert sorted(path.name for path in folders.iterdir()) == ["probe-both-seed0", "probe-both-seed0-2"]
    assert config(folders / "probe-both-seed0")["hyperparameters"]["gamma"] == 0.5


def test_a_run_says_how_it_went_and_where_everything_is(here: Path) -> None:
    answer = cli(
        f"train a2c probe-both --total-timesteps 128 --n-envs 4 {WINDOW} --final-eval-episodes 5 --video"
    )
    assert (answer.code, answer.err) == (0, "")
    said = dict(line.split(maxsplit=1) for line in answer.out.splitlines() if line and line[0].isalpha())
    folder = Path(said["run"])
    assert folder == Path("runs/a2c/probe-both-seed0")
    for what in ("curve", "checkpoint", "video"):
        assert folder in Path(said[what]).parents
        assert Path(said[what]).exists()
    assert "over 5 deterministic episodes" in said["evaluation"]
    assert said["next"] == f"pgrad play {folder}"
    assert "steps/s" in answer.out  # the plain lines of progress


def test_resume_goes_on_to_a_larger_budget(here: Path) -> None:
    assert cli(f"train a2c {SMALL} {WINDOW} --seed 5").code == 0
    folder = here / "runs/a2c/probe-both-seed5"
    before = read(folder / "metrics.csv")["time/total_timesteps"]
    assert cli("resume", folder, "--total-timesteps", "1e3", "--quiet") == (0, "", "")
    after = read(folder / "metrics.csv")["time/total_timesteps"]
    assert after[: len(before)] == before
    assert after[-1] >= 1000
    assert after == sorted(set(after))


def test_resuming_a_complete_run_says_so_and_keeps_it(here: Path) -> None:
    assert cli(f"train a2c {SMALL} {WINDOW}").code == 0
    folder = here / "runs/a2c/probe-both-seed0"
    before = (folder / "metrics.csv").read_bytes()
    answer = cli("resume", folder, "--final-eval-episodes", "0")
    assert (answer.code, answer.err) == (0, "")
    assert "the run is complete: " in answer.out
    assert ": 128 steps are done, 128 were asked for; --total-timesteps trains it further\n" in answer.out
    assert "--total-timesteps trains it further" in answer.out
    assert (folder / "metrics.csv").read_bytes() == before


def test_no_time_is_told_before_learning_starts(here: Path) -> None:
    answer = cli("train sac pendulum --total-timesteps 12 --n-envs 1 --learning-starts 8 --log-every 1")
    lines = [line for line in answer.out.splitlines() if "/12 " in line]
    assert [line.endswith("left ?") for line in lines] == [True] * 7 + [False] * 5


def test_tensorboard_writes_into_the_run(here: Path) -> None:
    pytest.importorskip("tensorboard")
    assert cli(f"train a2c {SMALL} {WINDOW} --tensorboard").code == 0
    assert list((here / "runs/a2c/probe-both-seed0/tensorboard").glob("events*"))


@pytest.mark.parametrize(("what", "options"), [("evaluated", ""), ("Run.record", " --video --quiet")])
def test_ctrl_c_after_training_says_that_the_run_is_saved(
    what: str, options: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"pgrad.cli.finish.{what}", interrupted)
    answer = cli("train a2c probe-both --total-timesteps 64 --run-dir", here / "run", *options.split())
    assert answer.code == 130
    assert answer.err == f"\nstopped after training; the run itself is saved in {here / 'run'}\n"
    assert cli("eval --episodes 2", here / "run").code == 0


def test_a_word_is_said_in_an_evaluation_without_an_end(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the training that came before it is not lost."""
    for place in ("pgrad.report.evaluate.LONG", "pgrad.training.endless.LONG"):
        monkeypatch.setattr(place, 20)
    monkeypatch.setattr("pgrad.training.endless.LONGEST", 60)
    told = r"no episode of pendulum has ended after 20 steps: has it a time limit\? .* given up after 60"
    with pytest.warns(UserWarning, match=told):
        answer = cli("train a2c pendulum --total-timesteps 64 --run-dir", here / "run")
    expected = "pgrad: error: no end to an episode of pendulum in 60 steps: add a time limit\n"
    assert (answer.code, answer.err) == (2, expected)
    label = "evaluation     \n"
    assert answer.out.endswith(f"\n{label}{label}"), "the warning and the error begin lines of their own"
    assert RunDir(here / "run").has_checkpoint
