"""A command line in this process, and one in a process of its own."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from pgrad.cli import main

ROOT = Path(__file__).parents[2]


class Answer(NamedTuple):
    """What a command line came back with."""

    code: int
    out: str
    err: str


def cli(command: str, *args: object) -> Answer:
    """Run `pgrad command args` here; the command is split at spaces, the arguments are not."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*command.split(), *map(str, args)])
    return Answer(code, out.getvalue(), err.getvalue())


def start(*args: object, **options: str) -> "subprocess.Popen[str]":
    """Start `python -m pgrad args` in a process group of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | options
    return subprocess.Popen(
        [sys.executable, "-m", "pgrad", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
