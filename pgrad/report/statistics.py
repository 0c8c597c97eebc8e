"""Statistics over episodes and seeds (Agarwal et al. 2021, arXiv 2108.13264)."""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

RESAMPLES = 10_000

FEW = 5
"""Of fewer runs than these a bootstrap interval says little, and an interquartile mean less."""


def bootstrap_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Percentile-bootstrap interval of the mean, from a generator of its own: a pure function."""
    x = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(0).integers(len(x), size=(RESAMPLES, len(x)))
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(x[draws].mean(axis=1), [tail, 100.0 - tail])
    return float(low), float(high)


def share_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the share of ones among zeros and ones (Wilson 1927): none and all still leave doubt.

    The p for which |p̂ − p| = z·√(p·(1 − p)/n), with z the normal quantile.
    """
    n, p = len(values), sum(values) / len(values)
    z = NormalDist().inv_cdf(0.5 + 0.5 * confidence)
    shrink = 1.0 + z**2 / n
    centre = (p + z**2 / (2 * n)) / shrink
    half = z / shrink * math.sqrt(p * (1.0 - p) / n + z**2 / (4 * n**2))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean over episodes: of a share where all are 0 or 1, else by the bootstrap."""
    return share_interval(values) if set(values) <= {0.0, 1.0} else bootstrap_interval(values)


def interquartile_mean(values: Sequence[float]) -> float:
    """Mean of the middle half; the values at its two borders count by the share that lies inside."""
    x = np.sort(np.asarray(values, dtype=np.float64))
    n = len(x)
    inside = np.clip(
        np.minimum(np.arange(1, n + 1), 0.75 * n) - np.maximum(np.arange(n), 0.25 * n), 0.0, None
    )
    return float((inside * x).sum() / inside.sum())


def over_runs(values: Sequence[float]) -> dict[str, Any]:
    """The mean of one number per run, from 2 runs on its 95 % interval, from 5 the interquartile mean."""
    found: dict[str, Any] = {"mean": sum(values) / len(values)}
    found |= {"interval": bootstrap_interval(values)} if len(values) > 1 else {}
    return found | ({"iqm": interquartile_mean(values)} if len(values) >= FEW else {})


def told(found: dict[str, Any], runs: int, number: Callable[[float], str]) -> str:
    """The mean that `over_runs` found and how sure it is, in words; `number` writes one."""
    if "interval" not in found:
        return f"{number(found['mean'])} (one seed, no interval)"
    low, high = map(number, found["interval"])
    few = "" if runs >= FEW else f"; fewer than {FEW} seeds say little"
    return f"{number(found['mean'])} (95% interval over {runs} seeds {low} … {high}{few})"
