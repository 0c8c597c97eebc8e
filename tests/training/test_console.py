"""What is shown: a live table on a terminal, aligned lines elsewhere, nothing when quiet."""

import errno
import io
import re
import time
from typing import Any

import pytest

from pgrad.training.console import Console
from pgrad.training.shown import duration, negative, number, rate, whole

METRICS = {
    "rollout/ep_rew_mean": 213.44,
    "rollout/ep_len_mean": 213.0,
    "time/fps": 12345.6,
    "train/approx_kl": 0.0081234,
    "train/clip_fraction": 0.0931,
    "train/entropy_loss": -0.5612,
    "train/explained_variance": 0.831,
    "train/policy_gradient_loss": -0.01234,
    "train/value_loss": 23.123,
    "train/learning_rate": 2.5e-5,
    "eval/mean_reward": 498.2,
    "train/something_else": 77.77,
}


class Clock:
    """Time that stands still until told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "40")
    return Terminal()


def pictures(terminal: io.StringIO) -> list[list[str]]:
    """What the terminal showed each time the table was drawn: output is cut where the cursor goes up."""
    drawn = re.split(r"\r?(?:\x1b\[2K|\x1b\[1A)+", terminal.getvalue())
    plain = [re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", text) for text in drawn]
    return [[line.rstrip() for line in text.splitlines() if line.strip()] for text in plain if text.strip()]


# Numbers


def test_numbers_are_short_and_keep_three_digits() -> None:
    shown = {0.0: "0", 0.0081234: "0.00812", 0.831: "0.831", 5.0: "5", 23.123: "23.1", 213.44: "213.4"}
    shown |= {-1234.5: "-1,234", 12345.6: "12,346", 2.5e-5: "2.5e-05", 3e-4: "0.0003", 1.5e8: "1.5e+08"}
    shown |= {float("inf"): "inf", float("-inf"): "-inf"}
    assert {value: number(value) for value in shown} == shown
    assert number(float("nan")) == "nan"
    assert negative(-0.5612) == "0.561"
    assert whole(12345.6) == "12,346"
    assert whole(float("nan")) == "nan"
    counts = {7: "7", 999.4: "999", 1000: "1.0k", 12345: "12.3k", 999_499: "999.5k", 1.2e6: "1.20M"}
    assert {count: rate(count) for count in counts} == counts


def test_durations_grow_by_units() -> None:
    shown = {0: "0:00", 7.9: "0:07", 60: "1:00", 3599: "59:59", 3600: "1:00:00", 86399: "23:59:59"}
    shown |= {86400: "1d 00:00:00", 2 * 86400 + 3723: "2d 01:02:03"}
    assert {seconds: duration(seconds) for seconds in shown} == shown


# Lines


def test_a_line_says_it_all_and_skips_what_is_missing(clock: Clock) -> None:
    file = io.StringIO()
    with Console(100_000, "PPO on CartPole-v1", file=file, clock=clock) as console:
        clock.now += 2
        console.update(20_480, METRICS)
        clock.now += 2
        console.update(40_960, {"rollout/ep_rew_mean": 9.0})
        clock.now += 2
        console.update(61_440, {"train/value_loss": 1.0})
    assert file.getvalue().splitlines() == [
        "PPO on CartPole-v1",
        " 20480/100000  return  213.4  length   213  eval  498.2  12.3k steps/s  kl 0.0081  left 0:07",
        " 40960/100000  return      9  left 0:05",
        " 61440/100000  left 0:03",
        "took 0:06",
    ]


def test_lines_come_with_progress_or_with_time_and_the_last_row_is_always_shown(clock: Clock) -> None:
    file = io.StringIO()
    with Console(1000, file=file, clock=clock) as console:
        for step in range(1, 201):
            clock.now += 1 / 64
            console.update(step, {"rollout/ep_rew_mean": step})
        for _ in range(4):
            clock.now += 4
            console.update(201)  # progress without a new row of metrics
        console.update(202, {"rollout/ep_rew_mean": 202.0})
        console.update(203, {"rollout/ep_rew_mean": 203.0})
    steps = [int(line.partition("/")[0]) for line in file.getvalue().splitlines()]
    assert steps == [1, 51, 101, 151, 201, 202, 203]
    assert file.getvalue().splitlines()[-1].endswith("took 0:19")


def test_a_slow_run_has_a_line_every_ten_seconds(clock: Clock) -> None:
    file = io.StringIO()
    with Console(10**9, file=file, clock=clock) as console:
        for step in range(1, 101):
            clock.now += 1
            console.update(step, {"time/fps": 1.0})
    steps = [int(line.partition("/")[0]) for line in file.getvalue().splitlines()]
    assert steps == [*range(1, 101, 10), 100]


def test_what_is_left_counts_from_where_this_process_began(clock: Clock) -> None:
    file = io.StringIO()
    with Console(1000, start=500, file=file, clock=clock) as console:
        console.update(500, {"a": 1.0})
        clock.now += 3
        console.update(600, {"a": 1.0})
        clock.now += 3
        console.update(1100, {"a": 1.0})
    assert [line.partition("left ")[2] for line in file.getvalue().splitlines()] == ["?", "0:12", "0:00", ""]
    assert file.getvalue().splitlines()[-1] == "took 0:06"


def test_what_is_left_goes_by_the_speed_of_late(clock: Clock) -> None:
    """Machine code took over half-way, after the compiler: 1 step/s, a minute of nothing, then 10 steps/s."""
    file = io.StringIO()
    with Console(400, file=file, clock=clock) as console:
        for step in range(10, 201, 10):
            clock.now += 10
            console.update(step, {"a": 1.0})
        clock.now += 60
        for step in range(210, 311, 10):
            clock.now += 1
            console.update(step, {"a": 1.0})
    assert [line.partition("left ")[2] for line in file.getvalue().splitlines()][-2] == "0:09"


def test_what_is_left_is_not_told_before_learning_starts(clock: Clock) -> None:
    """A replay of 300 steps is filled in no time, then learning takes a second for ten."""
    file = io.StringIO()
    with Console(1000, learning_starts=300, file=file, clock=clock) as console:
        for step in range(100, 300, 100):
            clock.now += 1 / 64
            console.update(step - 50)
            console.update(step, {"a": 1.0})
        console.update(290)
        clock.now += 1
        console.update(300, {"a": 1.0})
        clock.now += 10
        console.update(400, {"a": 1.0})
    left = [line.partition("left ")[2] for line in file.getvalue().splitlines()]
    assert left == ["?", "?", "1:10", "1:00", ""]


def test_messages_and_quiet(clock: Clock, terminal: Terminal) -> None:
    file = io.StringIO()
    with Console(100, "title", file=file, clock=clock) as console:
        console.message("saved [bold]x[/bold]")
    console.message("after the end")
    console.update(50, METRICS)
    assert file.getvalue() == "title\nsaved [bold]x[/bold]\nafter the end\n"
    for quiet in (io.StringIO(), terminal):
        with Console(100, "title", enabled=False, file=quiet, clock=clock) as console:
            console.update(50, METRICS)
            console.message("saved")
        assert quiet.getvalue() == ""


def test_letters_that_the_terminal_lacks() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with Console(100, "PPO · CartPole", file=file) as console:
        console.message("σ = 1")
    assert file.buffer.getvalue().decode() == "PPO ? CartPole\n? = 1\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("is_terminal", "error"),
    [
        (False, BrokenPipeError()),  # the reader of a pipe ended
        (True, OSError(errno.EIO, "Input/output error")),  # the terminal was closed
        (False, ValueError("I/O operation on closed file")),
        (True, ValueError("I/O operation on closed file")),
    ],
)
def test_a_reader_that_went_away_does_not_stop_a_training(
    clock: Clock, terminal: Terminal, is_terminal: bool, error: Exception
) -> None:
    file = terminal if is_terminal else io.StringIO()
    with Console(100, "title", file=file, clock=clock) as console:
        calls = 0

        def fail(*args: Any) -> int:
            nonlocal calls
            calls += 1
            raise error

        file.write = file.flush = fail  # type: ignore[method-assign, assignment]
        for step in range(100):
            clock.now += 1
            console.update(step, METRICS)
            console.message("hello")
    assert 0 < calls < 10  # and it is not tried for ever


# The table


def test_the_table_shows_every_metric_it_knows(clock: Clock, terminal: Terminal) -> None:
    with Console(100_000, "PPO on CartPole-v1", file=terminal, clock=clock) as console:
        clock.now += 4
        console.update(50_000, METRICS)
        *_, picture = pictures(terminal)
        assert picture[0] == "PPO on CartPole-v1"
        assert re.fullmatch(r"━+╸?╺?━+  +50%  50,000/100,000  left 0:04", picture[1])
        assert [re.split(r"\s{2,}", line) for line in picture[2:]] == [
            ["episode return", "213.4", "KL", "0.00812"],
            ["episode length", "213", "clip fraction", "0.0931"],
            ["evaluation", "498.2", "entropy", "0.561"],
            ["steps/s", "12,346", "explained variance", "0.831"],
            ["learning rate", "2.5e-05", "policy loss", "-0.0123"],
            ["elapsed", "0:04", "value loss", "23.1"],
        ]
        assert max(map(len, picture)) <= 80
    assert "took 0:04" in pictures(terminal)[-1][1]


def test_the_table_is_drawn_at_most_twice_a_second_and_when_closed(clock: Clock, terminal: Terminal) -> None:
    with Console(1000, file=terminal, clock=clock) as console:
        first = len(terminal.getvalue())
        for step in range(63):
            clock.now += 1 / 128
            console.update(step, METRICS)
        assert len(terminal.getvalue()) == first
        clock.now += 1 / 128
        console.update(500, {"rollout/ep_rew_mean": 1.0})
        assert "50%" in pictures(terminal)[-1][0]
        console.update(1024, {"rollout/ep_rew_mean": 123.4})  # whole iterations: more than was asked for
        assert "123.4" not in terminal.getvalue()
    assert "123.4" in terminal.getvalue()
    assert "100%  1,024/1,000  took 0:00" in pictures(terminal)[-1][0]
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") == 1  # the cursor


def test_messages_stay_above_the_table(clock: Clock, terminal: Terminal) -> None:
    with Console(1000, "title", file=terminal, clock=clock) as console:
        console.update(1, METRICS)
        console.message("saved [x]")
        assert pictures(terminal)[-1][:2] == ["saved [x]", "title"]


@pytest.mark.parametrize("columns", [32, 40, 56, 200])
def test_narrow_terminals(
    clock: Clock, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with Console(100_000, "a title longer than narrow terminals are", file=terminal, clock=clock) as console:
        console.update(50_000, METRICS)
    picture = pictures(terminal)[-1]
    assert max(map(len, picture)) <= min(columns, 80)
    assert len(picture) == (8 if columns >= 56 else 16)
    assert any("498.2" in line for line in picture)


def test_a_terminal_with_few_lines(clock: Clock, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "5")
    with Console(100_000, "title", file=terminal, clock=clock) as console:
        clock.now += 1
        console.update(50_000, METRICS)
        assert len(pictures(terminal)[-1]) <= 5


def test_colours_can_be_turned_off(clock: Clock, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def colours() -> list[str]:
        terminal.seek(0)
        terminal.truncate()
        with Console(100_000, "title", file=terminal, clock=clock) as console:
            console.update(50_000, METRICS)
        return re.findall(r"\x1b\[[0-9;]*(?:3[0-7]|9[0-7]|38;[0-9;]+)m", terminal.getvalue())

    monkeypatch.setenv("TERM", "xterm-256color")
    assert colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours()


@pytest.mark.parametrize("variable", ["TERM", "FORCE_COLOR"])
def test_no_control_codes_where_they_do_not_belong(
    clock: Clock, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, {"TERM": "dumb", "FORCE_COLOR": "1"}[variable])
    file = terminal if variable == "TERM" else io.StringIO()  # FORCE_COLOR does not make a file a terminal
    with Console(100, "title", file=file, clock=clock) as console:
        console.update(50, METRICS)
        console.message("saved")
    assert "\x1b" not in file.getvalue()
    assert len(file.getvalue().splitlines()) == 4


def test_the_table_ends_with_an_error_too(clock: Clock, terminal: Terminal) -> None:
    with pytest.raises(ZeroDivisionError), Console(100, file=terminal, clock=clock):
        _ = 1 / 0
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")


def test_an_update_that_shows_nothing_costs_next_to_nothing(terminal: Terminal) -> None:
    frozen = Clock()
    for file in (terminal, io.StringIO()):
        with Console(10**9, file=file, clock=frozen) as console:
            console.update(0, METRICS)
            best = float("inf")
            for _ in range(20):
                began = time.perf_counter()
                for step in range(100):
                    console.update(step, METRICS)
                best = min(best, (time.perf_counter() - began) / 100)
        assert best < 50e-6
