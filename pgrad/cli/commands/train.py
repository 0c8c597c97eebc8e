"""`pgrad train ALGORITHM WORLD`."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from tyro.conf import OmitArgPrefixes, Positional, arg

from pgrad.algorithms import ALGORITHMS
from pgrad.cli.finish import Folder, Output, finish
from pgrad.cli.names import choose, pairs
from pgrad.cli.order import Order, Several, chosen_seeds
from pgrad.cli.parse import parse
from pgrad.cli.several import finish_several, shown_of
from pgrad.cli.summary import summary
from pgrad.cli.text import Text, means_text, order_on_text
from pgrad.errors import UsageError
from pgrad.models import AgentSpec
from pgrad.models.language.spec import LanguageSpec
from pgrad.run import train
from pgrad.run.config import RunOptions, default_spec
from pgrad.run.seeds import train_seeds
from pgrad.run.warm import shaped_like
from pgrad.worlds.language.kind import is_language

A = TypeVar("A")
Own = TypeVar("Own")


@dataclass(frozen=True, kw_only=True)
class Train(Generic[A, Own]):
    """Everything a training can be told, and what the command has of its own."""

    world: Annotated[Positional[str], arg(metavar="WORLD", help_behavior_hint="(required)")] = ""
    """a Gymnasium id (CartPole-v1, module:Name-v0), a tensor world, a task or file of prompts: pgrad list"""
    run: OmitArgPrefixes[RunOptions]
    folder: OmitArgPrefixes[Folder]
    own: OmitArgPrefixes[Own]
    output: OmitArgPrefixes[Output]
    algorithm: OmitArgPrefixes[A]
    agent: OmitArgPrefixes[AgentSpec]


def run(args: list[str]) -> int:
    """Train, and say how it went and where everything is."""
    if args and args[0] in ("-h", "--help"):
        print(usage("train", "Train an algorithm in a world."), end="")
        return 0
    order = read_order("train", args, Several())
    if order.own.seeds:
        return _train_several(order)
    if order.own.jobs:
        raise UsageError("--jobs is how many of several seeds train at once: give --seeds too")
    result = train(
        order.algorithm,
        order.world,
        **dataclasses.asdict(order.run),
        agent=order.agent,
        run_dir=order.folder.run_dir,
        overwrite=order.folder.overwrite,
        world_kwargs=order.world_kwargs,
        reward=order.reward,
        tensorboard=order.output.tensorboard,
        wandb=order.output.wandb,
        progress=not order.output.quiet,
    )
    finish(result, order.output)
    return 0


def _train_several(order: Order) -> int:
    seeds, output = chosen_seeds(order.own.seeds), order.output
    if order.run.seed:
        raise UsageError("give --seed or --seeds, not both")
    if output.video:
        raise UsageError("several seeds make no video: leave out --video (pgrad play DIR/seed0 records one)")
    found = train_seeds(
        order.config,
        seeds,
        order.folder.run_dir,
        overwrite=order.folder.overwrite,
        limit=order.own.limit,
        shown=shown_of(output),
    )
    return finish_several(found, output)


def read_order(command: str, args: list[str], own: Any) -> Order:
    """What `pgrad COMMAND ALGORITHM WORLD …` asks for; `own`: the command's own options, usual ones."""
    if not args or args[0].startswith("-"):
        if later := next((arg for arg in args if arg in ALGORITHMS), ""):
            raise UsageError(f"the algorithm comes first, then the world: pgrad {command} {later} WORLD …")
        example = f"pgrad {command} ppo CartPole-v1"
        raise UsageError(
            f"{command} which algorithm? For example: {example} (there are: {', '.join(ALGORITHMS)})"
        )
    swapped = len(args) > 1 and args[1] in ALGORITHMS
    meant = f"did you mean: pgrad {command} {args[1]} {args[0]}?" if swapped else ""
    name = choose(args[0], ALGORITHMS, "algorithm", meant)
    algorithm = ALGORITHMS[name]
    fresh, what = algorithm(), f"{command} {name}"
    kind = Train[algorithm, type(own)]  # type: ignore[misc, valid-type]
    if means_text(args[1:]):
        return order_on_text(command, name, args[1:], own)
    parts: dict[str, Any] = {"run": RunOptions(), "folder": Folder(), "output": Output(), "own": own}
    usual: Train = Train(**parts, algorithm=fresh, agent=default_spec(fresh))
    texts = f"is for language models (pgrad {what} parity --help shows all)", (Text, LanguageSpec)
    given: Train = parse(kind, what, args[1:], summary(algorithm), usual, texts)
    spec = shaped_like(given.run.init_from, default_spec(given.algorithm))
    if spec != usual.agent:  # the usual agent of what was asked for
        usual = dataclasses.replace(usual, agent=spec)
        given = parse(kind, what, args[1:], summary(algorithm), usual, texts)
    if not given.world:
        raise UsageError(f"{command} in which world? For example: pgrad {what} CartPole-v1 (see: pgrad list)")
    if is_language(given.world):  # named behind the options
        return order_on_text(command, name, args[1:], own)
    return Order(
        given.algorithm,
        given.world,
        given.run,
        given.agent,
        given.folder,
        given.output,
        given.own,
        pairs(given.folder.world_kwargs),
    )


def usage(command: str, what: str) -> str:
    """Help on the choice of an algorithm, for a command that does `what` with it."""
    names = "\n".join(f"  {name:<14} {summary(one)}" for name, one in ALGORITHMS.items())
    return (
        f"usage: pgrad {command} ALGORITHM WORLD [OPTIONS]\n\n{what}\n\n"
        f"algorithms:\n{names}\n\n"
        f"The options of each: pgrad {command} ppo --help. The worlds: pgrad list.\n"
        f"Language models have other options: pgrad {command} grpo parity --help.\n"
        f"Example: pgrad {command} ppo CartPole-v1 --total-timesteps 100_000 --seed 1\n"
    )
