"""Commands that read runs: `eval`, `play`, `plot`; and those that read nothing: `list`, `doctor`."""

import io
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import pgrad as pg
from pgrad.cli.commands import doctor, plot
from pgrad.cli.commands.plot import find_runs, labels
from pgrad.cli.waiting import waiting
from pgrad.errors import CheckpointError
from pgrad.training.disk.checkpoint import checkpoints
from tests.cli.tools import ROOT, cli


def test_eval_prints_what_the_run_evaluates_to(trained: Path) -> None:
    run = pg.load(trained)
    answer = cli("eval --episodes 12", trained)
    first = f"ppo · cartpole · latest agent, {run.timesteps:,} steps"
    assert answer == (0, f"{first}\n{run.evaluate(12)}\n", "")
    assert cli("eval --episodes 12", trained) == answer
    sampled = cli("eval --episodes 12 --stochastic --seed 4 --n-envs 3 --checkpoint best", trained).out
    best = pg.load(trained, "best").evaluate(12, False, seed=4, n_envs=3)
    assert sampled.splitlines()[1] == str(best)


def test_eval_says_at_once_what_it_evaluates(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first episode, through a pipe too."""
    heard: list[str] = []

    def interrupted(*_: Any, **__: Any) -> Any:
        heard.append(sys.stdout.getvalue())  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(pg.Run, "evaluate", interrupted)
    assert cli("eval", trained).code == 130
    assert heard == [f"ppo · cartpole · latest agent, {pg.load(trained).timesteps:,} steps\n"]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_is_told_what_is_waited_for(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    monkeypatch.setattr("sys.stderr", stream := Stream())
    monkeypatch.setenv("TERM", "xterm")
    with waiting("measuring for 10 s [here]"):
        pass
    assert ("measuring for 10 s [here]" in stream.getvalue()) is terminal


def test_any_checkpoint_can_be_read(trained: Path, tmp_path: Path) -> None:
    """By its path or by its name in the run, in every command that reads one."""
    first = checkpoints(trained / "checkpoints")[0]
    run = pg.load(trained, first)
    assert run.timesteps == int(first.name) < pg.load(trained).timesteps
    told = f"ppo · cartpole · chosen agent, {run.timesteps:,} steps\n{run.evaluate(4)}\n"
    for checkpoint in (first, first.name):
        assert cli("eval --episodes 4 --checkpoint", checkpoint, trained) == (0, told, "")
    played = cli("play --out", tmp_path / "a.mp4", "--checkpoint", first, trained).out
    assert f"return {run.evaluate(1, n_envs=1).returns[0]:.1f}" in played
    answer = cli("eval --checkpoint 000000000001", trained)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert f"has no checkpoint '000000000001' (there are: latest, best, {first.name}, " in answer.err


@pytest.mark.parametrize("command", ["eval", "play", "resume", "plot"])
def test_a_checkpoint_in_the_place_of_its_run(trained: Path, command: str) -> None:
    for folder in ("checkpoints", "best"):
        given = checkpoints(trained / folder)[0]
        how = f"give the run, {trained}, and --checkpoint {given.name}"
        told = f"pgrad: error: {given} is a checkpoint, not a run: {how}\n"
        assert cli(command, given) == (2, "", told)


def test_play_records_the_first_evaluated_episode(trained: Path, tmp_path: Path) -> None:
    run = pg.load(trained)
    expected = run.evaluate(1, n_envs=1)
    answer = cli("play", trained)
    video = trained / "videos" / f"{run.timesteps:012}.mp4"
    said = f"episode 1: return {expected.returns[0]:.1f}, {expected.lengths[0]} steps"
    assert answer == (0, f"{video}\n{said}\n", "")
    assert video.stat().st_size > 1000
    answer = cli("play --episodes 2 --stochastic --seed 3 --out", tmp_path / "two.mp4", trained)
    assert (answer.code, answer.err, len(answer.out.splitlines())) == (0, "", 3)
    assert (tmp_path / "two.mp4").exists()


def test_plot_groups_seeds_and_names_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = "train a2c probe-constant --total-timesteps 64 --n-envs 4 --quiet"
    for i, options in enumerate(("--seed 1", "--seed 2", "--seed 1 --gamma 0.5", "--seed 3 --device cpu")):
        assert cli(f"{small} {options} --run-dir", tmp_path / "runs" / str(i)).code == 0
    drawn: dict[str, Any] = {}

    def compare(
        groups: dict[str, list[Path]], picture: Path, *, metric: str, title: str, texts: bool
    ) -> Path:
        drawn.update(groups=groups, metric=metric, title=title, texts=texts)
        return picture

    with monkeypatch.context() as patch:
        patch.setattr(plot, "compare", compare)
        assert cli("plot --out x.png --metric train/loss", tmp_path / "runs").code == 0
    runs = [tmp_path / "runs" / str(i) / "metrics.csv" for i in range(4)]
    assert drawn["groups"] == {"a2c gamma=0.99": [runs[0], runs[1], runs[3]], "a2c gamma=0.5": [runs[2]]}
    assert (drawn["title"], drawn["metric"]) == ("probe-constant", "train/loss")
    assert drawn["texts"] is False
    picture = tmp_path / "out.png"
    assert cli("plot --out", picture, tmp_path / "runs/0", tmp_path / "runs/1") == (0, f"{picture}\n", "")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_labels_say_no_more_than_needed() -> None:
    def config(algorithm: str, world: str, **hyperparameters: object) -> dict[str, Any]:
        return {
            "algorithm": algorithm,
            "world": world,
            "hyperparameters": hyperparameters,
            "agent": {"net_arch": [64, 64]},
            "world_kwargs": {},
            "options": {"n_envs": 8, "frame_stack": 0},
        }

    assert labels([config("ppo", "a", gamma=1), config("ppo", "a", gamma=1)]) == ["ppo", "ppo"]
    assert labels([config("ppo", "a", gamma=1), config("a2c", "a", n_steps=5)]) == ["ppo", "a2c"]
    assert labels([config("ppo", "a", gamma=1), config("ppo", "b", gamma=2)]) == ["ppo a", "ppo b"]
    assert labels(
        [config("ppo", "a", optimizer="adam", n=1), config("ppo", "a", optimizer="rmsprop", n=1)]
    ) == [
        "ppo optimizer=adam",
        "ppo optimizer=rmsprop",
    ]


def test_runs_are_found_in_folders_of_folders(trained: Path, tmp_path: Path) -> None:
    for name in ("b/2", "a/1", "c"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (tmp_path / "d").mkdir()
    assert find_runs(tmp_path) == [tmp_path / "a/1", tmp_path / "b/2", tmp_path / "c"]
    assert find_runs(trained) == [trained]
    with pytest.raises(CheckpointError, match="is not a pgrad run directory"):
        find_runs(tmp_path / "d")


def test_list_names_algorithms_and_worlds() -> None:
    answer = cli("list")
    assert (answer.code, answer.err) == (0, "")
    for name in ("ppo ", "actor-critic ", "cartpole", "probe-both", "CartPole-v1", "FrozenLake-v1"):
        assert name in answer.out
    assert "CartPole-v0" not in answer.out  # the newest version is enough
    found = cli("list cartpole").out.split()
    assert found[:4] == ["cartpole", "cartpole-masked", "CartPole-v0", "CartPole-v1"]


def test_list_finds_every_name_that_it_shows() -> None:
    assert cli("list Reasoning") == (0, "reasoning-gym:NAME\n", "")


def test_list_tells_how_to_install_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco", None)
    assert "MuJoCo           not installed: pip install 'pgrad[mujoco]'\n" in cli("list").out


def test_doctor_survives_whatever_its_trials_do(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = (
        ("good", "pass", "a"),
        ("missing", "import no_such_module_anywhere", "pgrad[missing]"),
        ("broken", "raise ValueError('two\\nlines')", "b"),
        ("crashing", "import os; os.abort()", "c"),
        ("hanging", "import time; time.sleep(60)", "d"),
    )
    monkeypatch.setattr(doctor, "TRIALS", trials)
    monkeypatch.setattr(doctor, "TIMEOUT", 2)
    answer = cli("doctor")
    assert (answer.code, answer.err) == (0, "")
    verdicts = dict(line.split(maxsplit=1) for line in answer.out.splitlines()[-5:])
    assert verdicts == {
        "good": "works",
        "missing": "not installed: pip install 'pgrad[missing]'",
        "broken": "FAILS: lines",
        "crashing": "FAILS: ended with code -6",
        "hanging": "FAILS: no answer in 2 seconds",
    }
    for name in ("python", "torch", "gymnasium", "cores", "OMP_NUM_THREADS", "cpu"):
        assert f"\n  {name} " in answer.out


def test_doctor_tries_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    tried = {install for _, _, install in doctor.TRIALS}
    assert {f"pgrad[{name}]" for name in extras if name != "dev"} <= tried


@pytest.mark.parametrize("name", ["classic control", "plots", "videos", "language models"])
def test_doctor_finds_what_the_core_needs_working(name: str) -> None:
    trial = next(trial for trial in doctor.TRIALS if trial[0] == name)
    assert doctor._try(trial) == ""


def test_doctor_finds_a_device_that_cannot_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "devices", lambda: {"cpu": "a processor", "cuda:9": "imaginary"})
    found = doctor._devices()
    assert found["cpu"] == "a processor"
    assert found["cuda:9"].startswith("imaginary; does not compute: ")
