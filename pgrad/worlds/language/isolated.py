"""A reward function in a process of its own, which can be stopped whatever it does."""

import contextlib
import pickle
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any, cast

from pgrad.errors import TrainingError

TIMEOUT = 60.0
"""Seconds for a call where nobody says."""

_SERVE = Path(__file__).with_name("serve.py")


class Isolated:
    """The function `name` of a Python file, called in a process that holds nothing but that file.

    The process is started by the first call and answers the next ones too. One that does not answer within
    `timeout` seconds is killed, C code, endless pattern and all, and the next call starts another; a hang
    costs `timeout` seconds and what the file takes to be imported. Arguments and answers are pickled between
    the two processes; `settings` are keyword arguments of every call.

    Raises TimeoutError; TrainingError for what the function raised, and where its process died.
    """

    def __init__(self, path: Path, name: str, *, timeout: float = TIMEOUT, **settings: Any) -> None:
        self.__name__ = name
        self._path, self._timeout, self._settings = path, timeout, settings
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        """The function's answer."""
        arguments = {"prompts": prompts, "completions": completions, **columns, **self._settings}
        with self._lock:
            process = self._process or self._begin()
            expired = threading.Event()

            def expire() -> None:
                expired.set()
                process.kill()

            timer = threading.Timer(self._timeout, expire)
            timer.daemon = True
            timer.start()
            try:
                failed, answer = _ask(process, arguments)
            except (EOFError, BrokenPipeError, pickle.UnpicklingError):
                code = self._end()
                if expired.is_set():
                    raise TimeoutError(f"no answer within {self._timeout:g} s") from None
                raise TrainingError(f"the process of {self.__name__} died (exit code {code})") from None
            finally:
                timer.cancel()
        if failed:
            raise TrainingError(answer)
        return answer

    def close(self) -> None:
        """End the process, in the middle of a call too."""
        if (process := self._process) is not None:
            process.kill()
        with self._lock:
            self._end()

    def _begin(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(_SERVE), str(self._path), self.__name__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        weakref.finalize(self, _stop, self._process)
        return self._process

    def _end(self) -> int | None:
        process, self._process = self._process, None
        return _stop(process) if process else None


def _ask(process: subprocess.Popen[bytes], arguments: dict[str, Any]) -> tuple[bool, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    pickle.dump(arguments, process.stdin)
    process.stdin.flush()
    return cast(tuple[bool, Any], pickle.load(process.stdout))


def _stop(process: subprocess.Popen[bytes]) -> int:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    return process.wait()
