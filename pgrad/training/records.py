"""What gradient steps reported, as the numbers of an update, and what in them means that it went wrong."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pgrad.algorithms.protocol import Metrics
from pgrad.algorithms.sampler import SAMPLING
from pgrad.data.handover import hand_over
from pgrad.errors import TrainingError

RATIO_TOLERANCE = {"cpu": 1e-3, "cuda": 2e-2}
"""Largest |log π − log μ| on fresh data that rounding can explain: float32's, or TF32's in convolutions."""

HALF_TOLERANCE = 1.0
"""The same in bfloat16, and by another engine: log-probabilities of rare tokens are −10 and less."""

LOG_RATIO = "train/max_log_ratio"
MOVED, REUSED = "train/approx_kl", "train/ess"
NORM = "grad_norm"
WATCHED = ("train/loss", "train/value_loss")
"""What must be finite, beside the norms of gradients."""


Record = Mapping[str, Tensor | float]
"""What a step reported, as it is kept until the update is over."""


def noted(metrics: Metrics) -> Record:
    """As numbers where that waits for no device.

    Small tensors that stay lie between the large ones of a step that go: in what is left of these the next
    step's do not fit, and memory grows with every step.
    """
    return {name: x.float().item() if x.is_cpu else x for name, x in metrics.items()}


def averaged(
    records: Sequence[Record], extra: Metrics, device: torch.device
) -> tuple[dict[str, float], float | None]:
    """The means over steps, and `extra`, as numbers: an iteration's one synchronisation.

    The second is max |log π − log μ| before the first step, None where nobody measured it. How far the policy
    has moved is measured before each step, and left out where one step on fresh decisions is all: it is 0.
    """
    columns: dict[str, list[Tensor | float]] = {}
    for record in records:
        for key, value in record.items():
            columns.setdefault(key, []).append(value)
    columns = {key: x[:1] if key.startswith(SAMPLING) else x for key, x in columns.items()}
    if len(columns.get(MOVED, ())) == 1 and REUSED not in extra:
        del columns[MOVED]
    columns |= {key: [value] for key, value in extra.items()}
    left = iter(_numbers([x for values in columns.values() for x in values], device))
    numbers = {key: [next(left) for _ in values] for key, values in columns.items()}
    gap = numbers.pop(LOG_RATIO)[0] if LOG_RATIO in numbers else None
    return {key: sum(x) / len(x) for key, x in numbers.items()}, gap


def of_group(metrics: Metrics, group: str | None) -> Metrics:
    """The norm of the gradient under the name of the group that was stepped alone."""
    if group is None:
        return metrics
    name = f"train/{NORM}"
    return {(f"train/{group}_{NORM}" if key == name else key): x for key, x in metrics.items()}


def explained(agent: Any, device: torch.device) -> float:
    """Up to which |log π − log μ| rounding explains that training and sampling differ."""
    apart = getattr(getattr(agent, "network", None), "rounds_apart", False)
    return HALF_TOLERANCE if apart else RATIO_TOLERANCE.get(device.type, 1e-3)


def require_sound(metrics: dict[str, float], gap: float | None, tolerance: float, n_updates: int) -> None:
    """Raises TrainingError where a gradient was not finite, or the policy that is trained did not agree with
    the policy that acted before the first step."""
    watched = [key for key in metrics if key in WATCHED or key.endswith(NORM)]
    bad = [key for key in watched if not math.isfinite(metrics[key])]
    if bad:
        raise TrainingError(
            f"{' and '.join(bad)} not finite after {n_updates} gradient steps; they moved "
            "nothing. Common causes: enormous rewards, too large a learning rate, a network that divides"
        )
    if gap is not None and not gap <= tolerance:
        raise TrainingError(
            "the policy that is trained is not the policy that acted: on fresh data, before any step, "
            f"|log ratio| is {gap:.2g} and must be 0. Common causes: dropout, batch "
            "normalisation, an observation normaliser that moved during collection"
        )


def together(parts: Sequence[Metrics], weights: Sequence[Tensor]) -> Metrics:
    """The metrics of a batch from those of its parts: sums of losses, extremes of extremes, else means."""
    total = torch.stack(list(weights))
    share = total / total.sum()
    columns = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}

    def one(name: str, x: Tensor) -> Tensor:
        if name == "train/loss":
            return x.sum()
        if "max" in (kind := name.rpartition("/")[2].split("_")):
            return x.amax()
        return x.amin() if "min" in kind else (share * x).sum()

    return {name: one(name, x) for name, x in columns.items()}


def _numbers(found: Sequence[Tensor | float], device: torch.device) -> list[float]:
    """Numbers as they are; scalars of any type, here or on `device`, in one copy."""
    tensors = [x for x in found if isinstance(x, Tensor)]
    same = [x if x.device == device else hand_over(x, device) for x in tensors]
    same = [x if x.dtype is torch.float32 else x.to(torch.float32) for x in same]
    copied = iter(torch.stack(same).tolist() if same else [])
    return [next(copied) if isinstance(x, Tensor) else x for x in found]
