"""What is shown of several runs at once: a row each, their mean with its interval, or plain lines."""

import io

from pgrad.report.statistics import bootstrap_interval
from pgrad.run.scoreboard import ROWS, STEPS, Scoreboard
from tests.training.test_console import Clock, Terminal, clock, pictures, terminal

__all__ = ["clock", "terminal"]

RETURN = "rollout/ep_rew_mean"


def test_a_row_for_each_and_their_mean(clock: Clock, terminal: Terminal) -> None:
    names = [f"seed {k}" for k in range(4)]
    with Scoreboard(names, [1000] * 4, "ppo · CartPole-v1 · 4 seeds", file=terminal, clock=clock) as board:
        for k, value in enumerate((100.0, 200.0, 400.0)):
            board.hear(k, {STEPS: 250.0 * (k + 1), RETURN: value, "time/fps": 12_345.0})
        board.hear(0, {STEPS: 500.0})  # what a row does not tell stays
        board.say(2, "done")
        clock.now += 1
        board.refresh()
    title, *rows, last = pictures(terminal)[-1]
    assert title == "ppo · CartPole-v1 · 4 seeds"
    cells = [[cell.strip() for cell in row.split("  ") if cell.strip()] for row in rows]
    assert [row[0] for row in cells] == names
    assert cells[0][2:] == ["50%", "return 100.0", "12.3k steps/s"]
    assert cells[2][2:] == ["100%", "return 400.0", "done"]
    assert cells[3][2:] == ["0%", "waits"]
    low, high = bootstrap_interval([100.0, 200.0, 400.0])
    assert last.startswith(f"1 of 4 done  mean return 233.3 [{low:.1f}, {high:.1f}]")
    assert max(map(len, pictures(terminal)[-1])) <= 80


def test_of_many_runs_those_under_way(clock: Clock, terminal: Terminal) -> None:
    names = [f"run {k}" for k in range(ROWS + 1)]
    with Scoreboard(names, [10] * len(names), together=False, file=terminal, clock=clock) as board:
        board.say(3, "starts")
        board.hear(5, {STEPS: 5.0, RETURN: 1.0})
        board.say(7, "done")
    rows = pictures(terminal)[-1]
    assert [row.split("  ")[0] for row in rows[:-1]] == ["run 3", "run 5"]
    assert rows[-1].startswith(f"1 of {ROWS + 1} done")
    assert "mean" not in rows[-1]


def test_plain_lines_and_the_time_that_is_left(clock: Clock) -> None:
    file = io.StringIO()
    with Scoreboard(["seed 0", "seed 1"], [1000, 1000], "title", file=file, clock=clock) as board:
        board.refresh()  # nothing to tell yet
        board.hear(0, {STEPS: 0.0, RETURN: 1.0})
        board.refresh()
        clock.now += 5
        board.hear(0, {STEPS: 1000.0, RETURN: 2.0})
        board.say(0, "done")
        board.refresh()
        board.refresh()  # nothing new
        board.message("seed 1: careful")
    assert file.getvalue().splitlines() == [
        "title",
        "  0%  0 of 2 done  mean return 1",
        "seed 0  done  return 2",
        " 50%  1 of 2 done  mean return 2  left 0:05",
        "seed 1: careful",
    ]


def test_nothing_when_quiet(clock: Clock, terminal: Terminal) -> None:
    with Scoreboard(["a"], [10], "title", enabled=False, file=terminal, clock=clock) as board:
        board.hear(0, {STEPS: 5.0})
        clock.now += 60
        board.refresh()
        board.say(0, "done")
        board.message("careful")
    assert terminal.getvalue() == ""


def test_the_time_that_is_left_counts_what_is_done_here(clock: Clock) -> None:
    """Of 2,500 steps 1,480 were done before, some by a run that is complete: 40 in ten seconds leave 4:05."""
    file, before = io.StringIO(), (480, 0, 1000)
    with Scoreboard("abc", [1000, 500, 1000], before=before, file=file, clock=clock) as board:
        clock.now += 4
        board.hear(0, {STEPS: 490.0})
        board.say(2, "done")
        clock.now += 6
        board.hear(0, {STEPS: 510.0})
        board.hear(1, {STEPS: 10.0})
        board.refresh()
        clock.now += 10  # as fast as before: it is ten seconds less
        board.hear(0, {STEPS: 540.0})
        board.hear(1, {STEPS: 20.0})
        board.refresh()
    lines = [line.split("left ") for line in file.getvalue().splitlines() if "left" in line]
    assert [line[0][:4] for line in lines] == [" 61%", " 62%"]
    assert [line[1] for line in lines] == ["4:05", "3:55"]


def test_the_time_that_is_left_is_not_told_while_a_run_fills_its_replay(clock: Clock) -> None:
    file = io.StringIO()
    with Scoreboard("ab", [1000, 1000], file=file, clock=clock) as board:
        for updates in (0.0, 10.0):
            clock.now += 10
            board.hear(0, {STEPS: 200.0, "train/n_updates": 5.0})
            board.hear(1, {STEPS: 200.0 + updates, "train/n_updates": updates})
            board.refresh()
    first, second = file.getvalue().splitlines()
    assert "left" not in first
    assert second.endswith("left 1:17")  # 1,590 of 2,000 in 20/410 s each
