"""Locks: one holder at a time, whatever dies, and a refusal that says who."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pgrad.errors import CheckpointError
from pgrad.training.disk import lock as module
from pgrad.training.disk.lock import acquire

ROOT = Path(module.__file__).parents[3]
CHILD = """
import sys, time, types
from pathlib import Path
for name in ("pgrad", "pgrad.training", "pgrad.training.disk"):  # without importing torch
    package = types.ModuleType(name)
    package.__path__ = [str(Path(sys.argv[1], *name.split(".")))]
    sys.modules[name] = package
from pgrad.errors import CheckpointError
from pgrad.training.disk.lock import acquire
path, start = Path(sys.argv[2]), Path(sys.argv[3])
print("ready", flush=True)
while not start.exists():
    time.sleep(0.001)
try:
    lock = acquire(path)
except CheckpointError as error:
    print(error, flush=True)
else:
    print("got it", lock.note, flush=True)
    sys.stdin.read()
"""


def child(path: Path, start: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(ROOT), str(path), str(start)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert line(process) == "ready"
    return process


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.communicate()


@pytest.fixture
def go(tmp_path: Path) -> Path:
    path = tmp_path / "go"
    path.touch()
    return path


def write(path: Path, **changes: Any) -> None:
    """A lock file as this process would write it, with changes, and without the kernel's lock."""
    owner = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": "noon",
        "born": module._born(os.getpid()),
    }
    path.write_text(json.dumps(owner | changes))


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_another_process_is_refused_until_the_end(tmp_path: Path, go: Path) -> None:
    path = tmp_path / "run" / "lock"
    path.parent.mkdir()
    process = child(path, go)
    assert line(process) == "got it"
    host = socket.gethostname()
    with pytest.raises(
        CheckpointError, match=f"^{path.parent} is in use by pid {process.pid} on {host} since 20"
    ):
        acquire(path)
    end(process)
    lock = acquire(path)  # the child ended without releasing it
    assert lock.note.startswith(f"took over the lock of pid {process.pid} of 20")
    assert lock.note.endswith("which is not running any more")
    other = child(path, go)
    assert line(other).startswith(f"{path.parent} is in use by pid {os.getpid()} on {host}")
    end(other)
    lock.release()
    assert not path.exists()
    assert acquire(path).note == ""


def test_a_killed_process_leaves_no_lock(tmp_path: Path, go: Path) -> None:
    process = child(tmp_path / "lock", go)
    assert line(process) == "got it"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert f"pid {process.pid}" in acquire(tmp_path / "lock").note
    end(process)


def test_of_many_that_take_over_one_gets_it(tmp_path: Path) -> None:
    for attempt in range(3):
        path, start = tmp_path / f"lock{attempt}", tmp_path / f"go{attempt}"
        write(path, pid=dead_pid())
        processes = [child(path, start) for _ in range(6)]
        start.touch()
        answers = [line(process) for process in processes]
        assert sorted(answer.startswith("got it took over") for answer in answers) == [False] * 5 + [True]
        assert sum("is in use by" in answer for answer in answers) == 5
        for process in processes:
            end(process)


def test_one_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    lock = acquire(tmp_path / "lock")
    with pytest.raises(CheckpointError, match=f"in use by pid {os.getpid()}"):
        acquire(tmp_path / "lock")
    lock.release()
    acquire(tmp_path / "lock").release()


def test_a_child_process_does_not_release_its_parents_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = acquire(tmp_path / "lock")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: lock.pid + 1)
        lock.release()
    assert (tmp_path / "lock").exists()
    with pytest.raises(CheckpointError, match="in use"):
        acquire(tmp_path / "lock")
    lock.release()


def test_released_while_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, original = tmp_path / "lock", module._lock_in_kernel
    first = acquire(path)

    def release_first(descriptor: int) -> bool:
        first.release()  # after the file was opened here: what is locked now has no name any more
        monkeypatch.setattr(module, "_lock_in_kernel", original)
        return original(descriptor)

    monkeypatch.setattr(module, "_lock_in_kernel", release_first)
    second = acquire(path)
    with pytest.raises(CheckpointError, match="in use"):
        acquire(path)
    second.release()


@pytest.mark.parametrize("kernel", ["locks", "no locks", "no fcntl"])
def test_without_the_kernel_the_process_id_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    if kernel == "no locks":
        monkeypatch.setattr(fcntl, "flock", unsupported)
    if kernel == "no fcntl":
        monkeypatch.setattr(module, "fcntl", None)
    path = tmp_path / "lock"

    write(path)  # alive
    with pytest.raises(CheckpointError, match=f"in use by pid {os.getpid()} on .* since noon$"):
        acquire(path)
    write(path, pid=dead_pid(), since="noon" * 99)
    lock = acquire(path)
    assert "of noon" in lock.note
    assert json.loads(path.read_text())["pid"] == os.getpid()
    with pytest.raises(CheckpointError, match="in use"):
        acquire(path)
    lock.release()
    write(path, born="1")  # the pid is in use again, by another process
    assert "took over" in acquire(path).note
    write(path, host="elsewhere", pid=dead_pid())
    with pytest.raises(
        CheckpointError, match=f"on elsewhere since noon .if that run has died, delete {path}.$"
    ):
        acquire(path)


def test_a_dead_process_that_nobody_waited_for_is_dead(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    write(tmp_path / "lock", pid=process.pid, born=module._born(process.pid))
    with pytest.raises(CheckpointError, match="in use"):
        acquire(tmp_path / "lock")
    process.kill()
    os.waitid(
        os.P_PID, process.pid, os.WEXITED | os.WNOWAIT
    )  # it ended, and is still in the list of processes
    assert "took over" in acquire(tmp_path / "lock").note
    process.communicate()


@pytest.mark.parametrize(
    "text",
    ["\0\0\0", "[1]", '{"pid": 1}', '{"pid": "a", "host": "b", "since": "c", "born": "d"}', "something else"],
)
def test_a_file_that_is_no_lock_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    with pytest.raises(CheckpointError, match="is not a lock of pgrad: delete it if no run uses"):
        acquire(tmp_path / "lock")
    assert (tmp_path / "lock").read_text() == text


def test_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot lock .*missing: No such file"):
        acquire(tmp_path / "missing" / "lock")
