"""The smallest language runs: a copying task of two letters, and a folder as `save_pretrained` leaves it."""

from pathlib import Path
from typing import Any

import torch

import pgrad as pg
from pgrad.models.language.scratch import scratch_model
from pgrad.models.language.spec import LanguageSpec
from pgrad.training.disk.rundir import RunDir
from pgrad.worlds.language.tokenizer import character_tokenizer
from tests.run.tools import rows

TINY = LanguageSpec("scratch:tiny")
TASK: dict[str, Any] = {"world_kwargs": {"sizes": [1, 3], "letters": "ab"}}
SETTING: dict[str, Any] = {"n_envs": 2, "seed": 3, "log_every": 1, "threads": 1, **TASK}
GRPO = pg.GRPO(n_prompts=3, num_generations=4, batch_size=5, n_epochs=2)


def pretrained(folder: Path, seed: int = 0, letters: str = "ab=") -> Path:
    """A small Llama with random weights and its tokenizer, in a folder."""
    tokenizer = character_tokenizer(letters)
    model = scratch_model("scratch:tiny", tokenizer, torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def told(run_dir: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without clocks, of which a language run has more."""
    kept = ("time/total_timesteps", "time/iterations")
    return [
        {key: x for key, x in row.items() if key in kept or not key.startswith("time/")}
        for row in rows(run_dir)
    ]


def samples(run_dir: Path) -> str:
    """The sample completions that a run wrote."""
    return RunDir(run_dir).completions.read_text()
