"""GRPO against TRL: the same model, prompts, rewards, groups, lengths and optimiser.

    pip install 'pgrad[language]' trl==1.16.0 datasets
    python bench/versus_trl.py [--rounds 3] [--out bench/versus_trl.json]
    python bench/versus_trl.py --curves [--seeds 5] [--out bench/versus_trl_curves.json]

Both sides train one model with random weights, written to a folder first, on the problems of pgrad's task
`copy`, one step of Adam per batch, no reference, one thread.

Speed: 8 prompts, 8 completions each of at most 32 tokens, alternately in one run. Reported: seconds of the
process's own work per step after the first two (median), completion tokens per second of it, peak memory;
medians over rounds, and ratios TRL / pgrad (above 1: pgrad is faster, or smaller) within each round.

Curves: 64 prompts, 16 completions each, for whole runs from random weights, other weights for every seed;
the reward is the share of three letters that are copied to their places. Reported: the mean reward of every
step of every seed, beside it a picture, and whether the 95% intervals over seeds of the two overlap in each
twentieth of the run.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from trl_sides import SIDES, Work, model_folder

WINDOWS = 20


LONG = {"sizes": (20, 28), "larger": (29, 30), "letters": "abcdefghijklmnopqrstuvwxyz"}
SHORT = {"sizes": (3, 3), "larger": (4, 4), "letters": "abcdefgh"}
SPEED = {
    "0.7M, 64 × 32 tokens": Work("scratch:small", "vowels", 8, 8, 32, 14, 1e-4, LONG),
    "4.5M, 64 × 32 tokens": Work("scratch:medium", "vowels", 8, 8, 32, 14, 1e-4, LONG),
}
CURVES = Work("scratch:tiny", "placed", 64, 16, 3, 200, 1e-3, SHORT, entropy=0.02)


def measure(side: str, work: Work, folder: str, seed: int = 0) -> dict:
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    given = ["--side", side, "--work", json.dumps(asdict(work)), "--folder", folder, "--seed", str(seed)]
    command = [sys.executable, "-W", "ignore", __file__, *given]
    done = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def compare_speed(work: Work, rounds: int) -> dict:
    """Medians of the two sides and the ratios within rounds, alternately measured."""
    with tempfile.TemporaryDirectory() as folder:
        model_folder(work, Path(folder))
        measured = [{side: measure(side, work, folder) for side in SIDES} for _ in range(rounds)]
    entry: dict = {}
    for key in ("seconds_per_step", "tokens_per_second", "peak_mb", "tokens_per_step"):
        upside_down = key.startswith("tokens")
        ratios = [one["trl"][key] / one["pgrad"][key] for one in measured]
        ratios = [1 / x for x in ratios] if upside_down else ratios
        entry[key] = {side: round(statistics.median(one[side][key] for one in measured), 4) for side in SIDES}
        entry[key]["ratio"] = [round(f(ratios), 2) for f in (min, statistics.median, max)]
        numbers = entry[key]
        sides = f"pgrad {numbers['pgrad']:>9}  trl {numbers['trl']:>9}"
        print(f"  {key:18} {sides}  ratio {numbers['ratio']}")
    entry["reward"] = {side: measured[0][side]["reward"] for side in SIDES}
    return entry


def compare_curves(work: Work, seeds: int, picture: Path) -> dict:
    """Rewards of every step and seed, drawn; intervals over seeds in each twentieth of the run."""
    from pgrad.report.statistics import bootstrap_interval

    runs: dict[str, list[dict]] = {side: [] for side in SIDES}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            model_folder(work, Path(folder), seed)
            for side in SIDES:
                runs[side].append(measure(side, work, folder, seed))
                last = statistics.mean(runs[side][-1]["reward"][-10:])
                print(f"  seed {seed} {side:5} reward of the last 10 steps {last:.3f}", flush=True)
    width, windows = work.steps // WINDOWS, []
    for begin in range(0, width * WINDOWS, width):
        row: dict = {"steps": [begin, begin + width]}
        for side in SIDES:
            means = [statistics.mean(run["reward"][begin : begin + width]) for run in runs[side]]
            row[side] = [round(x, 3) for x in (statistics.mean(means), *bootstrap_interval(means))]
        row["overlap"] = row["pgrad"][1] <= row["trl"][2] and row["trl"][1] <= row["pgrad"][2]
        windows.append(row)
    print(f"  intervals overlap in {sum(row['overlap'] for row in windows)} of {len(windows)} parts")
    rewards = {side: [run["reward"] for run in runs[side]] for side in SIDES}
    draw(rewards, picture)
    times = {side: statistics.median(run["seconds_per_step"] for run in runs[side]) for side in SIDES}
    return {"work": asdict(work), "seconds_per_step": times, "windows": windows, "reward": rewards}


def draw(rewards: dict[str, list[list[float]]], picture: Path) -> None:
    from pgrad.report.plots import compare

    with tempfile.TemporaryDirectory() as place:
        groups: dict[str, list[Path]] = {}
        for side, curves in rewards.items():
            for seed, curve in enumerate(curves):
                path = Path(place) / f"{side}-{seed}.csv"
                rows = [f"{step},{reward}" for step, reward in enumerate(curve, 1)]
                path.write_text("\n".join(["time/total_timesteps,reward", *rows]) + "\n")
                groups.setdefault(SIDES[side][0], []).append(path)
        compare(groups, picture, metric="reward", title="GRPO from random weights: copy three letters")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--curves", action="store_true", help="whole runs in place of speed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    for name in ("--side", "--work", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        work = Work(**json.loads(options.work))
        print(json.dumps(SIDES[options.side][1](work, options.folder, options.seed)))
        return
    result: dict = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
    }
    if options.curves:
        picture = (options.out or Path("versus_trl_curves.json")).with_suffix(".png")
        result |= compare_curves(CURVES, options.seeds, picture)
    else:
        result["rows"] = {}
        for row, work in SPEED.items():
            print(row)
            result["rows"][row] = compare_speed(work, options.rounds)
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
