"""What the surrogate objectives promise, and what happens."""

import math
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from pgrad.drawing import COLOURS, DASHES
from pgrad.lab.claims.common import every_decision, gradient_of, surrogate, true_gradient
from pgrad.lab.claims.returns import bandit
from pgrad.lab.claims.surrogates import EPSILONS, ascent, clip_to, objective_at, ratios, shared_chain
from pgrad.lab.estimate import cosine
from pgrad.lab.pictures.style import CLIP, CPI, OLD, SMALL, canvas, label, name_lines, say
from pgrad.lab.problems import Case, random_case
from pgrad.math.objectives import importance_weighted

EPSILON = 0.2
PARTING = 637
"""The seed of a random problem chosen because J soon falls along the direction while L^CPI goes on rising."""

STEPS, RATE = 40, 0.1  # of the ascent drawn: the claim's step


def landscape(case: Case) -> Any:
    """J, L^CPI and L^CLIP along a line: where they touch, where the clip lies, and where they part."""
    figure, panels = canvas(case.name, "a random problem, chosen", height=3.0)
    reach = 1.4 / max(float(case.direction.abs().max()), 1e-9)
    _along(panels[0], case, -0.4 * reach, reach)
    _along(panels[1], random_case(PARTING, n_states=2), -1.0, 5.0)
    name_lines(panels[1], ["J", f"J({OLD}) + {CPI}", f"J({OLD}) + {CLIP}"])
    return figure


def _along(axes: Any, case: Case, first: float, last: float) -> None:
    distances = torch.linspace(first, last, 121, dtype=torch.float64).tolist()
    lines = _three(case, [case.theta + c * case.direction for c in distances])
    for k, line in enumerate(lines):
        axes.plot(distances, line, color=COLOURS[(k + 6) % 7], ls=DASHES[k], lw=1.8)
    inside = [c for c in distances if _furthest(case, case.theta + c * case.direction) <= EPSILON]
    axes.axvspan(min(inside), max(inside), color="0.9", lw=0, zorder=0)
    say(axes, "ratios in 1 ± ε", (max(inside), axes.get_ylim()[0]), (3, 3))
    axes.plot([0.0], [objective_at(case, case.theta)], "o", ms=5, mfc="white", mec="black", zorder=5)
    axes.set_xlim(first, last)
    label(axes, f"c:  θ = {OLD} + c·Δ")


def _three(case: Case, thetas: list[Tensor]) -> list[list[float]]:
    """J, J(θ_old) + L^CPI and J(θ_old) + L^CLIP of every policy."""
    batch, start = every_decision(case), objective_at(case, case.theta)
    surrogates = [surrogate(case, batch, how) for how in (importance_weighted, clip_to(EPSILON))]
    return [
        [objective_at(case, theta) for theta in thetas],
        *([start + float(L(theta)) for theta in thetas] for L in surrogates),
    ]


def _furthest(case: Case, theta: Tensor) -> float:
    """The largest |ratio − 1|."""
    return float((ratios(case, theta) - 1).abs().max())


