"""`pgrad train ALGORITHM WORLD`."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from pgrad.algorithms import ALGORITHMS
from pgrad.cli.finish import Output, finish
from pgrad.cli.names import choose, pairs
from pgrad.cli.parse import parse
from pgrad.cli.summary import summary
from pgrad.errors import UsageError
from pgrad.models import AgentSpec
from pgrad.models.language.spec import LanguageSpec
from pgrad.run import train
from pgrad.run.config import RunOptions, default_spec
from pgrad.worlds.language.kind import is_language

A = TypeVar("A")


@dataclass(frozen=True)
class Folder:
    """Where the run is written, and what its world is made with."""

    run_dir: str = "auto"
    """a new folder for the run; auto makes runs/ALGORITHM/WORLD-seedSEED, numbered where there is one"""
    overwrite: FlagCreatePairsOff[bool] = False
    """delete the run that is in the folder"""
    world_kwargs: Annotated[tuple[str, ...], arg(metavar="KEY=VALUE ...", help_behavior_hint="")] = ()
    """arguments for the environment, such as gravity=-5 continuous=True; for a tensor world its numbers"""


@dataclass(frozen=True, kw_only=True)
class Train(Generic[A]):
    """Everything a training can be told."""

    world: Annotated[Positional[str], arg(metavar="WORLD", help_behavior_hint="(required)")] = ""
    """a Gymnasium id (CartPole-v1, ALE/Pong-v5, module:Name-v0) or a tensor world (cartpole): pgrad list"""
    run: OmitArgPrefixes[RunOptions]
    folder: OmitArgPrefixes[Folder]
    output: OmitArgPrefixes[Output]
    algorithm: OmitArgPrefixes[A]
    agent: OmitArgPrefixes[AgentSpec]


@dataclass(frozen=True)
class Text:
    """What is asked, and what an answer is worth."""

    reward: Annotated[tuple[str, ...], arg(metavar="FILE.py:FUNCTION ...", help_behavior_hint="")] = ()
    """functions f(prompts, completions, **columns) that return a number for each; a task has its own"""
    max_completion_length: int = 0
    """tokens of a completion, its end among them; 0 for the longest solution of a task"""
    column: str = "prompt"
    """the column of a file that the prompts are in"""
    held_out: int = 0
    """prompts of a file to set aside for evaluation; a task has its own"""
    n_prompts_in_all: int = 0
    """train on the first so many problems of a task, again and again; 0 for ever new ones"""


@dataclass(frozen=True, kw_only=True)
class TrainOnText(Generic[A]):
    """Everything a training on prompts can be told."""

    world: Annotated[Positional[str], arg(metavar="PROMPTS", help_behavior_hint="(required)")] = ""
    """a task (parity, addition, ...: pgrad list), or a file of prompts (.jsonl, .json, .csv, .parquet)"""
    run: OmitArgPrefixes[RunOptions]
    folder: OmitArgPrefixes[Folder]
    output: OmitArgPrefixes[Output]
    algorithm: OmitArgPrefixes[A]
    text: OmitArgPrefixes[Text]
    agent: OmitArgPrefixes[LanguageSpec]


def run(args: list[str]) -> int:
    """Train, and say how it went and where everything is."""
    if args and args[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0
    if not args or args[0].startswith("-"):
        example = "pgrad train ppo CartPole-v1"
        raise UsageError(
            f"train which algorithm? For example: {example} (there are: {', '.join(ALGORITHMS)})"
        )
    name = choose(args[0], ALGORITHMS, "algorithm")
    algorithm = ALGORITHMS[name]
    fresh = algorithm()
    if any(is_language(arg) for arg in args[1:2]) or "--model" in args:
        return run_on_text(name, args[1:])
    parts: dict[str, Any] = {"run": RunOptions(), "folder": Folder(), "output": Output()}
    usual: Train = Train(**parts, algorithm=fresh, agent=default_spec(fresh))
    given: Train = parse(Train[algorithm], f"train {name}", args[1:], summary(algorithm), usual)  # type: ignore[valid-type]
    if (spec := default_spec(given.algorithm)) != usual.agent:  # the usual agent of what was asked for
        usual = dataclasses.replace(usual, agent=spec)
        given = parse(Train[algorithm], f"train {name}", args[1:], summary(algorithm), usual)  # type: ignore[valid-type]
    if not given.world:
        raise UsageError(
            f"train in which world? For example: pgrad train {name} CartPole-v1 (see: pgrad list)"
        )
    result = train(
        given.algorithm,
        given.world,
        **dataclasses.asdict(given.run),
        agent=given.agent,
        run_dir=given.folder.run_dir,
        overwrite=given.folder.overwrite,
        world_kwargs=pairs(given.folder.world_kwargs),
        tensorboard=given.output.tensorboard,
        wandb=given.output.wandb,
        progress=not given.output.quiet,
    )
    finish(result, given.output)
    return 0


def run_on_text(name: str, args: list[str]) -> int:
    """The same for prompts."""
    algorithm = ALGORITHMS[name]
    parts: dict[str, Any] = {"run": RunOptions(), "folder": Folder(), "output": Output(), "text": Text()}
    usual: TrainOnText = TrainOnText(**parts, algorithm=algorithm(), agent=LanguageSpec())
    kind = TrainOnText[algorithm]  # type: ignore[valid-type]
    given: TrainOnText = parse(kind, f"train {name}", args, summary(algorithm), usual)
    if not given.world:
        raise UsageError(f"train on which prompts? For example: pgrad train {name} parity (see: pgrad list)")
    kwargs = {
        "max_completion_length": given.text.max_completion_length,
        "column": given.text.column,
        "held_out": given.text.held_out,
        "n_prompts": given.text.n_prompts_in_all,
    }
    result = train(
        given.algorithm,
        given.world,
        **dataclasses.asdict(given.run),
        agent=given.agent,
        run_dir=given.folder.run_dir,
        overwrite=given.folder.overwrite,
        world_kwargs=pairs(given.folder.world_kwargs) | {key: x for key, x in kwargs.items() if x},
        reward=list(given.text.reward) or None,
        tensorboard=given.output.tensorboard,
        wandb=given.output.wandb,
        progress=not given.output.quiet,
    )
    finish(result, given.output)
    return 0


def usage() -> str:
    """Help on the choice of an algorithm."""
    names = "\n".join(f"  {name:<14} {summary(one)}" for name, one in ALGORITHMS.items())
    return (
        "usage: pgrad train ALGORITHM WORLD [OPTIONS]\n\nTrain an algorithm in a world.\n\n"
        f"algorithms:\n{names}\n\n"
        "The options of each: pgrad train ppo --help. The worlds: pgrad list.\n"
        "Example: pgrad train ppo CartPole-v1 --total-timesteps 100_000 --seed 1\n"
    )
