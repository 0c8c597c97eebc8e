"""The three estimators of a KL divergence: as functions of the ratio, and what they scatter."""

from typing import Any

import torch
from torch import Tensor

from pgrad.drawing import COLOURS, DASHES
from pgrad.lab.pictures.style import REF, dress, label, name_lines, say, sheet
from pgrad.lab.problems import Case
from pgrad.math import kl
from pgrad.math.distributions import Gaussian

DISTANCE = 0.7  # between the means of two Gaussians of deviation 1
ESTIMATORS = {"k1": kl.k1, "k2": kl.k2, "k3": kl.k3}
RANGE = (-1.5, 2.0)
BINS, TALLEST = 90, 4.0


def picture(_: Case) -> Any:
    """Left k1, k2 and k3 of r = π_ref/π; right how they scatter for two Gaussians, with mean and true KL."""
    figure = sheet(3.2)
    grid = figure.add_gridspec(3, 2, width_ratios=(1, 1.2))
    left = figure.add_subplot(grid[:, 0])
    dress(left)
    _functions(left)
    values, true = scatter()
    for k, (name, x) in enumerate(values.items()):
        axes = figure.add_subplot(grid[k, 1])
        dress(axes, f"{name}: mean {float(x.mean()):.3f}, deviation {float(x.std()):.3f}")
        counts, edges = torch.histogram(x, bins=BINS, range=RANGE, density=True)
        axes.stairs(counts.clamp(max=TALLEST), edges, color=COLOURS[k], fill=True, alpha=0.45)
        axes.axvline(true, color="black", lw=1.0)
        axes.plot(
            [float(x.mean())], [0], marker="^", ms=8, color=COLOURS[k], mec="white", clip_on=False, zorder=5
        )
        axes.set_xlim(*RANGE)
        axes.set_ylim(0, TALLEST if name != "k1" else None)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.tick_params(labelbottom=k == 2)
        if k == 0:
            say(axes, f"│ KL = {true:.3f}", (1.25, axes.get_ylim()[1] * 0.85), (0, 0))
    label(axes, "estimate (▲ its mean)")
    return figure


def _functions(axes: Any) -> None:
    """k1, k2 and k3 over r: log π = 0 and log π_ref = log r."""
    r = torch.linspace(0.08, 3.0, 200, dtype=torch.float64)
    for k, f in enumerate(ESTIMATORS.values()):
        axes.plot(r, f(torch.zeros_like(r), r.log()), color=COLOURS[k], ls=DASHES[k], lw=1.8)
    axes.axhline(0.0, color="0.6", lw=0.8)
    axes.set_xlim(0, 3)
    axes.set_ylim(-1.2, 2.6)
    label(axes, f"r = {REF}(a) / π(a)", "estimate")
    name_lines(axes, ["k1 = −log r", "k2 = (log r)²/2", "k3 = r − 1 − log r"])


def scatter() -> tuple[dict[str, Tensor], float]:
    """Every estimator at equally likely actions of π, and KL(π‖π_ref)."""
    zero = torch.zeros(1, dtype=torch.float64)
    policy, ref = Gaussian(zero, zero), Gaussian(zero + DISTANCE, zero)
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    action = torch.special.ndtri(u).unsqueeze(1)
    logp, logp_ref = policy.log_prob(action), ref.log_prob(action)
    return {name: f(logp, logp_ref) for name, f in ESTIMATORS.items()}, float(policy.kl(ref))
