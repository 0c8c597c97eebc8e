"""The two sides of `versus_trl.py`: one work, done by pgrad and by TRL, each in a process of its own."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True)
class Work:
    """What both sides do."""

    size: str  # of the model
    reward: str
    n_prompts: int
    group: int
    length: int  # tokens of a completion, at most
    steps: int
    learning_rate: float
    task: dict
    entropy: float = 0.0  # weight of the bonus


def vowels(prompts, completions, **columns):  # type: ignore[no-untyped-def]
    """The share of a completion's characters that are vowels: dense, so that every group has a spread."""
    return [sum(c in "aeiou" for c in text) / max(len(text), 1) for text in completions]


def placed(prompts, completions, **columns):  # type: ignore[no-untyped-def]
    """The share of letters that stand where the prompt has them."""
    pairs = zip(prompts, completions, strict=True)
    return [sum(map(str.__eq__, asked, text)) / (len(asked) - 1) for asked, text in pairs]


REWARDS: dict[str, Callable] = {"vowels": vowels, "placed": placed}


def model_folder(work: Work, folder: Path, seed: int = 0) -> None:
    """The same weights for both."""
    import torch

    from pgrad.models.language.scratch import scratch_model
    from pgrad.worlds.language.tasks import make_task
    from pgrad.worlds.language.tokenizer import character_tokenizer

    tokenizer = character_tokenizer(make_task("copy", **work.task).alphabet)
    generator = torch.Generator().manual_seed(seed)
    scratch_model(work.size, tokenizer, generator).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def prompts(work: Work, seed: int) -> list[str]:
    """As many problems of the task as the steps need."""
    from pgrad.worlds.language.tasks import make_task

    return [
        one.prompt
        for one in make_task("copy", **work.task).instances("train", work.n_prompts * work.steps, seed)
    ]


def pgrad_side(work: Work, folder: str, seed: int) -> dict:
    import pgrad as pg

    times, tokens, rewards = [time.process_time()], [], []

    def note(metrics: dict[str, float]) -> bool:
        times.append(time.process_time())
        tokens.append(metrics["completions/mean_length"] * work.n_prompts * work.group)
        rewards.append(metrics["reward"])
        return len(tokens) < work.steps

    pg.train(
        pg.GRPO(
            n_prompts=work.n_prompts,
            num_generations=work.group,
            average="token",
            learning_rate=work.learning_rate,
            n_epochs=1,
            clip_range=0.2,
            scale_rewards="group",
            beta=0.0,
            ent_coef=work.entropy,
            max_grad_norm=1.0,
            optimizer_eps=1e-5,
        ),
        prompts(work, seed),
        agent=pg.LanguageSpec(model=folder),
        reward=REWARDS[work.reward],
        world_kwargs={"max_completion_length": work.length},
        total_timesteps=10**9,
        seed=seed,
        threads=1,
        log_every=1,
        progress=False,
        callback=note,
    )
    return summary(times, tokens, rewards)


def trl_side(work: Work, folder: str, seed: int) -> dict:
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
                tokens.append(logs["completions/mean_length"] * work.n_prompts * work.group)
                rewards.append(logs["reward"])

    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out,
            per_device_train_batch_size=work.n_prompts * work.group,
            num_generations=work.group,
            max_completion_length=work.length,
            max_steps=work.steps,
            learning_rate=work.learning_rate,
            lr_scheduler_type="constant",
            adam_epsilon=1e-5,
            weight_decay=0.0,
            max_grad_norm=1.0,
            num_iterations=1,
            epsilon=0.2,
            scale_rewards="group",
            beta=0.0,
            loss_type="dapo",
            entropy_coef=work.entropy,
            seed=seed,
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
            reward_funcs=REWARDS[work.reward],
            train_dataset=Dataset.from_list([{"prompt": text} for text in prompts(work, seed)]),
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


SIDES = {"pgrad": ("pgrad", pgrad_side), "trl": ("TRL 1.16", trl_side)}
