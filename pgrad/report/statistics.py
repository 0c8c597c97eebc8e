"""Statistics over episodes and seeds (Agarwal et al. 2021, arXiv 2108.13264)."""

from collections.abc import Sequence
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
