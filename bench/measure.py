"""One fresh process: what it did, and what it took."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.work import Side

SIDES = Path(__file__).parent / "sides"
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
LIMIT = 900  # seconds that a process may take


@dataclass(frozen=True)
class Took:
    """A process that is over. Times are of the machine's monotonic clock."""

    printed: list[str]
    started: float
    ended: float
    cpu_seconds: float  # of it and of its children
    peak_mb: float  # resident, of it and its children together


class SideError(Exception):
    """A side could not do its work."""


def once(side: Side, python: Path, cache: Path, seed: int) -> dict[str, Any]:
    """What `side` measures in a fresh process. Raises SideError."""
    if not python.exists():
        raise SideError(f"there is no {python}")
    given = json.dumps(dataclasses.asdict(side) | {"seed": seed})
    command = [str(python), "-W", "ignore", str(SIDES / f"{side.program}.py"), given]
    measures = summary(spawn(command, side.cores, cache), side.work.settled)
    if side.cores != 1:  # the clock of a process does not hear its workers
        measures.pop("steps_per_cpu_second", None)
    return measures


def spawn(command: list[str], cores: int, cache: Path) -> Took:
    """Run a side on so many cores, its mathematics with one thread, and wait for it. Raises SideError."""
    caches = {"PGRAD_CACHE": str(cache / "pgrad"), "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor")}
    allowed = sorted(os.sched_getaffinity(0))
    chosen = set(allowed[-cores:]) if cores else set(allowed)
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            env={**os.environ, **ONE_THREAD, **caches},
            cwd=folder,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, chosen),
        )
        timer = threading.Timer(LIMIT, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        watch = Watch(process.pid)
        try:
            _, status, waited = os.wait4(process.pid, 0)
        except KeyboardInterrupt:  # which a session of its own does not hear
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        ended = time.monotonic()
        process.returncode = os.waitstatus_to_exitcode(status)
        watch.stop()
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace").strip().splitlines())
    if process.returncode:
        raise SideError(f"exit {process.returncode}: {(texts[1] or texts[0] or ['it printed nothing'])[-1]}")
    cpu_seconds = max(waited.ru_utime + waited.ru_stime, watch.cpu_seconds)
    return Took(texts[0], started, ended, cpu_seconds, watch.peak_mb)


def summary(took: Took, settled: float) -> dict[str, Any]:
    """Rates and times from the notes (steps, gradient steps, time, CPU time) of a process.

    The rate is steady from the first note at or after the share `settled` of the steps.
    """
    report = json.loads(took.printed[-1])
    notes = report["notes"]
    measures: dict[str, Any] = {
        "wall_seconds": took.ended - took.started,
        "cpu_seconds": took.cpu_seconds,
        "peak_mb": max(took.peak_mb, report.get("peak_mb", 0.0)),
        "versions": report["versions"],
    }
    if "score" in report:
        return measures | {"score": report["score"], "solved_after": notes[-1][2] - took.started}
    steps, gradient_steps, last, last_cpu = notes[-1]
    since, _, begun, begun_cpu = next(note for note in notes if note[0] >= settled * steps)
    if since == steps:
        raise SideError("too few updates for a steady rate")
    return measures | {
        "steps_per_second": (steps - since) / (last - begun),
        "steps_per_cpu_second": (steps - since) / (last_cpu - begun_cpu),
        "first_update": next(when for _, taken, when, _ in notes if taken > 0) - took.started,
        "work": {"steps": steps, "gradient_steps": gradient_steps, "parameters": report["parameters"]},
    }


class Watch(threading.Thread):
    """Watches the memory of a process and its descendants together, and the processor time of each."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak_mb, self._over = pid, 0.0, threading.Event()
        self._cpu: dict[int, float] = {}
        self.start()

    @property
    def cpu_seconds(self) -> float:
        """Of all, as seen last; the system itself forgets descendants that nobody waited for."""
        return sum(self._cpu.values())

    def run(self) -> None:
        while not self._over.wait(0.1):
            seen = {pid: one for pid in family(self.pid) if (one := used(pid)) is not None}
            others = sum(own_memory(pid) for pid in seen if pid != self.pid)
            self.peak_mb = max(self.peak_mb, others + seen.get(self.pid, (0.0, 0.0))[0])
            self._cpu |= {pid: seconds for pid, (_, seconds) in seen.items()}

    def stop(self) -> None:
        self._over.set()
        self.join()


def family(pid: int) -> list[int]:
    """A process and its descendants, those that have just gone left out."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(child))]


def used(pid: int) -> tuple[float, float] | None:
    """Resident MB and seconds of processor time; None for a process that has just gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    memory = int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return memory, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_memory(pid: int) -> float:
    """MB of a descendant that are no file's, those shared with others in proportion; 0 where it has gone.

    Libraries are mapped by all of a family, and are in memory once: they count with the first process.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))) / 1024


def python_of(environment: Path | None) -> Path:
    """The interpreter of a virtual environment; this one's where none is given."""
    return Path(sys.executable) if environment is None else environment / "bin" / "python"
