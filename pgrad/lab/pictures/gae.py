"""Bias and variance of generalised advantage estimation over λ, by how wrong the critic is."""

from typing import Any

import torch

from pgrad.drawing import COLOURS, DASHES
from pgrad.lab import exact
from pgrad.lab.claims.critics import exact_critic, gae_gradient, mistaken_critic
from pgrad.lab.pictures.style import canvas, label, name_lines
from pgrad.lab.problems import Case

LAMBDAS = [k / 20 for k in range(21)]


def picture(case: Case) -> Any:
    """Left the bias, right the variance of the estimate from one episode."""
    figure, (left, right) = canvas("bias  |E ĝ − ∇J| / |∇J|", "variance, one episode", height=2.6)
    truth = exact.gradient(case.problem, case.theta, case.gamma, case.steps).flatten()
    V = exact_critic(case)
    critics = {"exact V": V, "V + error": mistaken_critic(case), "V = 0": torch.zeros_like(V)}
    for k, critic in enumerate(critics.values()):
        style = {"color": COLOURS[k], "ls": DASHES[k], "lw": 1.8, "clip_on": False}
        found = [gae_gradient(case, critic, x) for x in LAMBDAS]
        left.plot(LAMBDAS, [float((each.mean - truth).norm() / truth.norm()) for each in found], **style)
        right.plot(LAMBDAS, [each.variance for each in found], **style)
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, 1)
        label(axes, "λ")
    name_lines(right, list(critics))
    return figure
