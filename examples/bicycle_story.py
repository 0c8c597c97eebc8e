"""Draw the pictures of docs/bicycle.md and print its numbers: python -m examples.bicycle_story docs/bicycle.

Four riders who do not learn, one step of the plain policy gradient that grows until it throws the rider off,
and PPO and TRPO, which stay on the road. About five minutes on two cores.
"""

import math
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor

import pgrad as pg
from pgrad.data import Episodes, map_tree
from pgrad.drawing import COLOURS, DASHES
from pgrad.math.importance import effective_sample_size
from pgrad.math.objectives import importance_weighted
from pgrad.models import Agent, build_agent
from pgrad.recipes import RECIPES
from pgrad.report.evaluate import evaluate
from pgrad.report.plots import thousands
from pgrad.training.collect import Collector
from pgrad.training.learner import Learner
from pgrad.worlds import make
from pgrad.worlds.tensors.bicycle import Bicycle

BLUE, RED, GREEN, PINK = COLOURS[:4]
SPEC = RECIPES["ppo-bicycle"].agent
PLAIN = pg.Reinforce(gamma=1.0, baseline="leave-one-out")
TOP = 640.0  # of the picture of returns
RIDES = 32  # per step of the plain gradient
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


# Riders who do not learn -------------------------------------------------------------------------------


