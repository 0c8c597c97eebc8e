"""GRPO against TRL: the same model, prompts, rewards, groups, lengths and optimiser, alternately in one run.

    pip install 'pgrad[language]' trl==1.16.0 datasets
    python bench/versus_trl.py [--rounds 3] [--out bench/versus_trl.json]

Both sides train one model with random weights, written to a folder first, on the problems of pgrad's task
`copy`: 8 prompts, 8 completions each of at most 32 tokens, one step of Adam per batch, no reference, one
thread. Reported: seconds of the process's own work per step after the first two (median), completion tokens
per second of it, peak memory; medians over rounds, and ratios TRL / pgrad (above 1: pgrad is faster, or
smaller) within each round.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

ROWS = {"0.7M, 64 × 32 tokens": "scratch:small", "4.5M, 64 × 32 tokens": "scratch:medium"}
PROMPTS, GROUP, LENGTH, STEPS, LEARNING_RATE = 8, 8, 32, 14, 1e-4
TASK = {"sizes": (20, 28), "larger": (29, 30), "letters": "abcdefghijklmnopqrstuvwxyz"}


def reward(prompts, completions, **columns):  # type: ignore[no-untyped-def]
    """The share of a completion's characters that are vowels: dense, so that every group has a spread."""
    return [sum(c in "aeiou" for c in text) / max(len(text), 1) for text in completions]


def model_folder(size: str, folder: Path) -> None:
    """The same weights for both."""
    import torch

    from pgrad.models.language.scratch import scratch_model
    from pgrad.worlds.language.tasks import make_task
    from pgrad.worlds.language.tokenizer import character_tokenizer

    tokenizer = character_tokenizer(make_task("copy", **TASK).alphabet)
    scratch_model(size, tokenizer, torch.Generator().manual_seed(0)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def prompts(n: int) -> list[str]:
    """The first n problems of the task."""
    from pgrad.worlds.language.tasks import make_task

    return [one.prompt for one in make_task("copy", **TASK).instances("train", n, 0)]


def pgrad_side(folder: str) -> dict:
    import pgrad as pg

    times, tokens, rewards = [time.process_time()], [], []

    def note(metrics: dict[str, float]) -> bool:
        times.append(time.process_time())
        tokens.append(metrics["completions/mean_length"] * PROMPTS * GROUP)
        rewards.append(metrics["reward"])
        return len(tokens) < STEPS

    pg.train(
        pg.GRPO(n_prompts=PROMPTS, num_generations=GROUP, average="token", learning_rate=LEARNING_RATE),
        prompts(PROMPTS * STEPS),
        agent=pg.LanguageSpec(model=folder),
        reward=reward,
        world_kwargs={"max_completion_length": LENGTH},
        total_timesteps=10**9,
        threads=1,
        log_every=1,
        progress=False,
        callback=note,
    )
    return summary(times, tokens, rewards)


def trl_side(folder: str) -> dict:
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(1)
    times, tokens, rewards = [time.process_time()], [], []

    class Note(TrainerCallback):
        def on_step_end(self, *_, **__):  # type: ignore[no-untyped-def]
            times.append(time.process_time())

        def on_log(self, args, state, control, logs=None, **_):  # type: ignore[no-untyped-def]
            if logs and "completions/mean_length" in logs:
                tokens.append(logs["completions/mean_length"] * PROMPTS * GROUP)
                rewards.append(logs["reward"])

    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out,
            per_device_train_batch_size=PROMPTS * GROUP,
            num_generations=GROUP,
            max_completion_length=LENGTH,
            max_steps=STEPS,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            beta=0.0,
            loss_type="dapo",
            bf16=False,
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            shuffle_dataset=False,
            gradient_checkpointing=False,
        )
        trainer = GRPOTrainer(
            model=folder,
            args=config,
            reward_funcs=reward,
            train_dataset=Dataset.from_list([{"prompt": text} for text in prompts(PROMPTS * STEPS)]),
            processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
            callbacks=[Note()],
        )
        trainer.train()
    return summary(times, tokens, rewards)


def summary(times: list[float], tokens: list[float], rewards: list[float]) -> dict:
    steps = [after - before for before, after in pairwise(times[2:])]
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in status if line.startswith("VmHWM"))
    return {
        "seconds_per_step": statistics.median(steps),
        "tokens_per_second": statistics.median(tokens[2:]) / statistics.median(steps),
        "peak_mb": int(peak.split()[1]) / 1024,
        "tokens_per_step": statistics.median(tokens[2:]),
        "reward": [round(x, 3) for x in rewards],
    }


def measure(side: str, folder: str) -> dict:
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, "-W", "ignore", __file__, "--side", side, "--folder", folder]
    done = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", choices=("pgrad", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side = pgrad_side if options.side == "pgrad" else trl_side
        print(json.dumps(side(options.folder)))
        return
    result: dict = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        "rows": {},
    }
    for row, size in ROWS.items():
        with tempfile.TemporaryDirectory() as folder:
            model_folder(size, Path(folder))
            rounds = [
                {side: measure(side, folder) for side in ("pgrad", "trl")} for _ in range(options.rounds)
            ]
        entry: dict = {}
        print(row)
        for key in ("seconds_per_step", "tokens_per_second", "peak_mb", "tokens_per_step"):
            upside_down = key.startswith("tokens")
            ratios = [one["trl"][key] / one["pgrad"][key] for one in rounds]
            ratios = [1 / x for x in ratios] if upside_down else ratios
            entry[key] = {
                side: round(statistics.median(one[side][key] for one in rounds), 4)
                for side in ("pgrad", "trl")
            }
            entry[key]["ratio"] = [round(f(ratios), 2) for f in (min, statistics.median, max)]
            numbers = entry[key]
            sides = f"pgrad {numbers['pgrad']:>9}  trl {numbers['trl']:>9}"
            print(f"  {key:18} {sides}  ratio {numbers['ratio']}")
        entry["reward"] = {side: rounds[0][side]["reward"] for side in ("pgrad", "trl")}
        result["rows"][row] = entry
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
