"""`pgrad train ALGORITHM PROMPTS`: training a language model."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from tyro.conf import OmitArgPrefixes, Positional, arg

from pgrad.algorithms import ALGORITHMS
from pgrad.cli.finish import Folder, Output
from pgrad.cli.names import ALIASES, pairs
from pgrad.cli.order import Order
from pgrad.cli.parse import parse
from pgrad.cli.summary import summary
from pgrad.errors import UsageError
from pgrad.models import AgentSpec
from pgrad.models.language.sizes import SCRATCH
from pgrad.models.language.spec import LanguageSpec
from pgrad.run import Run, load
from pgrad.run.config import CUSTOM, RunOptions
from pgrad.run.language_agent import ALPHABET
from pgrad.run.speak import unjudged
from pgrad.run.warm import shaped_like
from pgrad.training.disk.rundir import RunDir
from pgrad.worlds.language.isolated import TIMEOUT
from pgrad.worlds.language.kind import is_language

A = TypeVar("A")
Own = TypeVar("Own")

OWN = ("model", "reward", "lora", "max-completion-length")
"""Options that only language models have, by which they are known where the prompts do not come first."""


@dataclass(frozen=True)
class Text:
    """What is asked, and what an answer is worth."""

    reward: Annotated[tuple[str, ...], arg(metavar="FILE.py:FUNCTION ...", help_behavior_hint="")] = ()
    """functions f(prompts, completions, **columns) that return a number for each; a task has its own"""
    reward_weights: Annotated[tuple[float, ...], arg(metavar="FLOAT ...", help_behavior_hint="")] = ()
    """one for each of several rewards, in their order; 1 each"""
    reward_timeout: float = TIMEOUT
    """seconds that a reward may take for a batch"""
    max_completion_length: int = 0
    """tokens of a completion, its end too; 0: the longest solution of a task, else 256 or half the context"""
    column: str = "prompt"
    """the column of a file that the prompts are in"""
    held_out_prompts: int = 0
    """prompts of a file to set aside for evaluation; a task has its own"""
    n_prompts_in_all: int = 0
    """train on the first so many problems of a task, again and again; 0 for ever new ones"""


@dataclass(frozen=True, kw_only=True)
class TrainOnText(Generic[A, Own]):
    """Everything a training on prompts can be told."""

    world: Annotated[Positional[str], arg(metavar="PROMPTS", help_behavior_hint="(required)")] = ""
    """a task (parity, addition, ...: pgrad list), or a file of prompts (.jsonl, .json, .csv, .parquet)"""
    run: OmitArgPrefixes[RunOptions]
    folder: OmitArgPrefixes[Folder]
    own: OmitArgPrefixes[Own]
    output: OmitArgPrefixes[Output]
    algorithm: OmitArgPrefixes[A]
    text: OmitArgPrefixes[Text]
    agent: OmitArgPrefixes[LanguageSpec]


def load_language(run_dir: str, checkpoint: str) -> Run:
    """The run of a language model, to write with: its prompts and rewards are not needed, nor looked for.

    Raises UsageError for a run of another kind, CheckpointError where there is none.
    """
    saved = RunDir.open(Path(run_dir), locked=False).config()
    if not isinstance(saved.get("agent"), dict) or "model" not in saved["agent"]:
        raise UsageError(f"{run_dir} is no run of a language model: its world is {saved.get('world')}")
    known = ALPHABET in saved or not saved["agent"]["model"].startswith(SCRATCH)
    world: list[str] | None = [] if saved.get("world") == CUSTOM and known else None
    return load(run_dir, checkpoint, world=world, reward=unjudged if "reward" in saved else None)


def means_text(args: list[str]) -> bool:
    """Whether these arguments of `pgrad train ALGORITHM` are about prompts."""
    names = [arg[2:].partition("=")[0].replace("_", "-") for arg in args if arg.startswith("--")]
    return any(map(is_language, args[:1])) or any(ALIASES.get(name, name) in OWN for name in names)


def order_on_text(command: str, name: str, args: list[str], own: Any) -> Order:
    """What `pgrad COMMAND ALGORITHM PROMPTS …` asks for; `own`: the command's own options, usual ones."""
    algorithm = ALGORITHMS[name]
    parts: dict[str, Any] = {"run": RunOptions(), "folder": Folder(), "output": Output(), "text": Text()}
    usual: TrainOnText = TrainOnText(**parts, own=own, algorithm=algorithm(), agent=LanguageSpec())
    kind = TrainOnText[algorithm, type(own)]  # type: ignore[misc, valid-type]
    steps = f"is for worlds of steps, not for texts (pgrad {command} {name} CartPole-v1 --help shows all)"
    elsewhere = (steps, [AgentSpec])
    given: TrainOnText = parse(kind, f"{command} {name}", args, summary(algorithm), usual, elsewhere)
    spec = shaped_like(given.run.init_from, usual.agent)
    if spec != usual.agent:  # the model of the run to begin with
        usual = dataclasses.replace(usual, agent=spec)
        given = parse(kind, f"{command} {name}", args, summary(algorithm), usual, elsewhere)
    if not given.world:
        example = f"pgrad {command} {name} parity"
        raise UsageError(f"{command} on which prompts? For example: {example} (see: pgrad list)")
    if given.output.video:
        raise UsageError("texts make no video: leave out --video (pgrad play RUN shows completions)")
    kwargs = {
        "reward_weights": list(given.text.reward_weights),
        "reward_timeout": 0.0 if given.text.reward_timeout == TIMEOUT else given.text.reward_timeout,
        "max_completion_length": given.text.max_completion_length,
        "column": "" if given.text.column == "prompt" else given.text.column,
        "held_out": given.text.held_out_prompts,
        "n_prompts": given.text.n_prompts_in_all,
    }
    return Order(
        given.algorithm,
        given.world,
        given.run,
        given.agent,
        given.folder,
        given.output,
        given.own,
        pairs(given.folder.world_kwargs) | {key: x for key, x in kwargs.items() if x},
        list(given.text.reward) or None,
    )
