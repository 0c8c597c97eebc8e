"""The smallest language runs: a copying task of two letters, and a folder as `save_pretrained` leaves it."""

import json
from pathlib import Path
from typing import Any

import torch

import pgrad as pg
from pgrad.models.language.scratch import scratch_model
from pgrad.models.language.spec import LanguageSpec
from pgrad.run.assemble import make_training
from pgrad.run.config import RunConfig, RunOptions, settled
from pgrad.training.disk.rundir import RunDir
from pgrad.training.loop import Training
from pgrad.worlds.language.tokenizer import character_tokenizer

TINY = LanguageSpec("scratch:tiny")
TASK: dict[str, Any] = {"world_kwargs": {"sizes": [1, 3], "letters": "ab"}}
SETTING: dict[str, Any] = {"n_envs": 2, "seed": 3, "log_every": 1, "threads": 1, **TASK}
GRPO = pg.GRPO(n_prompts=3, num_generations=4, batch_size=5, n_epochs=2)


ROWS = [{"prompt": f"{x}=", "completion": x[::-1]} for x in ("ab", "aab", "b", "bba", "a", "bab")]
CHAT = "{% for m in messages %}={{ m['content'] }}{% endfor %}{% if add_generation_prompt %}={% endif %}"


def pretrained(folder: Path, seed: int = 0, letters: str = "ab=") -> Path:
    """A small Llama with random weights and its tokenizer, in a folder."""
    tokenizer = character_tokenizer(letters)
    model = scratch_model("scratch:tiny", tokenizer, torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def samples(run_dir: Path) -> str:
    """The sample completions that a run wrote."""
    return RunDir(run_dir).completions.read_text()


def length(completions: list[str], **_: Any) -> list[float]:
    """A reward: how long it is."""
    return [float(len(text)) for text in completions]


def written(path: Path, rows: list[Any] = ROWS) -> Path:
    """A file of rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def made(algorithm: Any, world: Any, agent: Any = TINY, reward: Any = None, **kwargs: Any) -> Training:
    """A training that has not begun."""
    options = RunOptions(total_timesteps=2000, n_envs=2, seed=5)
    return make_training(RunConfig(settled(algorithm, agent), world, agent, options, kwargs, reward))
