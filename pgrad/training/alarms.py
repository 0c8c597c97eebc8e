"""What metrics give warning of, told once in a run."""

from collections.abc import Callable, Mapping

from pgrad.algorithms.metrics import COLLAPSE

ALARMS = {
    "train/ess_collapsed": (
        f"the importance weights have collapsed: replayed data are worth less than {COLLAPSE:.0%} of their "
        "number (train/ess), a few old decisions count for all; replay less or younger data, take smaller "
        "steps, or truncate the weights (V-trace)"
    ),
    "sampling/sampling_logp_difference/max": (
        "sampling and training disagree about a token by half a nat or more "
        "(sampling/sampling_logp_difference): take dtype float32, or weigh tokens by both (rho_max 2)"
    ),
}
"""By a metric that is half and more where it is so."""


class Alarms:
    """Listens to rows of metrics, which are means over the updates since the last one."""

    def __init__(self, warn: Callable[[str], object]) -> None:
        self._warn = warn
        self._told: set[str] = set()

    def hear(self, metrics: Mapping[str, float]) -> None:
        """Warn of what held for half of the updates or more, if that has not been told yet."""
        for key, text in ALARMS.items():
            if key not in self._told and metrics.get(key, 0.0) >= 0.5:
                self._told.add(key)
                self._warn(f"warning: {text}")
