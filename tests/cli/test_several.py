"""`--seeds`, and `pgrad bench`."""

import contextlib
import io
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import pgrad as pg
from pgrad.algorithms import A2C
from pgrad.cli.finish import Output
from pgrad.cli.order import chosen_seeds
from pgrad.cli.several import LOST, finish_several
from pgrad.errors import TrainingError, UsageError
from pgrad.run.config import RunOptions
from pgrad.run.seeds import Seeds
from pgrad.run.seeds_folder import write
from pgrad.run.side_by_side import Outcome
from pgrad.run.start import configured
from pgrad.training.disk.log import read
from pgrad.training.shown import number
from tests.cli.test_process import FOREVER
from tests.cli.tools import cli, start

SMALL = "a2c probe-both --total-timesteps 128 --n-envs 4 --n-steps 16"


def wait_for(condition: Callable[[], bool]) -> None:
    """At most two minutes."""
    until = time.monotonic() + 120.0
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("texts", "seeds"),
    [
        (("3",), (0, 1, 2)),
        (("1",), (0,)),
        (("3", "5"), (3, 5)),
        (("10-12",), (10, 11, 12)),
        (("7-7",), (7,)),
        (("0-1", "9"), (0, 1, 9)),
    ],
)
def test_one_number_is_how_many_and_several_are_the_seeds(
    texts: tuple[str, ...], seeds: tuple[int, ...]
) -> None:
    assert chosen_seeds(texts) == seeds


@pytest.mark.parametrize("texts", [(), ("0",), ("x",), ("1", "1"), ("-1",), ("3-1",), ("1-",), ("2.5",)])
def test_what_names_no_seeds_is_told(texts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="--seeds"):
        chosen_seeds(texts)


def test_seeds_train_resume_and_plot(here: Path) -> None:
    answer = cli(f"train {SMALL} --seeds 2 --final-eval-episodes 4")
    assert (answer.code, answer.err) == (0, "")
    said = {line[:15].strip(): line[15:] for line in answer.out.splitlines() if line[:1].isalpha()}
    assert said["runs"] == "runs/a2c/probe-both-seeds"
    assert (here / said["curves"]).exists()
    for k in range(2):
        assert "over 4 deterministic episodes" in said[f"seed {k}"]
        saved = json.loads((here / f"{said['runs']}/seed{k}/config.json").read_text())["config"]
        assert saved["options"]["seed"] == k
    assert "(95% interval over 2 seeds" in said["mean"]
    assert said["next"] == f"pgrad plot {said['runs']}"
    again = cli("resume", said["runs"], "--total-timesteps", 256, "--quiet")
    assert again == (0, "", "")
    assert (
        min(
            max(read(here / said["runs"] / f"seed{k}" / "metrics.csv")["time/total_timesteps"])
            for k in (0, 1)
        )
        >= 256
    )
    assert cli("plot", said["runs"]).code == 0


def test_eval_takes_all_seeds(here: Path) -> None:
    assert cli(f"train {SMALL} --seeds 2 --quiet --run-dir all") == (0, "", "")
    runs = [pg.load(here / f"all/seed{k}") for k in (0, 1)]
    found = [run.evaluate(4) for run in runs]
    rows = [f"seed {k}         {found[k]}, {runs[k].timesteps:,} steps\n" for k in (0, 1)]
    low, high = sorted(number(one.mean) for one in found)
    interval = f"95% interval over 2 seeds {low} … {high}; fewer than 5 seeds say little"
    mean = f"mean           {number((found[0].mean + found[1].mean) / 2)} ({interval})\n"
    first = "a2c · probe-both · latest agent, 2 seeds\n"
    assert cli("eval all --episodes 4") == (0, first + rows[0] + rows[1] + mean, "")
    answer = cli("eval all --checkpoint", here / "all/seed0/checkpoints")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    for file in (here / "all/seed0/checkpoints").rglob("*.safetensors"):
        file.write_bytes(b"damaged")
    code, out, err = cli("eval all --episodes 4")
    alone = f"mean           {number(found[1].mean)} (one seed, no interval)\n"
    assert (code, out) == (2, first + rows[1] + alone)
    assert err.startswith("pgrad: error: seed 0: all/seed0/checkpoints/")


def test_one_seed_has_no_interval(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, configured(A2C(), "probe-both", None, RunOptions()), (0, 1))
    row = {"timesteps": 9, "return": 2.0, "text": ""}
    done = {seed: Outcome(f"seed {seed}", "done", row | {"evaluation": 1.0 + seed}) for seed in (0, 1)}
    finish_several(Seeds(here, (0,), {0: done[0]}), Output())
    assert "\nmean           1 (one seed, no interval)\n" in capsys.readouterr().out
    finish_several(Seeds(here, (0, 1), done), Output())
    told = "1.5 (95% interval over 2 seeds 1 … 2; fewer than 5 seeds say little)"
    assert f"\nmean           {told}\n" in capsys.readouterr().out


def test_seeds_do_not_go_with_everything(here: Path) -> None:
    for more in ("--seed 3", "--video", "--jobs -1"):
        answer = cli(f"train {SMALL} --seeds 2 {more}")
        assert answer.code == 2
        assert answer.err.count("\n") == 1
    assert cli("recipe ppo-cartpole --seeds 0").code == 2
    assert list(here.iterdir()) == []


