"""What completions were like, under TRL's names."""

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor

from pgrad.data.columns import ends
from pgrad.models.language.generate import Completions
from pgrad.training.episodes import WINDOW

COUNTED = ("/unscored", "/failed", "/retried")
"""Ends of the names of what is counted."""


class TextStatistics:
    """Rewards and lengths of the last completions: of one collection at least."""

    def __init__(self) -> None:
        self.finished = 0
        self.returns: deque[float] = deque(maxlen=WINDOW)
        self._metrics: dict[str, float] = {}
        self._extremes = (math.inf, -math.inf)  # the lowest and the highest reward so far
        self._rows: list[tuple[Tensor, ...]] = []
        self._others: list[dict[str, float]] = []
        self._generating = 0.0  # seconds

    def begin(self) -> None:
        """Let the next round be the first of a collection."""
        self._rows, self._others, self._generating = [], [], 0.0

    def update(
        self,
        found: Completions,
        reward: Tensor,
        group: int,
        others: dict[str, float],
        generating: float,
    ) -> None:
        """Take in a round of completions, `group` in a row of one prompt.

        others: what else there is to report of the round; generating: how many seconds writing them took.
        """
        entropy = found.entropy.sum(1) / found.length.clamp(min=1)
        row = (reward.to(torch.float64), found.length, found.ended, entropy)
        self._rows.append(tuple(x.cpu() for x in row))
        reward, length, ended, entropy = (torch.cat(column) for column in zip(*self._rows, strict=True))
        self._others.append(others)
        self._generating += generating
        judged = reward[~reward.isnan()]
        self.finished += len(found.length)
        self.returns = deque(judged.tolist(), maxlen=max(WINDOW, len(judged)))
        groups = torch.unflatten(reward, 0, (-1, group))
        spread = groups if group > 1 else groups.T
        numbers = {
            "rollout/ep_rew_mean": judged.mean(),
            "rollout/ep_len_mean": length.double().mean(),
            "reward": judged.mean(),
            "reward_std": spread.std(1, correction=0).nanmean(),
            "entropy": entropy.mean(),
            "completions/mean_length": length.double().mean(),
            "completions/min_length": length.min(),
            "completions/max_length": length.max(),
            "completions/mean_terminated_length": length[ended].double().mean(),
            "completions/clipped_ratio": (~ended).double().mean(),
            "completions/unscored_ratio": reward.isnan().double().mean(),
        }
        if group > 1:
            learned = reward.float()  # to training, rewards that round alike are equal
            lowest, highest = ends(learned, ~learned.isnan(), group)
            equal = ~(lowest < highest)  # nor does a group teach anything that nobody could judge
            numbers["frac_reward_zero_std"] = equal.double().mean()
            low, high = self._extremes = extremes(judged.float(), self._extremes)
            if low < high:  # before that, nobody knows what is good and what is bad
                numbers["frac_reward_all_best"] = (equal & (lowest == high)).double().mean()
                numbers["frac_reward_all_worst"] = (equal & (lowest == low)).double().mean()
        found_numbers = {name: float(x) for name, x in numbers.items()}
        self._metrics = {name: x for name, x in found_numbers.items() if not math.isnan(x)}
        self._metrics |= of_rounds(self._others)
        self._metrics["time/tokens_per_second"] = float(length.sum()) / max(self._generating, 1e-9)

    def metrics(self) -> dict[str, float]:
        """Of the last collection; empty before the first."""
        return dict(self._metrics)

    def state_dict(self) -> dict[str, Any]:
        """What `metrics` would tell, clocks left out: a state is the same on every day."""
        told = {name: x for name, x in self._metrics.items() if not name.startswith("time/")}
        return {
            "finished": self.finished,
            "returns": list(self.returns),
            "extremes": list(self._extremes),
            "metrics": told,
            "rows": [list(row) for row in self._rows],  # of a collection that is under way
            "others": list(self._others),
            "generating": self._generating,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it back."""
        self.finished, self._metrics = state["finished"], dict(state["metrics"])
        low, high = state["extremes"]
        self._extremes = low, high
        self.returns = deque(state["returns"], maxlen=max(WINDOW, len(state["returns"])))
        self._rows = [tuple(row) for row in state.get("rows", [])]
        self._others, self._generating = list(state.get("others", [])), state.get("generating", 0.0)


def of_rounds(rounds: list[dict[str, float]]) -> dict[str, float]:
    """What rounds report as one: sums of what was counted in each, means of the rest."""
    columns: dict[str, list[float]] = {}
    for one in rounds:
        for name, x in one.items():
            columns.setdefault(name, []).append(x)
    return {name: sum(x) / (1 if name.endswith(COUNTED) else len(x)) for name, x in columns.items()}


def extremes(rewards: Tensor, before: tuple[float, float]) -> tuple[float, float]:
    """The lowest and the highest of these rewards and of those before."""
    if not len(rewards):
        return before
    return min(before[0], float(rewards.min())), max(before[1], float(rewards.max()))