def escape(_: Case) -> Any:
    """Two actions, π_old = (.1, .9), the first the better one: what ascent on L^CLIP does to their ratios."""
    arms = bandit(
        torch.tensor([0.1, 0.9], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    )
    steps = 500
    path = [
        ratios(arms, theta)[0].tolist() for theta in islice(ascent(arms, clip_to(EPSILON), 0.1), steps + 1)
    ]
    figure, (axes,) = canvas("", height=2.6)
    for k, line in enumerate(zip(*path, strict=True)):
        axes.plot(range(steps + 1), line, color=COLOURS[k], ls=DASHES[k], lw=1.8)
    axes.axhspan(1 - EPSILON, 1 + EPSILON, color="0.9", lw=0)
    axes.annotate("1 ± ε", (0.75 * steps, 1.0), fontsize=SMALL, ha="center", va="center", color="0.35")
    axes.set_xlim(0, steps)
    axes.set_ylim(0, None)
    label(axes, f"steps of gradient ascent on {CLIP}", "ratio  π / π$_{old}$")
    name_lines(axes, [f"good action, {path[-1][0]:.2f}", f"bad action, {path[-1][1]:.2f}"])
    return figure


def monotone(_: Case) -> Any:
    """A chain with one shared parameter: the best p for L^CLIP is worse than where it started."""
    chain = shared_chain(0.5, 1.8)
    p = torch.linspace(0.3, 0.75, 91, dtype=torch.float64)
    J, cpi, clip = _three(chain, list(torch.stack([p, 1 - p], 1).log().unsqueeze(1)))
    figure, (axes,) = canvas("", height=2.9)
    for k, line in enumerate((J, cpi, clip)):
        axes.plot(p, line, color=COLOURS[(k + 6) % 7], ls=DASHES[k], lw=1.8)
    best = max(range(len(p)), key=clip.__getitem__)
    x, start = float(p[best]), objective_at(chain, chain.theta)
    for at, text, offset in (
        ((0.5, start), f"p$_{{old}}$ = 0.5,  J = {start:.4f}", (-10, -40)),
        ((x, J[best]), f"p = {x:.2g},  J = {J[best]:.4f}", (-25, -50)),
    ):
        axes.plot(*at, "o", ms=5, mfc="white", mec="black", zorder=5)
        say(axes, text, at, offset, arrow=True, ha="center")
    axes.plot([x], [clip[best]], "*", ms=9, color=COLOURS[1], mec="white", zorder=5)
    say(axes, f"most {CLIP}", (x, clip[best]), (-25, 22), arrow=True, ha="right")
    axes.set_xlim(0.3, 0.75)
    label(axes, "p, the probability of going on, in all four states")
    name_lines(axes, ["J = p − 1.8 p⁴", f"J(p$_{{old}}$) + {CPI}", f"J(p$_{{old}}$) + {CLIP}"])
    return figure


def inner_epochs(case: Case) -> Any:
    """The angle between the gradient of L^CLIP and ∇J after k steps on the same data, for several ε."""
    figure, (left, right) = canvas("angle to ∇J, degrees", "J", height=2.7)
    ranges = {f"ε = {epsilon:g}": epsilon for epsilon in EPSILONS} | {"no clip": math.inf}
    for k, epsilon in enumerate(ranges.values()):
        path = list(islice(ascent(case, clip_to(epsilon), RATE), STEPS + 1))
        angles = _angles(case, epsilon, path)
        style = {"color": COLOURS[k], "ls": DASHES[k], "lw": 1.8}
        left.plot(range(len(angles)), angles, **style)
        if len(angles) <= STEPS:
            left.plot([len(angles) - 1], angles[-1:], "x", ms=6, mew=1.6, color=style["color"])
        right.plot(range(STEPS + 1), [objective_at(case, theta) for theta in path], **style)
    for axes in (left, right):
        axes.set_xlim(0, STEPS)
        label(axes, "steps k on the same data")
    left.set_ylim(0, 1.2 * left.get_ylim()[1])
    remark = {"xycoords": "axes fraction", "fontsize": SMALL, "color": "0.35", "ha": "right"}
    left.annotate("× nothing left to climb", (0.98, 0.94), **remark)
    name_lines(right, list(ranges))
    return figure


def _angles(case: Case, epsilon: float, path: list[Tensor]) -> list[float]:
    """Between ∇L^CLIP and ∇J in degrees, as long as there is something to climb."""
    climb, angles = surrogate(case, every_decision(case), clip_to(epsilon)), []
    for theta in path:
        gradient = gradient_of(climb, theta)
        if float(gradient.norm()) < 1e-6:
            break
        angles.append(math.degrees(math.acos(min(1.0, cosine(gradient, true_gradient(case.on(theta)))))))
    return angles
