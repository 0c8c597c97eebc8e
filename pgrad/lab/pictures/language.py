"""What group comparison and averaging do where policies write."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pgrad.data import Trajectory
from pgrad.drawing import COLOURS, DASHES
from pgrad.lab.agent import TabularAgent
from pgrad.lab.claims.common import true_gradient
from pgrad.lab.claims.language import centred, eos_world, scaled, without_itself
from pgrad.lab.estimate import cosine, episode_sum, estimates, estimator
from pgrad.lab.pictures.style import canvas, dots, label, legend_of_dots, name_lines, rows
from pgrad.lab.problems import Case, random_problems
from pgrad.math.credit import reward_to_go
from pgrad.math.objectives import score_function
from pgrad.math.reduce import mean, per_sequence

GROUP = 8


def difficulty(_: Case) -> Any:
    """How much a prompt counts, by how often it is answered right: E ĝ in units of ∇J of that prompt."""
    q = torch.linspace(0.03, 0.97, 95, dtype=torch.float64)
    lines = {
        "group std, G → ∞": 1.0 / (q * (1 - q)).sqrt(),
        f"group std, G = {GROUP}": weight_of_prompt(q, scaled),
        "leave one out": weight_of_prompt(q, without_itself),
        f"mean only, G = {GROUP}": weight_of_prompt(q, centred),
    }
    figure, (axes,) = canvas("", height=2.7)
    for k, line in enumerate(lines.values()):
        axes.plot(q, line, color=COLOURS[k], ls=DASHES[k], lw=1.8)
    axes.set_xlim(0.03, 0.97)
    axes.set_ylim(0, 6.5)
    label(axes, "q, share of right answers to the prompt", "E ĝ / ∇q")
    name_lines(axes, list(lines))
    return figure


def weight_of_prompt(q: Tensor, credit: Callable[[Tensor], Tensor]) -> Tensor:
    """E[1/G Σᵢ Âᵢ ∇log p(rᵢ)] / ∇q for rewards that are 1 with probability q, by all counts of right answers.

    ∇log p is ∇q/q of a right answer and −∇q/(1−q) of a wrong one.
    """
    right = torch.arange(GROUP + 1)
    reward = (torch.arange(GROUP) < right.unsqueeze(1)).double()  # [G+1, G]
    advantage = credit(reward)
    ways = torch.tensor([math.comb(GROUP, k) for k in right.tolist()], dtype=torch.float64)
    q = q.unsqueeze(1)
    p = ways * q**right * (1 - q) ** (GROUP - right)  # [Q, G+1]
    up, down = (advantage * reward).sum(1) / GROUP, (advantage * (1 - reward)).sum(1) / GROUP
    return (p * (up / q - down / (1 - q))).sum(1)


def averaging(case: Case) -> Any:
    """The angle between E ĝ and ∇J for three averages over tokens, from batches of two answers."""
    figure, (axes,) = canvas("", height=2.1)
    here, others = eos_world(case), [eos_world(other) for other in random_problems()]
    averages = {"constant": episode_sum, "per token": mean, "per sequence": per_sequence}
    most = []
    for y, reduce in enumerate(averages.values()):
        x = [angle(world, reduce) for world in others]
        dots(axes, y, x, [angle(here, reduce)])
        most.append(max([*x, angle(here, reduce)]))
    rows(axes, list(averages), [f"up to {x:.2g}°" if x > 1e-4 else "always 0" for x in most])
    legend_of_dots(axes, "uniform policy", "20 random policies")
    label(axes, "angle between E ĝ and ∇J, degrees")
    return figure


def angle(world: Case, reduce: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Between the expectation of an estimate from two answers and ∇J, in degrees."""

    def credit(agent: TabularAgent, traj: Trajectory) -> Tensor:
        return reward_to_go(traj.reward, traj.done, world.gamma)

    estimate = estimator(credit, lambda logp, old, advantage: score_function(logp, advantage), reduce)
    close = cosine(estimates(estimate, world, episodes=2).mean, true_gradient(world))
    return math.degrees(math.acos(max(-1.0, min(1.0, close))))
