"""How the speed of pgrad grows: with environments, width, cores, and five seeds side by side."""

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.compare import machine, spread
from bench.measure import SideError, once, python_of, spawn
from bench.rows import PPO, pgrad
from bench.work import Side, Work

ENVIRONMENTS = (1, 4, 16, 64, 256, 1024, 4096)
WIDTHS = (32, 64, 128, 256, 512, 1024)
UPDATES = 12
COMMAND = "train ppo CartPole-v1 --n-steps 128 --n-epochs 4 --batch-size 256 --total-timesteps 200000"
TARGET_SEEDS = 1.6


def work(world: str, n_envs: int, updates: int = UPDATES) -> Work:
    """At least 1024 decisions an update, four epochs of four minibatches."""
    n_steps = max(16, 1024 // n_envs)
    window = n_steps * n_envs
    return Work(
        "ppo",
        world,
        n_envs,
        int(updates * window * 0.98),
        PPO | {"n_steps": n_steps, "n_epochs": 4, "batch_size": window // 4},
    )


def curves(all_cores: int) -> list[tuple[str, str, list[tuple[int, Side]]]]:
    """Name, what grows, and the points."""
    found = []
    for world in ("cartpole", "CartPole-v1"):
        points = [(n, pgrad(work(world, n), compiled="yes")) for n in ENVIRONMENTS]
        found.append((f"{world}, compiled", "environments", points))
    wide = work("CartPole-v1", 8)
    points = [(n, pgrad(wide, compiled="yes", agent={"net_arch": [n, n]})) for n in WIDTHS]
    found.append(("CartPole-v1, 8 environments, compiled", "width", points))
    cheetah = replace(work("HalfCheetah-v5", 16, 8), normalize=True)
    cores = sorted({1, 2, all_cores})
    points = [
        (n, pgrad(cheetah, compiled="yes", cores=n, train={"workers": n if n > 1 else 0})) for n in cores
    ]
    found.append(("HalfCheetah-v5, 16 environments, a worker each", "cores", points))
    return found


def growth(rounds: int, ours: Path | None) -> dict[str, Any]:
    """Measure all curves, the points in turn, each in processes of its own."""
    python, facts = python_of(ours), machine()
    result: dict[str, Any] = {"machine": facts, "rounds": rounds, "curves": [], "failed": {}}
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        for name, by, points in curves(facts["cores"]):
            measured = []
            for x, side in points:
                try:
                    ones = [once(side, python, cache, seed) for seed in range(rounds)]
                except SideError as error:
                    result["failed"][f"{name}, {x}"] = str(error)
                    print(f"  {name}: {by} {x}: {error}", flush=True)
                    continue
                measured.append((x, spread([one["steps_per_second"] for one in ones])))
                print(f"  {name}: {by} {x}: {measured[-1][1][0]:,.0f} steps/s", flush=True)
            result["curves"].append({"name": name, "by": by, "points": measured})
        try:
            result["seeds"] = five_seeds(python, cache, rounds)
        except SideError as error:
            result["failed"]["seeds"] = str(error)
            print(f"  seeds: {error}", flush=True)
    return result


def five_seeds(python: Path, cache: Path, rounds: int) -> dict[str, Any]:
    """Wall time of five seeds side by side on all cores, against one."""
    command = [str(python), "-m", "pgrad", *COMMAND.split()]
    times: dict[str, list[float]] = {"one": [], "five": []}
    for _ in range(rounds):
        for name, more in (("one", []), ("five", ["--seeds", "5"])):
            took = spawn([*command, *more], 0, cache)
            times[name].append(took.ended - took.started)
            print(f"  seeds: {name}: {times[name][-1]:.1f} s", flush=True)
    ratios = [five / one for five, one in zip(times["five"], times["one"], strict=True)]
    seconds = {name: statistics.median(numbers) for name, numbers in times.items()}
    return {"seconds": seconds, "ratio": spread(ratios), "target": TARGET_SEEDS}
