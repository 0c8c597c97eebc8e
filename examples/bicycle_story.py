"""Draw the pictures of docs/bicycle.md and print its numbers: python -m examples.bicycle_story docs/bicycle.

Four riders who do not learn, one step of the plain policy gradient that grows until it throws the rider off,
and PPO and TRPO, which stay on the road. About ten minutes on two cores.
"""

import math
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

import pgrad as pg
from examples.bicycle_step import FIVE, PLAIN, RIDES, canvas, draw_one_step, panel
from pgrad.data import Episodes
from pgrad.models import Agent, build_agent
from pgrad.recipes import RECIPES
from pgrad.report.evaluate import evaluate
from pgrad.report.plots import COLOURS, DASHES, thousands
from pgrad.training.collect import Collector
from pgrad.worlds import make
from pgrad.worlds.tensors.bicycle import Bicycle

TOTAL, EVERY = 150_000, 6_000  # steps of a training, steps between evaluations
Curve = tuple[list[float], list[float]]  # steps, seconds upright


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
        "always 5°": lambda lean: torch.full_like(lean, FIVE),
        "always 50°": lambda lean: torch.full_like(lean, 10 * FIVE),
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
    pushes = ((0.0, "a turned handlebar pushes"), (0.5, "… and so does its turning"))
    for k, (ahead, name) in enumerate(pushes):
        leans = lean_over_time(Bicycle(ahead=ahead), riders["twice the lean"])
        print(f"twice the lean, a = {ahead}: swings {max(map(abs, leans[-100:])):.2f}° at the end")
        axes.plot(np.arange(len(leans)) / 100, leans, lw=1.6, color=COLOURS[k], ls=DASHES[k], label=name)
    axes.set_ylim(-6.5, 10)
    axes.set_yticks(range(-5, 6, 5))
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    figure.savefig(picture)


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
    spec = RECIPES["ppo-bicycle"].agent
    world, judge = make("bicycle", n_envs=RIDES, seed=seed), make("bicycle", n_envs=50, seed=seed + 1000)
    spaces, generator = (world.observation_space, world.action_space), Generator().manual_seed(seed)
    agent = build_agent(*spaces, spec, gamma=1.0, critic="none", generator=generator)
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
    plain, seeds = {6e-6: "6·10⁻⁶", 3e-5: "3·10⁻⁵", 1e-4: "10⁻⁴"}, range(3)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        names = [(name, pool.submit(bounded_training, name, s)) for name in ("ppo", "trpo") for s in seeds]
        rates = [(rate, pool.submit(plain_training, rate, s)) for rate in plain for s in seeds]
        figure = canvas(9.0, 3.6)
        grid = figure.add_gridspec(1, 2)
        title = "The plain policy gradient"
        left = panel(figure, grid[0], title, "steps", "seconds upright (5 is all)")
        right = panel(figure, grid[1], "The same rider with a bounded step", "steps")
        for k, (rate, name) in enumerate(plain.items()):
            draw_group(left, f"α = {name}", [f.result() for r, f in rates if r == rate], k)
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


def draw_rides(picture: Path) -> None:
    """What one ride looks like before training, on its way and after it."""
    recipe, rows = RECIPES["ppo-bicycle"], []
    for total in (2_048, 30_000, recipe.total_timesteps):
        how = {"total_timesteps": total, "agent": recipe.agent, "threads": 1, "progress": False}
        run = pg.train(recipe.algorithm, recipe.world, **how)
        rows.append((f"{total:,} steps", frames(run.agent, 3)))
    figure = canvas(9.0, 4.4)
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
