"""PPO against Stable-Baselines3: the same work, one thread each, alternately in one run.

    pip install -r bench/requirements.txt
    python bench/versus_sb3.py [--rounds 3] [--out bench/versus_sb3.json]

Both sides train the same networks (two tanh 64-64), the same rollout, epochs and minibatches, with the same
Gymnasium environments in one process. Reported per row: training steps per second after the first update,
seconds from process start to the end of the first update, and peak memory; medians over rounds, and ratios
pgrad / SB3, taken within each round, where the machine was in the same mood for both.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

ROWS = {
    "CartPole-v1, 8 × 128, 4 epochs of 256": {
        "world": "CartPole-v1",
        "n_steps": 128,
        "n_epochs": 4,
        "batch_size": 256,
        "steps": 51_200,
        "normalize": False,
    },
    "HalfCheetah-v5, 8 × 256, 10 epochs of 64": {
        "world": "HalfCheetah-v5",
        "n_steps": 256,
        "n_epochs": 10,
        "batch_size": 64,
        "steps": 20_480,
        "normalize": True,
    },
}
PEAK = "VmHWM"


def pgrad_side(row: dict) -> dict:
    import pgrad as pg

    times: list[tuple[int, float]] = []

    def note(metrics: dict[str, float]) -> None:
        times.append((int(metrics["time/total_timesteps"]), time.time()))

    algorithm = pg.PPO(
        n_steps=row["n_steps"], n_epochs=row["n_epochs"], batch_size=row["batch_size"], ent_coef=0.0
    )
    agent = pg.AgentSpec(normalize_obs=row["normalize"], normalize_reward=row["normalize"])
    pg.train(
        algorithm,
        row["world"],
        total_timesteps=row["steps"],
        agent=agent,
        log_every=1,
        progress=False,
        callback=note,
    )
    return summary(times)


def sb3_side(row: dict) -> dict:
    import torch

    torch.set_num_threads(1)
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    times: list[tuple[int, float]] = []

    class Note(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            if self.num_timesteps:
                times.append((self.num_timesteps, time.time()))

        def _on_training_end(self) -> None:
            times.append((self.num_timesteps, time.time()))

    env = make_vec_env(row["world"], n_envs=8, seed=0)
    if row["normalize"]:
        env = VecNormalize(env)
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=row["n_steps"],
        n_epochs=row["n_epochs"],
        batch_size=row["batch_size"],
        ent_coef=0.0,
        seed=0,
        device="cpu",
    )
    model.learn(row["steps"], callback=Note())
    return summary(times)


def summary(times: list[tuple[int, float]]) -> dict:
    (first_steps, first), (last_steps, last) = times[0], times[-1]
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(PEAK))
    return {
        "steps_per_second": (last_steps - first_steps) / (last - first),
        "first_update": first - float(os.environ["BENCH_STARTED"]),
        "peak_mb": int(peak.split()[1]) / 1024,
        "steps": last_steps,
    }


def measure(side: str, row: str) -> dict:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BENCH_STARTED": str(time.time())}
    command = [sys.executable, "-W", "ignore", __file__, "--side", side, "--row", row]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", choices=("pgrad", "sb3"), help=argparse.SUPPRESS)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side = pgrad_side if options.side == "pgrad" else sb3_side
        print(json.dumps(side(ROWS[options.row])))
        return
    result: dict = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "gymnasium", "stable-baselines3")},
        "rows": {},
    }
    for row in ROWS:
        rounds = [{side: measure(side, row) for side in ("pgrad", "sb3")} for _ in range(options.rounds)]
        entry: dict = {}
        for key in ("steps_per_second", "first_update", "peak_mb"):
            ratios = [one["pgrad"][key] / one["sb3"][key] for one in rounds]
            entry[key] = {
                "pgrad": round(statistics.median(one["pgrad"][key] for one in rounds), 2),
                "sb3": round(statistics.median(one["sb3"][key] for one in rounds), 2),
                "ratio": [round(f(ratios), 3) for f in (min, statistics.median, max)],
            }
        result["rows"][row] = entry
        print(row)
        for key, numbers in entry.items():
            low, middle, high = numbers["ratio"]
            print(
                f"  {key:17} pgrad {numbers['pgrad']:>9}  sb3 {numbers['sb3']:>9}  "
                f"ratio {middle} ({low} … {high})"
            )
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