def test_a_seed_that_fails_is_an_exit_code(here: Path) -> None:
    assert cli(f"train {SMALL} --seeds 2 --quiet --run-dir all") == (0, "", "")
    for file in (here / "all/seed1/checkpoints").rglob("*.safetensors"):
        file.write_bytes(b"damaged")
    code, out, err = cli("resume all --quiet --total-timesteps 200")
    assert (code, out) == (1, "")
    assert err.startswith("seed 1 failed: ")
    assert err.count("seed 1 failed: ") == 1
    assert err.endswith("try again with: pgrad resume all\n")
    assert max(read(here / "all/seed0/metrics.csv")["time/total_timesteps"]) >= 200


@pytest.mark.parametrize("quiet", ["", " --quiet"])
def test_where_all_fail_alike_it_is_as_with_one(here: Path, quiet: str) -> None:
    """Each says once why, and the exit code is that of the error."""
    assert cli(f"train {SMALL} --seeds 2 --quiet --run-dir all") == (0, "", "")
    code, out, err = cli(f"resume all --total-timesteps 1{quiet}")
    assert code == 2
    lines = [f"seed {k} failed: all/seed{k} is at 128 timesteps already" for k in (0, 1)]
    assert [(out + err).count(line) for line in lines] == [1, 1]
    assert all(line in err for line in lines)


def test_ctrl_c_saves_all_and_all_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    with start(*FOREVER, "--log-every", "100", "--run-dir", folder, "--seeds", "2", "--jobs", "2") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "mean" in line and "[" in line:  # both have told something
                break
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == f"stopped; 0 of 2 seeds are done; continue with: pgrad resume {folder}\n"
    done = [int(sorted((folder / f"seed{k}/checkpoints").iterdir())[-1].name) for k in range(2)]
    assert min(done) > 0
    assert cli("resume", folder, "--quiet", "--total-timesteps", max(done) + 1000) == (0, "", "")
    for k in range(2):
        steps = read(folder / f"seed{k}/metrics.csv")["time/total_timesteps"]
        assert steps == sorted(set(steps))
        assert max(done) + 1000 <= steps[-1] < max(done) + 1100


def test_seeds_save_and_stop_when_their_parent_is_killed(tmp_path: Path) -> None:
    """Nobody can ask them to stop any more, and nobody hears what they say."""
    folders = [tmp_path / f"all/seed{k}" for k in range(2)]
    where = "--log-every", "100", "--run-dir", tmp_path / "all"
    with start(*FOREVER, *where, "--seeds", "2", "--jobs", "2") as process:
        tables = [folder / "metrics.csv" for folder in folders]
        wait_for(lambda: all(table.exists() and table.read_text().count("\n") > 1 for table in tables))
        process.kill()
    wait_for(lambda: not any((folder / "lock").exists() for folder in folders))
    for folder in folders:
        assert any((folder / "checkpoints").iterdir())


def test_bench_tells_every_stage_and_writes_nothing(here: Path) -> None:
    answer = cli("bench ppo CartPole-v1 --n-steps 16 --seconds 0.2 --seed 3 --run-dir ignored")
    assert (answer.code, answer.err) == (0, "")
    for name in (
        "world",
        "act",
        "credit",
        "update",
        "other",
        "all",
        "iterations",
        "gradient steps",
        "memory",
    ):
        assert any(line.startswith(name) for line in answer.out.splitlines()), name
    record = json.loads(cli("bench sac pendulum --n-envs 1 --learning-starts 8 --seconds 0.2 --json").out)
    assert record["algorithm"] == "sac"
    assert sum(stage["share"] for stage in record["stages"].values()) == pytest.approx(1.0)
    assert list(here.iterdir()) == []
    assert cli("bench ppo CartPole-v1 --seconds 0").code == 2
    assert "did you mean --clip-range?" in cli("bench ppo CartPole-v1 --clip-rang 1").err


def test_bench_of_a_language_model(here: Path) -> None:
    pytest.importorskip("transformers")
    command = "bench grpo parity --model scratch:tiny --n-prompts 2 --num-generations 2 --seconds 0.2 --json"
    stages = json.loads(cli(command).out)["stages"]
    assert set(stages) == {"generate", "reward", "credit", "update", "other"}


def test_nobody_is_told_to_continue_what_cannot_be(here: Path) -> None:
    """EnvPool's worlds cannot be saved: not after the end, nor a failure, nor a stop."""
    pytest.importorskip("envpool")
    options = "--total-timesteps 200 --seeds 1 --final-eval-episodes 0 --run-dir all"
    done = cli(f"train a2c envpool:CartPole-v1 {options}")
    assert (done.code, done.err) == (0, "")
    assert "pgrad play all/seed0" in done.out
    assert "resume" not in done.out
    told = "the state of envpool:CartPole-v1 cannot be saved: this run can be loaded, not continued"
    assert cli("resume all --total-timesteps 400") == (2, "", f"pgrad: error: all: {told}\n")
    error = Outcome("seed 0", "failed", error=TrainingError("not finite"))
    for found in (Seeds(here / "all", (0,), {0: error}), Seeds(here / "all", (0,), {}, signal.SIGTERM)):
        err = io.StringIO()
        with contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):
            finish_several(found, Output())
        assert err.getvalue().splitlines()[-1].endswith(LOST)
        assert "resume" not in err.getvalue()
