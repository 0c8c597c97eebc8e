"""What completions were like, under TRL's names."""

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor

from pgrad.models.language.generate import Completions
from pgrad.training.episodes import WINDOW


class TextStatistics:
    """Rewards and lengths of the last completions: of one collection at least."""

    def __init__(self) -> None:
        self.finished = 0
        self.returns: deque[float] = deque(maxlen=WINDOW)
        self._metrics: dict[str, float] = {}
        self._extremes = (math.inf, -math.inf)  # the lowest and the highest reward so far
        self._rows: list[tuple[Tensor, ...]] = []
        self._seconds: dict[str, float] = {}

    def begin(self) -> None:
        """Forget what was generated before."""
        self._rows, self._seconds = [], {}

    def update(
        self,
        found: Completions,
        reward: Tensor,
        group: int,
        others: dict[str, float],
        seconds: dict[str, float],
    ) -> None:
        """Take in a round of completions, `group` in a row of one prompt.

        others: what else there is to report of the round; seconds: how long its parts took.
        """
        entropy = found.entropy.sum(1) / found.length.clamp(min=1)
        row = (reward.to(torch.float64), found.length, found.ended, entropy)
        self._rows.append(tuple(x.cpu() for x in row))
        reward, length, ended, entropy = (torch.cat(column) for column in zip(*self._rows, strict=True))
        for name, number in seconds.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + number
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
            equal, first = (groups == groups[:, :1]).all(1), groups[:, 0]
            numbers["frac_reward_zero_std"] = equal.double().mean()
            low, high = self._extremes = extremes(judged, self._extremes)
            if low < high:  # before that, nobody knows what is good and what is bad
                numbers["frac_reward_all_best"] = (equal & (first == high)).double().mean()
                numbers["frac_reward_all_worst"] = (equal & (first == low)).double().mean()
        found_numbers = {name: float(x) for name, x in numbers.items()}
        self._metrics = {name: x for name, x in found_numbers.items() if not math.isnan(x)} | others
        self._metrics |= {f"time/{name}": x for name, x in self._seconds.items()}
        self._metrics["time/tokens_per_second"] = float(length.sum()) / max(self._seconds["generate"], 1e-9)

    def spent(self, what: str, seconds: float) -> None:
        """Note how long something else took that was done with the last collection."""
        self._metrics[f"time/{what}"] = seconds

    def metrics(self) -> dict[str, float]:
        """Of the last collection; empty before the first."""
        return dict(self._metrics)

    def state_dict(self) -> dict[str, Any]:
        """What `metrics` would tell, clocks left out: a state is the same on every day."""
        told = {name: x for name, x in self._metrics.items() if not name.startswith("time/")}
        returns, extremes_ = list(self.returns), list(self._extremes)
        return {"finished": self.finished, "returns": returns, "extremes": extremes_, "metrics": told}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it back."""
        self.finished, self._metrics = state["finished"], dict(state["metrics"])
        low, high = state["extremes"]
        self._extremes = low, high
        self.returns = deque(state["returns"], maxlen=max(WINDOW, len(state["returns"])))


def extremes(rewards: Tensor, before: tuple[float, float]) -> tuple[float, float]:
    """The lowest and the highest of these rewards and of those before."""
    if not len(rewards):
        return before
    return min(before[0], float(rewards.min())), max(before[1], float(rewards.max()))
