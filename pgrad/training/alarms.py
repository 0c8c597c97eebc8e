"""What metrics give warning of, told once in a run."""

from collections.abc import Callable, Mapping

from pgrad.algorithms.metrics import COLLAPSE
from pgrad.algorithms.sampler import RHO_MAX
from pgrad.training.records import HALF_TOLERANCE
from pgrad.training.sampling import CORRECTED, CORRECTED_FROM

ALARMS = {
    "train/ess_collapsed": (
        f"the importance weights have collapsed: replayed data are worth less than {COLLAPSE:.0%} of their "
        "number (train/ess), a few old decisions count for all; replay less or younger data, take smaller "
        "steps, or truncate the weights (V-trace)"
    ),
    CORRECTED: (
        f"sampling and training differ by {CORRECTED_FROM:g} nats or more about a token, by rounding to "
        f"bfloat16 or by vLLM (sampling/sampling_logp_difference/max): such updates are weighed by π/μ, "
        f"at most {RHO_MAX:g}; from {HALF_TOLERANCE:g} on a run stops; dtype float32 with engine own has "
        "no such gap"
    ),
}
"""By a metric that is half and more where it is so; of corrections the first is told."""

LEAST = {CORRECTED: 1e-9}


class Alarms:
    """Listens to rows of metrics, which are means over the updates since the last one."""

    def __init__(self, warn: Callable[[str], object]) -> None:
        self._warn = warn
        self._told: set[str] = set()

    def hear(self, metrics: Mapping[str, float], failures: Mapping[str, str] | None = None) -> None:
        """Warn of what held for half of the updates or more, if that has not been told yet.

        failures: by the name of a reward what it failed with; warned of once for each.
        """
        for name, error in (failures or {}).items():
            if name not in self._told:
                self._told.add(name)
                self._warn(
                    f"warning: reward {name} failed on a completion, which is left out and counted "
                    f"(rewards/{name}/failed): {error}"
                )
        for key, text in ALARMS.items():
            if key not in self._told and metrics.get(key, 0.0) >= LEAST.get(key, 0.5):
                self._told.add(key)
                self._warn(f"warning: {text}")
