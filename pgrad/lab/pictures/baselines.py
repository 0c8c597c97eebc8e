"""Variance by baseline."""

from typing import Any

import torch
from torch import Tensor

from pgrad.lab import exact
from pgrad.lab.claims.returns import best_table, return_minus, step_optimum
from pgrad.lab.estimate import variance
from pgrad.lab.pictures.style import SMALL, canvas, dots, label, legend_of_dots, rows
from pgrad.lab.problems import Case, random_problems
from pgrad.math.baselines import batch_mean
from pgrad.math.credit import reward_to_go


def picture(case: Case) -> Any:
    """One row a baseline: on this problem and on 20 random ones, as a share of the variance without any."""
    figure, (axes,) = canvas("", height=2.5)
    spread, here = [_shares(variances(other)) for other in random_problems()], variances(case)
    for y, (name, share) in enumerate(_shares(here).items()):
        dots(axes, y, [shares[name] for shares in spread], [share])
    rows(axes, list(here), [f"{x:.4g}" for x in here.values()])
    header = {"xycoords": ("axes fraction", "data"), "fontsize": SMALL, "color": "0.15"}
    axes.annotate("variance", (1.02, -0.55), annotation_clip=False, **header)
    axes.axvline(1.0, color="0.4", lw=0.8, zorder=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    label(axes, "variance of the gradient, as a share of that without a baseline")
    legend_of_dots(axes, case.name, "20 random problems")
    return figure


def variances(case: Case) -> dict[str, float]:
    """Of Σ γᵗ ∇log π(aₜ|sₜ)·(Gₜ − b(t, sₜ)) from one episode, for five baselines b."""
    values, traj = exact.values(case.problem, case.theta, case.gamma, case.steps), case.trajectory
    returns = reward_to_go(traj.reward, traj.done, case.gamma)
    tables: dict[str, Tensor] = {
        "none": torch.zeros_like(values.V[:-1]),
        "mean return": batch_mean(returns, traj.mask[0].expand_as(returns)).expand_as(values.V[:-1]),
        "V": values.V[:-1],
        "b* of one step": step_optimum(case, values.Q),
        "b* of all steps": best_table(case),
    }
    return {name: variance(return_minus(case, table), case) for name, table in tables.items()}


def _shares(here: dict[str, float]) -> dict[str, float]:
    return {name: x / here["none"] for name, x in here.items()}
