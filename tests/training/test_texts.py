"""What completions are said to have been like."""

import math

import pytest
import torch

from pgrad.data import unequal
from pgrad.models.language.generate import Completions
from pgrad.training.completions import as_trajectory
from pgrad.training.texts import TextStatistics, of_rounds

GENERATING = 2.0  # seconds


def completions(lengths: list[int], ended: list[bool]) -> Completions:
    n, most = len(lengths), max(lengths)
    inside = torch.arange(most) < torch.tensor(lengths).unsqueeze(1)
    zeros = torch.zeros(n, most)
    return Completions(zeros.long(), torch.tensor(lengths), zeros, 0.5 * inside, torch.tensor(ended))


def after(*rounds: list[float]) -> dict[str, float]:
    """The metrics after rounds of two groups of two."""
    told = TextStatistics()
    for reward in rounds:
        told.begin()
        told.update(
            completions([1, 3, 2, 4], [True, True, True, False]), torch.tensor(reward), 2, {}, GENERATING
        )
    return told.metrics()


def test_means_by_hand() -> None:
    told = after([0.0, 1.0, 0.5, 0.5])
    expected = {
        "reward": 0.5,
        "reward_std": 0.25,
        "frac_reward_zero_std": 0.5,
        "frac_reward_all_best": 0.0,
        "frac_reward_all_worst": 0.0,
        "completions/mean_length": 2.5,
        "completions/min_length": 1.0,
        "completions/max_length": 4.0,
        "completions/mean_terminated_length": 2.0,
        "completions/clipped_ratio": 0.25,
        "completions/unscored_ratio": 0.0,
        "entropy": 0.5,
        "time/tokens_per_second": 5.0,
    }
    assert {name: told[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rounds", "best", "worst"),
    [
        ([[0.0, 0.0, 0.0, 0.0]], None, None),
        ([[0.0, 0.0, 1.0, 1.0]], 0.5, 0.5),
        ([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]], 1.0, 0.0),
        ([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.5, 0.5]], 0.0, 0.5),
    ],
)
def test_equal_groups_are_good_or_bad_once_both_were_seen(
    rounds: list[list[float]], best: float | None, worst: float | None
) -> None:
    told = after(*rounds)
    assert (told.get("frac_reward_all_best"), told.get("frac_reward_all_worst")) == (best, worst)


def test_what_nobody_judged_is_in_no_mean() -> None:
    nan = math.nan
    told = after([nan, 1.0, nan, 0.0])
    assert (told["reward"], told["completions/unscored_ratio"]) == (0.5, 0.5)
    assert "reward" not in after([nan] * 4)


@pytest.mark.parametrize(
    ("reward", "equal", "best"),
    [
        ([1.0, 1.0, math.nan, 1.0], 1.0, 1.0),
        ([1.0, 0.0, math.nan, 1.0], 0.0, 0.0),
        ([math.nan, 1.0, 1.0, 1.0], 1.0, 1.0),
        ([math.nan] * 4, 1.0, 0.0),
        ([0.1 + 0.2, 0.3, 0.3, 0.3], 1.0, 0.0),
        ([1.0 + 1e-9, 1.0, 1.0, 1.0], 1.0, 1.0),
    ],
)
def test_a_group_is_equal_where_training_says_so(reward: list[float], equal: float, best: float) -> None:
    """By what was judged, in the precision in which it is learned."""
    told, found = TextStatistics(), completions([1] * 4, [True] * 4)
    told.update(found, torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64), 4, {}, GENERATING)
    told.begin()
    paid = torch.tensor(reward, dtype=torch.float64)
    told.update(found, paid, 4, {}, GENERATING)
    assert told.metrics()["frac_reward_zero_std"] == equal
    assert told.metrics()["frac_reward_all_best"] == best
    assert bool(unequal(as_trajectory([[1]] * 4, found, paid), 4).any()) == (equal == 0.0)


def test_what_was_counted_in_rounds_adds_up() -> None:
    rounds = [
        {"rewards/f/failed": 1.0, "rewards/f/mean": 0.5, "rewards/f/retried": 1.0},
        {"rewards/f/failed": 2.0, "rewards/f/mean": 1.0, "rewards/f/retried": 0.0},
        {"rewards/f/failed": 0.0, "rewards/f/retried": 0.0},  # nothing was scored, so there is no mean
    ]
    expected = {"rewards/f/failed": 3.0, "rewards/f/mean": 0.75, "rewards/f/retried": 1.0}
    assert of_rounds(rounds) == expected


def test_the_state_is_the_metrics_without_clocks() -> None:
    told, again = TextStatistics(), TextStatistics()
    told.begin()
    told.update(
        completions([1, 2], [True, True]), torch.tensor([0.0, 1.0]), 2, {"rewards/f/mean": 0.5}, GENERATING
    )
    assert "time/tokens_per_second" in told.metrics()
    state = told.state_dict()
    assert not [name for name in state["metrics"] if name.startswith("time/")]
    again.load_state_dict(state)
    assert again.metrics() == state["metrics"]
    assert again.state_dict() == state
    assert (again.finished, list(again.returns)) == (2, [0.0, 1.0])
