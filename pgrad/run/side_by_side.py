"""Independent runs at the same time: a process each, one thread each, told of on one terminal."""

import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, Literal

import torch

from pgrad.errors import PgradError, TrainingError
from pgrad.processes import THREADS, starting
from pgrad.run.scoreboard import Scoreboard
from pgrad.training.signals import StopOnSignal

Tell = Callable[[dict[str, float]], None]
"""What a job calls with each row of its metrics."""

PAUSE = 0.2  # seconds between two rows of a job that are sent, and between two looks at them


@dataclass(frozen=True)
class Job:
    """`work(tell, *arguments)`, a function that other processes can import."""

    name: str
    total_timesteps: int
    work: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `value` is what it returned, `error` why it did not."""

    name: str
    state: Literal["done", "stopped", "failed"]
    value: Any = None
    error: PgradError | None = None
    traceback: str = ""
    """of an error that nobody raised on purpose"""


@dataclass
class _Running:
    k: int
    job: Job
    process: Any
    connection: Connection
    said: Path
    outcome: Outcome | None = None


@dataclass
class _Started:
    """The processes that there are; none outlives the `with` statement."""

    running: dict[Connection, _Running] = field(default_factory=dict)

    def __enter__(self) -> "_Started":
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.running.values():
            one.process.kill()
            one.process.join()


def at_once(n: int, cores: int) -> int:
    """How many of n equal jobs to run at the same time on so many cores: as many rounds as there must be.

    One job per core leaves cores idle in the last round: of 5 jobs on 4 cores the fifth would run alone, and
    all would take twice as long as one. Five that share the cores take 5/4 as long.
    """
    return -(-n // max(1, n // cores))


def side_by_side(
    jobs: Sequence[Job], limit: int, board: Scoreboard, signals: StopOnSignal
) -> Iterator[tuple[int, Outcome]]:
    """Run jobs, at most `limit` at the same time; yields the place and the outcome of each as it ends.

    A job that fails is told and takes no other with it. Once `signals` has a request, every job is asked to
    save and stop (by SIGTERM: Ctrl-C reaches only this process) and no other begins.
    """
    waiting = list(enumerate(jobs))
    asked = False
    with TemporaryDirectory(prefix="pgrad-") as said, _Started() as started:
        running = started.running
        while running or (waiting and not asked):
            while waiting and len(running) < limit and signals.requested is None:
                k, job = waiting.pop(0)
                one = _start(k, job, Path(said) / str(k))
                running[one.connection] = one
                board.say(k, "starts")
            if signals.requested is not None and not asked:
                asked = True
                for one in running.values():
                    one.process.terminate()
            for ready in wait(list(running), timeout=PAUSE):
                one = running[ready]  # type: ignore[index]
                _listen(one, board, asked)
                if one.outcome is not None:
                    one.process.join()
                    del running[one.connection]
                    one.connection.close()
                    board.say(one.k, one.outcome.state)
                    yield one.k, one.outcome
            board.refresh()


def _start(k: int, job: Job, said: Path) -> _Running:
    with starting(__name__) as context:
        mine, theirs = context.Pipe(duplex=False)
        place = os.getcwd(), dict(os.environ)
        process = context.Process(target=_carry_out, args=(theirs, job, str(said), *place), daemon=False)
        process.start()
        theirs.close()
    return _Running(k, job, process, mine, said)


def _listen(one: _Running, board: Scoreboard, asked: bool) -> None:
    """Take what a job says: rows of metrics, messages, and at last its outcome."""
    name = one.job.name
    try:
        kind, what = one.connection.recv()
    except (EOFError, ConnectionResetError):
        one.process.join()
        if asked:
            one.outcome = Outcome(name, "stopped")
        else:
            death = TrainingError(_death(one.process.exitcode, one.said))
            one.outcome = Outcome(name, "failed", error=death)
        return
    if kind == "row":
        board.hear(one.k, what)
    elif kind == "message":
        board.message(f"{name}: {what}")
    else:
        one.outcome = what


def _death(code: int, said: Path) -> str:
    """How a process ended that could not say so, and the last that it printed."""
    if code < 0:
        often = ", often out of memory" if -code == signal.SIGKILL else ""
        how = f"was killed by signal {-code} ({signal.Signals(-code).name}{often})"
    else:
        how = f"ended with exit code {code}"
    lines = said.read_text(errors="replace").strip().splitlines() if said.exists() else []
    return f"{how}: {lines[-1]}" if lines else how


def _carry_out(connection: Connection, job: Job, said: str, folder: str, environment: dict[str, str]) -> None:
    """What the process of a job does; what it prints goes into the file `said`."""
    for name in ("SIGINT", "SIGHUP"):  # reach every process of a terminal: they are for the parent
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    Thread(target=_stop_alone, daemon=True).start()
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.chdir(folder)
    os.environ.update(environment | THREADS)
    torch.set_num_threads(1)
    told, newest = -PAUSE, dict[str, float]()

    def tell(row: dict[str, float]) -> None:
        nonlocal told, newest
        newest = row
        if time.monotonic() - told >= PAUSE:
            told = time.monotonic()
            connection.send(("row", row))

    def warn(message: Warning | str, *_: Any, **__: Any) -> None:
        connection.send(("message", str(message)))

    warnings.showwarning = warn
    with suppress(BrokenPipeError, ConnectionResetError):  # the parent is gone
        outcome = _outcome(job, tell)
        connection.send(("row", newest))
        connection.send(("outcome", outcome))


def _stop_alone() -> None:
    """Ask this process to save and stop once its parent is gone, which nobody can ask any more."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _outcome(job: Job, tell: Tell) -> Outcome:
    try:
        return Outcome(job.name, "done", job.work(tell, *job.arguments))
    except PgradError as error:
        return Outcome(job.name, "failed", error=error)
    except (SystemExit, KeyboardInterrupt):  # asked to stop: it has saved
        return Outcome(job.name, "stopped")
    except BaseException as error:
        told = TrainingError(f"{type(error).__name__}: {error}")
        return Outcome(job.name, "failed", error=told, traceback=traceback.format_exc())