def lean_over_time(bicycle: Bicycle, rider: Callable[[Tensor], Tensor], steps: int = 500) -> list[float]:
    """Degrees after every step until it falls, from a lean of 5° at 4 m/s."""
    state = torch.tensor([[FIVE, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    leans = [5.0]
    for _ in range(steps):
        state, _, fallen = bicycle.step(state, rider(state[:, :1]), torch.zeros(1, 2))
        leans.append(math.degrees(float(state[0, 0])))
        if fallen:
            break
    return leans


def draw_riders(picture: Path) -> None:
    """The four riders of the notes, and what the turning of the handlebar is good for."""
    figure = canvas(9.0, 3.6)
    grid = figure.add_gridspec(1, 2)
    riders: dict[str, Callable[[Tensor], Tensor]] = {
        "hands off": torch.zeros_like,
        "always 5° to the right": lambda lean: torch.full_like(lean, FIVE),
        "always 50° to the right": lambda lean: torch.full_like(lean, 10 * FIVE),
        "twice the lean": lambda lean: 2 * lean,
    }
    axes = panel(figure, grid[0], "Four riders, leaning 5° at first", "seconds", "lean (°, to the right)")
    for k, (name, rider) in enumerate(riders.items()):
        leans = lean_over_time(Bicycle(), rider, 110)
        end = f"falls at {(len(leans) - 1) / 100:.2f} s" if abs(leans[-1]) > 45 else "stays up"
        print(f"{name}: {end}")
        seconds = (len(leans) - 1) / 100
        axes.plot(np.arange(len(leans)) / 100, leans, lw=2, color=COLOURS[k], ls=DASHES[k])
        axes.text(seconds + 0.05, leans[-1], f"{name}:\n{end}", fontsize=8, color=COLOURS[k], va="center")
        if abs(leans[-1]) > 45:
            axes.plot(seconds, leans[-1], "x", color=COLOURS[k], ms=7, mew=2)
    axes.set_xlim(-0.03, 1.55)
    axes.set_ylim(-58, 58)
    axes = panel(figure, grid[1], "Twice the lean, and nothing else", "seconds", "lean (°)")
    kinds = ((0.0, "a turned handlebar pushes"), (0.5, "… and so does its turning"))
    for k, (ahead, name) in enumerate(kinds):
        leans = lean_over_time(Bicycle(ahead=ahead), riders["twice the lean"])
        print(f"twice the lean, a = {ahead}: swings {max(map(abs, leans[-100:])):.2f}° at the end")
        axes.plot(np.arange(len(leans)) / 100, leans, lw=1.6, color=COLOURS[k], ls=DASHES[k], label=name)
    axes.set_ylim(-7, 8.5)
    axes.legend(frameon=False, fontsize=8, loc="upper right", ncols=2)
    figure.savefig(picture)


# One step ----------------------------------------------------------------------------------------------


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


def try_steps(agent: Agent, sizes: Tensor, seed: int) -> tuple[list[Step], dict[str, float]]:
    """Steps of all sizes along one gradient of 32 rides, and one update of TRPO and of PPO on them."""
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
                p.copy_(origin - size * slope)
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


def draw_one_step(picture: Path) -> None:
    """The return after one step against its size, the promise, and the handlebar that is wanted then."""
    torch.set_num_threads(1)
    run = pg.train(
        RECIPES["ppo-bicycle"].algorithm,
        "bicycle",
        total_timesteps=40_000,
        agent=replace(SPEC, log_std_init=-1.5),
        progress=False,
    )
    before = mean_return(run.agent)
    print(f"half-way, after {run.timesteps:,} steps: return {before:.0f}")
    sizes = torch.logspace(-8, -4, 25)
    tried = [try_steps(run.agent, sizes, seed) for seed in range(5)]
    columns = np.array([[tuple(step) for step in steps] for steps, _ in tried])  # [seeds, sizes, numbers]
    real, promised, divergence, samples, wanted = np.moveaxis(np.median(columns, 0), -1, 0)
    for row in zip(sizes.tolist(), real, promised, divergence, samples, wanted, strict=True):
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
    promise = {"lw": 2, "color": RED, "ls": DASHES[1], "label": "what the old advantages promise"}
    top.plot(sizes[:shown], promised[:shown], **promise)
    for name, colour, dashes in (("trpo", GREEN, DASHES[2]), ("ppo", PINK, DASHES[3])):
        height = float(np.median([bounded[name] for _, bounded in tried]))
        print(f"{name}: {height:.0f} after one update, all {[round(b[name]) for _, b in tried]}")
        top.axhline(height, color=colour, ls=dashes, lw=1.6, label=f"one update of {name.upper()} instead")
    best = int(np.argmax(real))
    top.text(sizes[best], real[best] + 12, "heaven", fontsize=9, color=BLUE, ha="right")
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


# Whole trainings ---------------------------------------------------------------------------------------

TOTAL, EVERY = 150_000, 6_000
Curve = tuple[list[float], list[float]]  # steps, seconds upright


def bounded_training(name: str, seed: int) -> Curve:
    """PPO or TRPO as in its recipe, evaluated on its way."""
    recipe = RECIPES[f"{name}-bicycle"]
    run = pg.train(
        recipe.algorithm,
        recipe.world,
        total_timesteps=TOTAL,
        seed=seed,
        agent=recipe.agent,
        threads=1,
        eval_every=EVERY,
        eval_episodes=50,
        progress=False,
    )
    rows = [row for row in run.history if "eval/mean_ep_length" in row]
    return [row["time/total_timesteps"] for row in rows], [row["eval/mean_ep_length"] / 100 for row in rows]


def plain_training(rate: float, seed: int) -> Curve:
    """θ ← θ + α·ĝ with ĝ from 32 rides at a time, evaluated on its way."""
    torch.set_num_threads(1)
    world, judge = make("bicycle", n_envs=RIDES, seed=seed), make("bicycle", n_envs=50, seed=seed + 1000)
    spaces, generator = (world.observation_space, world.action_space), Generator().manual_seed(seed)
    agent = build_agent(*spaces, SPEC, gamma=1.0, critic="none", generator=generator)
    collector, steps, curve = Collector(world, agent, generator), 0, ([], [])
    while steps < TOTAL:
        if steps >= EVERY * len(curve[0]):
            found = evaluate(agent, judge, episodes=50, deterministic=True, generator=generator)
            curve[0].append(steps)
            curve[1].append(found.mean_length / 100)
        traj = collector.collect(Episodes(RIDES))
        steps += int(traj.mask.sum())
        loss, _ = PLAIN.loss(agent, PLAIN.credit(agent, traj))
        gradient = torch.autograd.grad(loss, list(agent.parameters()))
        with torch.no_grad():
            for p, slope in zip(agent.parameters(), gradient, strict=True):
                p.sub_(rate * slope)
    return curve


def draw_trainings(picture: Path, jobs: int) -> None:
    """Seconds upright against steps of the world: the plain gradient with three step sizes, TRPO and PPO."""
    plain, seeds = {6e-6: DASHES[0], 3e-5: DASHES[1], 1e-4: DASHES[2]}, range(3)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        names = [(name, pool.submit(bounded_training, name, s)) for name in ("ppo", "trpo") for s in seeds]
        rates = [(rate, pool.submit(plain_training, rate, s)) for rate in plain for s in seeds]
        figure = canvas(9.0, 3.6)
        grid = figure.add_gridspec(1, 2)
        title = "The plain policy gradient"
        left = panel(figure, grid[0], title, "steps", "seconds upright (5 is all)")
        right = panel(figure, grid[1], "The same rider with a bounded step", "steps")
        for k, rate in enumerate(plain):
            draw_group(left, f"α = {rate:g}", [f.result() for r, f in rates if r == rate], k)
        for k, name in enumerate(("ppo", "trpo")):
            draw_group(right, name.upper(), [f.result() for n, f in names if n == name], k)
    for axes in (left, right):
        axes.set_xlim(0, TOTAL)
        axes.set_ylim(0, 5.25)
        axes.xaxis.set_major_formatter(lambda x, _: thousands(x))
        axes.legend(frameon=False, fontsize=8.5, loc="upper left" if axes is left else "lower right")
    figure.savefig(picture)


def draw_group(axes: Any, label: str, curves: list[Curve], k: int) -> None:
    """Every seed thin, their mean thick."""
    grid = np.linspace(0, min(steps[-1] for steps, _ in curves), 100)
    values = [np.interp(grid, *curve) for curve in curves]
    print(f"{label}: {[round(float(v[-1]), 2) for v in values]} seconds at the end")
    axes.plot(grid, np.transpose(values), lw=0.7, alpha=0.5, color=COLOURS[k])
    axes.plot(grid, np.mean(values, 0), lw=2.2, color=COLOURS[k], ls=DASHES[k], label=label)


# Pictures of rides -------------------------------------------------------------------------------------


def draw_rides(picture: Path) -> None:
    """What one ride looks like before training, on its way and after it."""
    recipe, rows = RECIPES["ppo-bicycle"], []
    for total in (2_048, 30_000, recipe.total_timesteps):
        how = {"total_timesteps": total, "agent": SPEC, "threads": 1, "progress": False}
        run = pg.train(recipe.algorithm, "bicycle", **how)
        rows.append((f"after {thousands(total)} steps", frames(run.agent, 3)))
    figure = canvas(9.0, 4.9)
    grid = figure.add_gridspec(3, 5, wspace=0.02, hspace=0.02)
    for y, (label, shown) in enumerate(rows):
        for x, (seconds, image) in enumerate(shown):
            axes = figure.add_subplot(grid[y, x])
            axes.imshow(image)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            axes.set_title(f"{seconds:.2f} s", fontsize=8, pad=3)
            if x == 0:
                axes.set_ylabel(label, fontsize=9)
    figure.savefig(picture)


@torch.no_grad()
def frames(agent: Agent, seed: int) -> list[tuple[float, Any]]:
    """Five moments of one ride, the first and the last among them."""
    world = make("bicycle", seed=seed)
    obs, images = world.reset(), [world.render()]
    while not bool(world.ended.any()):
        obs = world.step(agent.policy(obs).mode).obs
        images.append(world.render())
    moments = np.linspace(0, len(images) - 1, 5).round().astype(int)
    return [(k / 100, images[k]) for k in moments]


def main(folder: Path, jobs: int) -> None:
    """All pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_riders(folder / "riders.png")
    draw_rides(folder / "rides.png")
    draw_one_step(folder / "one-step.png")
    draw_trainings(folder / "trainings.png", jobs)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/bicycle"), int((sys.argv[2:] or ["2"])[0]))
