"""Importance weights: what they cost when the policy moves away, and when episodes get longer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pgrad.drawing import COLOURS, DASHES
from pgrad.lab import exact
from pgrad.lab.claims import weights
from pgrad.lab.estimate import variance
from pgrad.lab.pictures.style import OLD, SMALL, canvas, label, name_lines
from pgrad.lab.problems import Case
from pgrad.math.importance import effective_sample_size

MOST = 50_000  # trajectories of the longest horizon drawn

WEIGHTS: dict[str, weights.Form] = {
    "trajectory": weights.whole,
    "prefix": weights.prefix,
    "marginal": weights.marginal,
    "step": weights.step,
}

FORMS: dict[str, weights.Form] = {
    "trajectory · R": weights.times(weights.whole, weights.total),
    "trajectory · Gₜ": weights.times(weights.whole, weights.to_go),
    "per decision": weights.per_decision,
    "prefix · Gₜ": weights.times(weights.prefix, weights.to_go),
    "marginal · Q": weights.times(weights.marginal, weights.new_value),
    "step · A": weights.times(weights.step, weights.old_advantage),
}
BIASED = ("prefix · Gₜ", "step · A")

COLOUR = dict(zip(FORMS, (COLOURS[6], *COLOURS[:5]), strict=True)) | {
    "trajectory": COLOURS[6],
    "prefix": COLOURS[2],
    "marginal": COLOURS[3],
    "step": COLOURS[4],
}


def over_distance(case: Case) -> Any:
    """Variance and effective sample size against the distance c between the policy and the one that acted."""
    distances = [k / 10 for k in range(11)]
    figure, (left, right) = canvas("variance, one episode", "effective sample size, share", height=2.9)
    _draw(left, right, distances, [case.at(c) for c in distances], [1.0] * len(distances))
    for axes in (left, right):
        label(axes, f"distance c:  θ = {OLD} + c·Δ")
    return figure


def over_horizon(case: Case) -> Any:
    """The same against the number of decisions, at c = 1; the variance in units of |∇J|²."""
    pairs = case.problem.n_states * case.problem.n_actions
    horizons = [T for T in range(1, 9) if pairs**T <= MOST]
    cases = [_with_steps(case, T).at(1.0) for T in horizons]
    squares = [float(exact.gradient(x.problem, x.theta, x.gamma, x.steps).square().sum()) for x in cases]
    figure, (left, right) = canvas("variance / |∇J|²", "effective sample size, share", height=2.9)
    _draw(left, right, horizons, cases, squares)
    for axes in (left, right):
        axes.set_xticks(horizons)
        label(axes, "decisions T")
    return figure


def _draw(left: Any, right: Any, x: Sequence[float], cases: Sequence[Case], units: Sequence[float]) -> None:
    for name, form in FORMS.items():
        found = [
            variance(weights.score_times(form, case), case) / unit
            for case, unit in zip(cases, units, strict=True)
        ]
        left.plot(x, found, color=COLOUR[name], ls=DASHES[1] if name in BIASED else "-", lw=1.6)
    for name, weight in WEIGHTS.items():
        right.plot(x, [_share(weight, case) for case in cases], color=COLOUR[name], lw=1.6)
    left.set_yscale("log")
    right.set_ylim(0, 1.03)
    for axes in (left, right):
        axes.set_xlim(x[0], x[-1])
        axes.tick_params(axis="y", which="minor", length=0)
    left.annotate("dashed: biased", (0.04, 0.93), xycoords="axes fraction", fontsize=SMALL, color="0.35")
    name_lines(left, list(FORMS))
    name_lines(right, list(WEIGHTS))


def _share(weight: weights.Form, case: Case) -> float:
    """Effective sample size over all decisions, as a fraction of them."""
    traj = case.trajectory
    found = weight(case, weights.new_logp(case), traj)
    return float(effective_sample_size(found, traj.mask) / traj.mask.sum())


def _with_steps(case: Case, steps: int) -> Case:
    if case.problem.horizon is None:
        return replace(case, window=steps)
    return replace(case, problem=replace(case.problem, horizon=steps))
