"""Errors: one line on stderr, the exit code, nothing written that was not there."""

import errno
import json
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from pgrad.algorithms import ALGORITHMS
from pgrad.cli import COMMANDS, main
from pgrad.errors import UsageError
from pgrad.training.disk import packing
from pgrad.training.disk.rundir import RunDir
from tests.cli.tools import cli


class Odd(gymnasium.Env):
    """An environment that does one thing wrong at its third step."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fault: str) -> None:
        self.fault, self.steps = fault, 0
        if fault == "space":
            self.observation_space = gymnasium.spaces.Text(3)  # type: ignore[assignment]

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        self.steps += 1
        obs, reward = np.zeros(2, np.float32), 1.0
        if self.steps == 3:
            match self.fault:
                case "nan":
                    obs = np.array([0, np.nan], np.float32)
                case "shape":
                    obs = np.zeros(3, np.float32)
                case "dtype":
                    obs = np.array(["a", "b"])
                case "raise":
                    raise RuntimeError("the motor is on fire")
                case "reward":
                    reward = float("nan")
        return obs, reward, False, self.steps == 9, {}


gymnasium.register("PgradOdd-v0", entry_point=Odd)
WHERE = "PgradOdd-v0, environment 0, step 3 of its episode"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PGRAD_TRACEBACK", raising=False)
    return tmp_path


BAD = {
    "trian": f"unknown command 'trian': did you mean train? (there are: {', '.join(COMMANDS)})",
    "ppo CartPole-v1": "unknown command 'ppo' (did you mean: pgrad train ppo WORLD?)",
    "PPO_KL x": "unknown command 'PPO_KL' (did you mean: pgrad train ppo_kl WORLD?)",
    "train --seed 1 a2c CartPole-v1": "the algorithm comes first, then the world: pgrad train a2c WORLD …",
    "train": "train which algorithm? For example: pgrad train ppo CartPole-v1 "
    f"(there are: {', '.join(ALGORITHMS)})",
    "train --seed 1": "train which algorithm? For example: pgrad train ppo CartPole-v1 "
    f"(there are: {', '.join(ALGORITHMS)})",
    "train pp0 cartpole": f"unknown algorithm 'pp0': did you mean ppo? (there are: {', '.join(ALGORITHMS)})",
    "train CartPole-v1 ppo --seed 1": "unknown algorithm 'CartPole-v1' "
    "(did you mean: pgrad train ppo CartPole-v1?)",
    "recipe list": "unknown recipe 'list' (pgrad recipe lists all)",
    "train ppo": "train in which world? For example: pgrad train ppo CartPole-v1 (see: pgrad list)",
    "train ppo CartPol-v1": "unknown world 'CartPol-v1': "
    "did you mean CartPole-v1 or CartPole-v0 or cartpole?",
    "train ppo m/envs.py:Dicty": "'m/envs.py:Dicty' is no world: register it there, "
    "gymnasium.register('Dicty-v0', entry_point=...), and give envs:Dicty-v0 in its folder",
    "train ppo tests.cli.test_errors:Odd": "'tests.cli.test_errors:Odd' is no world: register it there, "
    "gymnasium.register('Odd-v0', entry_point=...), and give tests.cli.test_errors:Odd-v0",
    "train ppo LunarLander-v2": "Environment version v2 for `LunarLander` is deprecated. "
    "Please use `LunarLander-v3` instead.",
    "train ppo cartpole extra": "unexpected argument 'extra' (pgrad train ppo --help shows all)",
    "train ppo cartpole --net-arc 8": "unknown option --net-arc: did you mean --net-arch? "
    "(pgrad train ppo --help shows all)",
    "train ppo cartpole --no-normalise-obs": "unknown option --no-normalise-obs: "
    "did you mean --no-normalize-obs? (pgrad train ppo --help shows all)",
    "train ppo cartpole --no-quiet": "unknown option --no-quiet: did you mean --quiet? "
    "(pgrad train ppo --help shows all)",
    "train ppo cartpole --normalize-obs True": "--normalize-obs takes no value, got 'True' "
    "(pgrad train ppo --help shows all)",
    "train ppo cartpole --normalize_obs yes --seed 1": "--normalize_obs takes no value, got 'yes' "
    "(pgrad train ppo --help shows all)",
    "train ppo cartpole --normalize-obs=True": "--normalize-obs takes no value, got 'True' "
    "(pgrad train ppo --help shows all)",
    "train ppo cartpole --no-norm-adv 1": "--no-norm-adv takes no value, got '1' "
    "(pgrad train ppo --help shows all)",
    "train ppo cartpole -x": "unknown option -x (pgrad train ppo --help shows all)",
    "train ppo cartpole --num_minibatches 4": "unknown option --num_minibatches: "
    "did you mean --batch-size? (pgrad train ppo --help shows all)",
    "train ppo cartpole --track": "unknown option --track: did you mean --wandb PROJECT? "
    "(pgrad train ppo --help shows all)",
    "train ppo cartpole --cuda False": "unknown option --cuda: did you mean --device? "
    "(pgrad train ppo --help shows all)",
    "train a2c cartpole --num-minibatches 4": "unknown option --num-minibatches "
    "(pgrad train a2c --help shows all)",
    "train ppo cartpole --timesteps 9": "unknown option --timesteps: did you mean --total-timesteps? "
    "(pgrad train ppo --help shows all)",
    "train ppo cartpole --clip-coeff 9": "unknown option --clip-coeff: did you mean --clip-coef? "
    "(pgrad train ppo --help shows all)",
    "train ppo cartpole --jobs 2": "--jobs is how many of several seeds train at once: give --seeds too",
    "train ppo cartpole --net-arch": "--net-arch needs a value (pgrad train ppo --help shows all)",
    "train ppo cartpole --seeds --seed 1": "--seeds needs a value (pgrad train ppo --help shows all)",
    "train ppo cartpole --num-envs 4 --n-envs 8": "--num-envs and --n-envs are the same option: "
    "give one of them",
    "train ppo cartpole --lr=1 --learning_rate 2": "--lr and --learning-rate are the same option: "
    "give one of them",
    "train ppo cartpole --engine vllm": "--engine is for language models "
    "(pgrad train ppo parity --help shows all)",
    "bench ppo cartpole --held_out_prompts=3": "--held_out_prompts is for language models "
    "(pgrad bench ppo parity --help shows all)",
    "train ppo cartpole --no-reference": "--no-reference is for language models "
    "(pgrad train ppo parity --help shows all)",
    "train ppo parity --net-arch 8": "--net-arch is for worlds of steps, not for texts "
    "(pgrad train ppo CartPole-v1 --help shows all)",
    "train a2c cartpole --clip_coef 1": "unknown option --clip_coef (pgrad train a2c --help shows all)",
    "train ppo cartpole --gamma 2 --n-steps -3 --learning-rate nan": "PPO: "
    "--learning-rate must be finite and not negative, got nan; "
    "--n-steps must be a whole number ≥ 1, got -3; --gamma must be in [0, 1], got 2.0",
    "train ppo cartpole --clip-range -0.2": "PPO: --clip-range must be positive, got -0.2",
    "train ppo cartpole --n-envs 0": "--n-envs must be a whole number ≥ 1, got 0",
    "train ppo cartpole --total-timesteps -5": "--total-timesteps must be a whole number ≥ 1, got -5",
    "train ppo cartpole --batch-size 100": "batch_size 100 does not divide n_steps · n_envs = "
    "256 · 8 = 2048; the nearest that do are 64 and 128",
    "train ppo cartpole --device tpu": "device 'tpu' is unknown; allowed: auto, cpu, cuda, cuda:0, ...",
    "train ppo cartpole --log-std-init 5": "--log-std-init must be in [-20, 2], got 5.0",
    "train ppo cartpole --world-kwargs gravity": "--world-kwargs takes key=value pairs, "
    "such as gravity=-9.8, got 'gravity'",
    "eval": "evaluate which run? For example: pgrad eval runs/ppo/CartPole-v1-seed0",
    "play": "play which run? For example: pgrad play runs/ppo/CartPole-v1-seed0",
    "resume": "resume which run? For example: pgrad resume runs/ppo/CartPole-v1-seed0",
    "resume nothing --clip-range 0.3": "--clip-range cannot be changed: a run keeps its settings; "
    "with others train a new one, --init-from DIR",
    "resume nothing --num_envs 3": "--num_envs cannot be changed: a run keeps its settings; "
    "with others train a new one, --init-from DIR",
    "resume nothing --clip-rang 0.3": "unknown option --clip-rang (pgrad resume --help shows all)",
    "plot": "plot which runs? For example: pgrad plot runs/ppo",
    "eval nothing --episodes 0": "--episodes must be a whole number ≥ 1, got 0",
    "eval nothing --n-envs -2": "--n-envs must be a whole number ≥ 1, got -2",
    "play nothing --episodes 0": "--episodes must be a whole number ≥ 1, got 0",
    "eval nothing": "there is no run at nothing",
    "list zzzz": "no world has 'zzzz' in its name",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_line_and_writes_nothing(command: str, here: Path) -> None:
    assert cli(command) == (2, "", f"pgrad: error: {BAD[command]}\n")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan", f"{WHERE}: observation[1] is nan (action "),
        ("shape", f"{WHERE}: observation has shape (3,), the space declares (2,) (action "),
        ("dtype", f"{WHERE}: observation has dtype <U1, the space declares float32 (action "),
        ("reward", f"{WHERE}: reward is nan (action "),
        ("raise", f"{WHERE}: step raised RuntimeError: the motor is on fire (action "),
        ("space", "PgradOdd-v0: its observation space is a Text; supported are Box, Discrete, "),
    ],
)
def test_a_broken_environment_is_one_line_that_says_where(fault: str, message: str) -> None:
    answer = cli(f"train ppo PgradOdd-v0 --n-envs 2 --n-steps 32 --quiet --world-kwargs fault={fault}")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith(f"pgrad: error: {message}")


def test_an_explicit_device_that_is_not_there_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    expected = "device 'cuda' is not available: pgrad sees 0 cuda device(s); use cpu or auto"
    assert cli("train ppo cartpole --device cuda") == (2, "", f"pgrad: error: {expected}\n")


@pytest.mark.parametrize(
    ("package", "command", "message"),
    [
        ("wandb", "train ppo cartpole --wandb x", "wandb is not installed: pip install 'pgrad[wandb]'"),
        (
            "tensorboard",
            "train ppo cartpole --tensorboard",
            "tensorboard is not installed: pip install 'pgrad[tensorboard]'",
        ),
        (
            "minigrid",
            "train ppo MiniGrid-Pgrad-v0",
            "MiniGrid-Pgrad-v0 needs minigrid: pip install 'minigrid'",
        ),
    ],
)
def test_a_missing_extra_names_what_installs_it(
    package: str, command: str, message: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    answer = cli(command)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith(f"pgrad: error: {message}")
    assert list(here.iterdir()) == []


def test_a_folder_that_holds_a_run_or_anything_else_is_left_alone(trained: Path, here: Path) -> None:
    expected = (
        f"pgrad: error: {trained} already holds a run: resume it, choose another run directory, or delete it "
        "with overwrite=True (--overwrite)\n"
    )
    before = sorted(trained.rglob("*"))
    assert cli("train ppo cartpole --quiet --run-dir", trained) == (2, "", expected)
    assert sorted(trained.rglob("*")) == before
    (here / "thesis.tex").write_text("years of work")
    answer = cli("train ppo cartpole --quiet --overwrite --run-dir", here)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "is not empty and not a pgrad run directory" in answer.err
    assert (here / "thesis.tex").read_text() == "years of work"


def test_a_folder_of_several_seeds_is_no_run_and_says_what_it_is(here: Path) -> None:
    train = "train a2c probe-both --total-timesteps 128 --n-envs 4 --n-steps 16 --quiet --run-dir all"
    assert cli(f"{train} --seeds 2") == (0, "", "")
    before = sorted(here.rglob("*"))
    expected = (
        "all holds runs of several seeds: go on with them (pgrad resume all), or choose another run directory"
    )
    for options in ("", " --overwrite"):
        assert cli(train + options) == (2, "", f"pgrad: error: {expected}\n")
    expected = "all is not a pgrad run directory: it has no config.json; the runs in it: all/seed0, all/seed1"
    for command in ("chat", "play"):
        assert cli(f"{command} all") == (2, "", f"pgrad: error: {expected}\n")
    assert sorted(here.rglob("*")) == before


def test_a_run_in_use_is_refused_with_who_uses_it(here: Path) -> None:
    with RunDir.create(here / "run") as directory:
        directory.write_config({})
        for command in (("resume", here / "run"), ("train ppo cartpole --overwrite --run-dir", here / "run")):
            answer = cli(*command)
            assert (answer.code, answer.err.count("\n")) == (2, 1)
            assert answer.err.startswith(f"pgrad: error: {here / 'run'} is in use by ")


def test_a_damaged_run_says_what_is_damaged(trained: Path, here: Path) -> None:
    run = here / "copy"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_bytes((trained / "config.json").read_bytes())
    expected = f"{run} has no checkpoint: the run ended before its first one; train it anew"
    assert cli("eval", run) == (2, "", f"pgrad: error: {expected}\n")
    (run / "config.json").write_text("{")
    assert cli("eval", run) == (2, "", f"pgrad: error: {run}/config.json is damaged: it is not JSON\n")
    (run / "config.json").write_text(json.dumps({"model": "other"}))
    expected = f"{run} is not a pgrad run directory: its config.json is of another format"
    assert cli("resume", run) == (2, "", f"pgrad: error: {expected}\n")


def test_a_smaller_budget_than_was_trained_is_refused(trained: Path) -> None:
    answer = cli("resume", trained, "--total-timesteps", "10")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "total_timesteps must be at least that, got 10" in answer.err


def test_a_full_disk_at_the_end_is_told_and_the_earlier_checkpoint_stays(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("train a2c probe-both --total-timesteps 100 --quiet --run-dir", here / "run").code == 0
    before = sorted((here / "run/checkpoints").rglob("*"))

    def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packing, "save_file", no_space)
    with pytest.warns(UserWarning, match="disk full .* training goes on"):  # of the saves on the way
        answer = cli("resume --total-timesteps 500 --quiet", here / "run")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("pgrad: error: disk full")
    assert answer.err.endswith("the previous checkpoint is intact\n")
    assert sorted((here / "run/checkpoints").rglob("*")) == before


def test_the_traceback_is_shown_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError):
        main(["train", "ppo", "CartPol-v1", "--traceback"])
    monkeypatch.setenv("PGRAD_TRACEBACK", "1")
    with pytest.raises(UsageError):
        main(["train", "ppo", "CartPol-v1"])
    monkeypatch.setenv("PGRAD_TRACEBACK", "0")
    assert main(["train", "ppo", "CartPol-v1"]) == 2


def test_errors_survive_a_terminal_without_greek(capsys: pytest.CaptureFixture[str]) -> None:
    import io

    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        assert main(["train", "ppo", "cartpole", "--n-envs", "0"]) == 2
    stream.flush()
    assert stream.buffer.getvalue() == b"pgrad: error: --n-envs must be a whole number ? 1, got 0\n"  # type: ignore[attr-defined]
