"""The command line as a process: exit codes, signals, pipes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pgrad.training.disk.checkpoint import checkpoint_info, latest_checkpoint
from pgrad.training.disk.log import read
from tests.cli.tools import ROOT, cli, start

FOREVER = ("train", "a2c", "probe-both", "--total-timesteps", "1e12", "--save-every", "1e9")

FULL = Path("/dev/full")


def wait_for_progress(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if "steps/s" in line:
            return
    raise AssertionError(process.communicate()[1])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_can_be_resumed(number: int, code: int, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with start(*FOREVER, "--log-every", "100", "--run-dir", folder) as process:
        wait_for_progress(process)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.count("\n") == 1
    done = int(err.split()[2].replace(",", ""))
    assert err == f"stopped at {done:,} steps; continue with: pgrad resume {folder}\n"
    assert not (folder / "lock").exists()
    assert cli("resume --quiet --total-timesteps", done + 1000, folder) == (0, "", "")
    steps = read(folder / "metrics.csv")["time/total_timesteps"]
    assert steps == sorted(set(steps))
    assert done + 1000 <= steps[-1] < done + 1100


IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "pgrad", *sys.argv[1:]])
"""


def test_a_closed_terminal_saves_too(tmp_path: Path) -> None:
    """Though nothing can be shown any more, from the table to the last word."""
    folder = tmp_path / "run"
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", IN_TERMINAL, *FOREVER, "--log-every", "100", "--run-dir", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen(command, **streams, env=environment, start_new_session=True) as process:
        os.close(theirs)
        shown = b""
        while b"steps/s" not in shown:
            shown += os.read(ours, 4096)
        os.close(ours)
        assert process.wait(timeout=60) == 129
    assert not (folder / "lock").exists()
    done = checkpoint_info(latest_checkpoint(folder / "checkpoints"))["timesteps"]
    assert cli("resume --quiet --total-timesteps", done + 200, folder) == (0, "", "")


def test_python_m_pgrad_returns_the_exit_code(tmp_path: Path) -> None:
    with start("eval", tmp_path / "nothing") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == f"pgrad: error: there is no run at {tmp_path}/nothing\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    with start("list") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(timeout=60)
    assert (process.returncode, err) == (141, "")


@pytest.mark.skipif(not FULL.exists(), reason="no file that is always full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--help", "train --help", "train ppo --help", "list", "train"])
def test_an_output_that_is_full_is_one_line(command: str, unbuffered: str, tmp_path: Path) -> None:
    """And a run that is complete is one, whatever could be told of it."""
    run = tmp_path / "run"
    args = command.split()
    if command == "train":
        args += ["a2c", "probe-both", "--total-timesteps", "64", "--run-dir", str(run)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PYTHONUNBUFFERED"] = unbuffered
    with FULL.open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "pgrad", *args],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )
    told = "pgrad: error: cannot write to the output: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (1, told)
    if command == "train":
        assert checkpoint_info(latest_checkpoint(run / "checkpoints"))["timesteps"] >= 64
        assert cli("resume --quiet", run) == (0, "", "")
