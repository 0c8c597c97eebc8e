"""Signals: the first is a request, a second Ctrl-C stops, and everything is as before afterwards."""

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pgrad.training import signals as module
from pgrad.training.signals import StopOnSignal

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def raised(number: int) -> None:
    signal.raise_signal(number)  # Python calls the handler before the next line


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_the_first_signal_is_a_request(number: int, code: int) -> None:
    before = [signal.getsignal(x) for x in ALL]
    with StopOnSignal() as stop:
        assert (stop.requested, stop.exit_code) == (None, 0)
        raised(number)
        assert (stop.requested, stop.exit_code) == (number, code)
    assert stop.requested == number  # still known after the end
    assert [signal.getsignal(x) for x in ALL] == before


@pytest.mark.parametrize("first", ALL)
def test_a_ctrl_c_after_that_stops_at_once(first: int) -> None:
    before = [signal.getsignal(x) for x in ALL]
    with StopOnSignal() as stop:
        raised(first)
        with pytest.raises(KeyboardInterrupt):
            raised(signal.SIGINT)
        assert [signal.getsignal(x) for x in ALL] == before  # already, should stopping take long
    assert [signal.getsignal(x) for x in ALL] == before
    assert stop.exit_code == 128 + first


@pytest.mark.parametrize("first", ALL)
def test_more_sigterms_change_nothing(first: int) -> None:
    with StopOnSignal() as stop:
        raised(first)
        raised(signal.SIGTERM)
        raised(signal.SIGTERM)
        assert stop.requested == first


def test_own_handlers_come_back_also_after_an_error() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with pytest.raises(ZeroDivisionError), StopOnSignal():
            raised(signal.SIGTERM) or 1 / 0
        assert seen == []
        raised(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopOnSignal() as stop:
            raised(signal.SIGINT)
            assert stop.requested is None
            raised(signal.SIGTERM)
            assert stop.requested == signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_are_left_alone() -> None:
    before = [signal.getsignal(x) for x in ALL]
    seen: list[Any] = []

    def work() -> None:
        with StopOnSignal() as stop:
            seen.extend([stop.requested, [signal.getsignal(x) for x in ALL]])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, before]


def test_one_inside_another() -> None:
    with StopOnSignal() as outer:
        with StopOnSignal() as inner:
            raised(signal.SIGTERM)
        assert (inner.requested, outer.requested) == (signal.SIGTERM, None)
        raised(signal.SIGINT)
        assert outer.requested == signal.SIGINT


WORKER = """
import importlib.util, os, signal, sys, time
spec = importlib.util.spec_from_file_location("signals", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
with module.StopOnSignal() as stop:
    worker = os.fork()
    if worker == 0:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        print("worker goes on", stop.requested, flush=True)
        time.sleep(60)
        os._exit(0)
    sys.stdin.readline()
    os.kill(worker, signal.SIGTERM)
    print("worker ended by", os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]), flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("asked for", stop.requested, flush=True)
sys.exit(stop.exit_code)
"""


def test_a_forked_worker_leaves_ctrl_c_to_its_parent_and_ends_by_sigterm() -> None:
    command = [sys.executable, "-c", WORKER, str(Path(module.__file__))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "worker goes on None\n"
    output, _ = process.communicate("\n", timeout=30)
    assert output == f"worker ended by {-signal.SIGTERM}\nasked for {int(signal.SIGINT)}\n"
    assert process.returncode == 130
