"""One step of the plain policy gradient on the bicycle, grown until it throws the rider off.

The picture one-step.png of docs/bicycle.md; `examples.bicycle_story` draws it with all the others.
"""

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor

import pgrad as pg
from pgrad.data import Episodes, map_tree
from pgrad.math.importance import effective_sample_size
from pgrad.math.objectives import importance_weighted
from pgrad.models import Agent
from pgrad.recipes import RECIPES
from pgrad.report.evaluate import evaluate
from pgrad.report.plots import COLOURS, DASHES
from pgrad.training.collect import Collector
from pgrad.training.learner import Learner
from pgrad.worlds import make

BLUE, RED, GREEN, PINK = COLOURS[:4]
PLAIN = pg.Reinforce(gamma=1.0, baseline="leave-one-out")
RIDES = 32  # per step of the plain gradient
TOP = 640.0  # of the picture of returns
FIVE = math.radians(5.0)


def panel(figure: Figure, place: Any, title: str, xlabel: str = "", ylabel: str = "") -> Any:
    """Axes in the style of the library's own plots."""
    axes = figure.add_subplot(place)
    axes.set_title(title, loc="left", fontsize=10.5)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(axis="y", color="0.88", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("0.4")
    axes.tick_params(colors="0.25")
    return axes


def canvas(width: float, height: float) -> Figure:
    """A figure without pyplot and its global state."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


class Step(NamedTuple):
    """After one step: the return, what the old advantages promised, and how far it went."""

    real: float
    promised: float
    divergence: float
    samples: float  # effective, as a share of the decisions
    wanted: float  # handlebar in degrees, in the state where it was 5°


def mean_return(agent: Agent, rides: int = 256) -> float:
    """Of whole rides as they are ridden while learning, with noise."""
    world, generator = make("bicycle", n_envs=rides, seed=99), Generator().manual_seed(99)
    return evaluate(agent, world, episodes=rides, deterministic=False, generator=generator).mean


def where_it_wants_five_degrees(agent: Agent) -> Tensor:
    """A bicycle at 4 m/s whose handlebar is at 5°, leaning as it must for the policy to keep it there."""
    lean = torch.linspace(-0.7, 0.7, 2001)
    states = torch.stack((lean, 0 * lean, 0 * lean + 4.0, 0 * lean + FIVE), -1)
    nearest = (agent.policy(states).mode[:, 0] - FIVE).abs().argmin()
    return states[nearest]


def try_steps(agent: Agent, sizes: Any, seed: int) -> tuple[list[Step], dict[str, float]]:
    """Steps of all sizes along one gradient of 32 rides; the return after one update of TRPO and of PPO."""
    world, generator = make("bicycle", n_envs=RIDES, seed=seed), Generator().manual_seed(seed)
    traj = Collector(world, agent, generator).collect(Episodes(RIDES))
    batch, before = PLAIN.credit(agent, traj), mean_return(agent)
    actor = [p for name, p in agent.named_parameters() if not name.startswith("network.critic")]
    gradient = torch.autograd.grad(PLAIN.loss(agent, batch)[0], actor)
    start, old = [p.detach().clone() for p in actor], map_tree(Tensor.clone, agent.policy(batch.obs))
    state, weight, steps = where_it_wants_five_degrees(agent), batch.mask / RIDES, []
    with torch.no_grad():
        for size in sizes:
            for p, origin, slope in zip(actor, start, gradient, strict=True):
                p.copy_(origin - float(size) * slope)
            policy = agent.policy(batch.obs)
            logp = policy.log_prob(batch.action)
            gain = importance_weighted(logp, batch.logp, batch.advantage) - batch.advantage
            ratio = (logp - batch.logp).exp()
            kept = batch.mask > 0
            steps.append(
                Step(
                    mean_return(agent),
                    before + float((gain * weight).sum()),
                    float(old.kl(policy)[kept].mean()),
                    float(effective_sample_size(ratio[kept].double()) / kept.sum()),
                    math.degrees(float(agent.policy(state).mode)),
                )
            )
        for p, origin in zip(actor, start, strict=True):
            p.copy_(origin)
    bounded = {}
    for name in ("trpo", "ppo"):
        algorithm, pupil = RECIPES[f"{name}-bicycle"].algorithm, deepcopy(agent)
        algorithm.update(Learner(pupil, algorithm, Generator().manual_seed(seed)), traj)
        bounded[name] = mean_return(pupil)
    return steps, bounded


def half_way() -> pg.Run:
    """The first rider of a training, looked at after every window, whose mean return is above 300 of 500."""
    recipe = RECIPES["ppo-bicycle"]
    for total in range(8_192, 65_536, 2_048):
        run = pg.train(
            recipe.algorithm,
            "bicycle",
            total_timesteps=total,
            agent=replace(recipe.agent, log_std_init=-1.5),
            progress=False,
        )
        if mean_return(run.agent) > 300.0:
            break
    return run


def draw_one_step(picture: Path) -> None:
    """The return after one step against its size, the promise, and the handlebar that is wanted then."""
    torch.set_num_threads(1)
    run = half_way()
    before = mean_return(run.agent)
    print(f"half-way, after {run.timesteps:,} steps: return {before:.0f}")
    sizes = np.logspace(-8, -4, 25)
    tried = [try_steps(run.agent, sizes, seed) for seed in range(5)]
    columns = np.array([[tuple(step) for step in steps] for steps, _ in tried])  # [seeds, sizes, numbers]
    real, promised, divergence, samples, wanted = np.moveaxis(np.median(columns, 0), -1, 0)
    for row in zip(sizes, real, promised, divergence, samples, wanted, strict=True):
        print("step {:.1e}: return {:.0f}, promised {:.0f}, KL {:.2g}, share {:.3f}, {:.1f}°".format(*row))
    bound = float(np.interp(math.log(0.01), np.log(divergence), np.log(sizes)))
    figure = canvas(7.2, 7.4)
    grid = figure.add_gridspec(3, 1, height_ratios=(2.2, 1, 1))
    top = panel(figure, grid[0], "One step of the plain policy gradient", "", "mean return")
    top.axhline(before, color="0.5", lw=1, ls=":")
    top.text(sizes[0] * 1.1, before - 12, "before the step", fontsize=8, color="0.35", va="top")
    top.plot(sizes, columns[..., 0].T, lw=0.7, alpha=0.5, color=BLUE)
    top.plot(sizes, real, lw=2.4, color=BLUE, label="what it is (median of 5 gradients)")
    shown = int(np.argmax(promised > TOP)) + 1  # beyond it the promise is all noise
    promise = {"color": RED, "ls": DASHES[1], "label": "what the old advantages promise"}
    top.plot(sizes[:shown], promised[:shown], lw=2, **promise)
    for name, colour, dashes in (("trpo", GREEN, DASHES[2]), ("ppo", PINK, DASHES[3])):
        height = float(np.median([bounded[name] for _, bounded in tried]))
        print(f"{name}: {height:.0f} after one update, all {[round(b[name]) for _, b in tried]}")
        top.axhline(height, color=colour, ls=dashes, lw=1.6, label=f"one update of {name.upper()} instead")
    best = int(np.argmax(real))
    top.text(sizes[best], real[best] + 30, "heaven", fontsize=9, color=BLUE, ha="right")
    top.text(sizes[-1] * 0.95, real[-1] + 14, "hell", fontsize=9, color=BLUE, ha="right")
    top.set_ylim(-115, TOP)
    top.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 0.1))
    middle = panel(figure, grid[1], "The handlebar it wants where it wanted 5°", "", "degrees")
    middle.axhspan(60, 75, color="0.93", lw=0)
    middle.text(sizes[0] * 1.1, 64, "farther than it can turn", fontsize=8, color="0.35")
    middle.plot(sizes, np.abs(columns[..., 4]).T, lw=0.7, alpha=0.5, color=BLUE)
    middle.plot(sizes, np.median(np.abs(columns[..., 4]), 0), lw=2.4, color=BLUE)
    middle.set_yticks([5, 20, 35, 50])
    middle.set_ylim(0, 75)
    title = "How many of the old decisions still say something (effective sample size)"
    bottom = panel(figure, grid[2], title, "step size α", "share")
    bottom.plot(sizes, columns[..., 3].T, lw=0.7, alpha=0.5, color=BLUE)
    bottom.plot(sizes, samples, lw=2.4, color=BLUE)
    bottom.set_ylim(0, 1.05)
    for axes in (top, middle, bottom):
        axes.set_xscale("log")
        axes.set_xlim(float(sizes[0]), float(sizes[-1]))
        axes.axvline(math.exp(bound), color="0.3", lw=1)
    top.text(math.exp(bound) * 0.92, TOP - 8, "KL = 0.01", fontsize=8, color="0.25", ha="right", va="top")
    figure.savefig(picture)
