"""What is shown of a language model's training: rewards, lengths, divergences, times and samples."""

import io

import pytest

from pgrad.training.console import Console
from pgrad.training.shown import one_line, times
from pgrad.training.stages import shares
from tests.training.test_console import METRICS, Clock, Terminal, clock, pictures, terminal

__all__ = ["clock", "terminal"]

TOLD = METRICS | {
    "reward": 0.412,
    "reward_std": 0.31,
    "frac_reward_zero_std": 0.25,
    "completions/mean_length": 17.25,
    "completions/clipped_ratio": 0.0625,
    "entropy": 1.234,
    "kl": 0.0123,
    "kl/k3": 0.0145,
    "clip_ratio/low_mean": 0.01,
    "clip_ratio/high_mean": 0.03,
    "sampling/sampling_logp_difference/max": 4.8e-7,
    "time/tokens_per_second": 12345.0,
    "time/generate": 6.0,
    "time/reward": 1.0,
    "time/update": 3.0,
}
SAMPLES = [
    {"prompt": "first=", "completion": "one", "reward": 1.0},
    {"prompt": "1+2=", "completion": "3\nindeed", "reward": 0.5},
    {"prompt": [{"role": "user", "content": "Hello?"}], "completion": "World", "reward": None},
]


def test_the_table_and_the_last_samples(clock: Clock, terminal: Terminal) -> None:
    with Console(100_000, "GRPO · parity", file=terminal, clock=clock) as console:
        clock.now += 2
        console.update(20_000, TOLD, SAMPLES)
        console.update(30_000)  # the samples stay
    shown = pictures(terminal)[-1]
    rows = [line.split("  ") for line in shown]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert ["reward", "0.412", "KL to the reference", "0.0123"] in cells
    assert ["reward deviation", "0.31", "its k3", "0.0145"] in cells
    assert ["groups all equal", "25%", "KL of the update", "0.00812"] in cells
    assert ["completion length", "17.2", "clipped below", "1%"] in cells
    assert ["cut off", "6%", "clipped above", "3%"] in cells
    assert any(cell[-2:] == ["sampler gap", "4.8e-07"] for cell in cells)
    left = {cell[0]: cell[1] for cell in cells if len(cell) > 1}
    assert left["tokens/s"] == "12.3k"
    assert shown[-3] == "time   generate 60%  reward 10%  update 30%"
    assert not any("episode return" in line for line in shown)
    assert shown[-2:] == ["   0.5  1+2= → 3⏎indeed", "not judged  Hello? → World"]


def test_the_lines(clock: Clock) -> None:
    file = io.StringIO()
    with Console(100_000, file=file, clock=clock) as console:
        clock.now += 2
        console.update(20_480, TOLD, SAMPLES)
    expected = (
        " 20480/100000  reward  0.412  length  17.2  eval  498.2  12.3k tokens/s  kl 0.0081  left 0:07\n"
        "took 0:02\n"
    )
    assert file.getvalue() == expected


def test_shares_add_up_and_need_a_clock() -> None:
    assert shares({"time/generate": 1.0, "time/update": 3.0, "time/fps": 9.0}) == {
        "generate": 0.25,
        "update": 0.75,
    }
    assert shares({"reward": 1.0, "time/update": 0.0}) == {}
    assert times({"time/fps": 9.0}) == ""
    assert times({"time/world": 1.0, "time/act": 0.0, "time/update": 1.0}) == "time   world 50%  update 50%"


@pytest.mark.parametrize("width", [20, 40, 80])
def test_long_texts_are_cut_where_they_matter_least(width: int) -> None:
    """Of a prompt its beginning, of a completion its end; short ones stay whole."""
    sample = {"prompt": "p" * 100 + "END", "completion": "BEGIN" + "c" * 100, "reward": 0.25}
    line = one_line(sample, width)
    assert len(line) <= width
    assert line.startswith("  0.25  …")
    assert "END → BEG" in line or width == 20
    assert line.endswith("c…") or width == 20
    assert one_line({"prompt": "ab=", "completion": "ab", "reward": 1.0}, width) == "     1  ab= → ab"
