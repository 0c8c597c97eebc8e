"""`pgrad train ALGORITHM WORLD`."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from tyro.conf import OmitArgPrefixes, Positional, arg

from pgrad.algorithms import ALGORITHMS
from pgrad.cli.finish import Folder, Output, finish
from pgrad.cli.names import choose, pairs
from pgrad.cli.parse import parse
from pgrad.cli.summary import summary
from pgrad.cli.text import means_text, train_on_text
from pgrad.errors import UsageError
from pgrad.models import AgentSpec
from pgrad.run import train
from pgrad.run.config import RunOptions, default_spec
from pgrad.worlds.language.kind import is_language

A = TypeVar("A")


@dataclass(frozen=True, kw_only=True)
class Train(Generic[A]):
    """Everything a training can be told."""

    world: Annotated[Positional[str], arg(metavar="WORLD", help_behavior_hint="(required)")] = ""
    """a Gymnasium id (CartPole-v1, ALE/Pong-v5, module:Name-v0), a tensor world (cartpole), or what language
    models are trained on: a task (parity) or a file of prompts: pgrad list"""
    run: OmitArgPrefixes[RunOptions]
    folder: OmitArgPrefixes[Folder]
    output: OmitArgPrefixes[Output]
    algorithm: OmitArgPrefixes[A]
    agent: OmitArgPrefixes[AgentSpec]


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
    if means_text(args[1:]):
        return train_on_text(name, args[1:])
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
    if is_language(given.world):  # named behind the options
        return train_on_text(name, args[1:])
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


def usage() -> str:
    """Help on the choice of an algorithm."""
    names = "\n".join(f"  {name:<14} {summary(one)}" for name, one in ALGORITHMS.items())
    return (
        "usage: pgrad train ALGORITHM WORLD [OPTIONS]\n\nTrain an algorithm in a world.\n\n"
        f"algorithms:\n{names}\n\n"
        "The options of each: pgrad train ppo --help. The worlds: pgrad list.\n"
        "Language models have other options: pgrad train grpo parity --help.\n"
        "Example: pgrad train ppo CartPole-v1 --total-timesteps 100_000 --seed 1\n"
    )
