"""`pgrad bench ALGORITHM WORLD`."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from tyro.conf import FlagCreatePairsOff

from pgrad.cli.commands.train import read_order, usage
from pgrad.cli.waiting import waiting
from pgrad.errors import UsageError
from pgrad.report.plots import unit
from pgrad.run.config import RunConfig
from pgrad.run.measure import Measurement, measure
from pgrad.training.shown import number, percent, rate, whole
from pgrad.worlds.language.kind import is_language


@dataclass(frozen=True)
class Bench:
    """How to measure, and how to tell."""

    seconds: float = 10.0
    """how long to train after the warm-up"""
    json: FlagCreatePairsOff[bool] = False
    """print the numbers as JSON"""


def run(args: list[str]) -> int:
    """Train for some seconds, write nothing, and print how long each stage took."""
    if args and args[0] in ("-h", "--help"):
        print(
            usage("bench", "Tell where the time of a training would go; takes all options of train."), end=""
        )
        return 0
    order = read_order("bench", args, Bench())
    if not 0.0 < order.own.seconds < float("inf"):
        raise UsageError(f"--seconds must be a positive number, got {order.own.seconds:g}")
    config = order.config
    with waiting(f"measuring for {order.own.seconds:g} s, after a warm-up"):
        found = measure(config, order.own.seconds)
    print(json.dumps(as_record(config, found), indent=2) if order.own.json else as_text(config, found))
    return 0


def as_record(config: RunConfig, found: Measurement) -> dict[str, Any]:
    """The numbers as JSON: those of the measurement, and what was measured."""
    rates = {
        "steps_per_second": found.steps_per_second,
        "gradient_steps_per_second": found.gradient_steps_per_second,
    }
    return (
        {"algorithm": config.algorithm_name, "world": config.world_name} | rates | dataclasses.asdict(found)
    )


def as_text(config: RunConfig, found: Measurement) -> str:
    """A row for each stage, the longest first, and below what else there is to know."""
    what = unit(is_language(config.world))
    head = f"{'stage':<10}{'ms/iteration':>14}{'share':>8}{f'{what}/s alone':>16}"
    rows = [
        f"{name:<10}{stage.milliseconds:>14,.2f}{percent(stage.share):>8}{rate(stage.steps_per_second):>16}"
        for name, stage in sorted(found.stages.items(), key=lambda row: -row[1].share)
    ]
    total = 1e3 * found.seconds / found.iterations
    rows.append(f"{'all':<10}{total:>14,.2f}{'':>8}{rate(found.steps_per_second):>16}")
    memory = f"{whole(found.memory)} MiB at most"
    if found.gpu_memory:
        memory += f", {whole(found.gpu_memory)} MiB on the GPU"
    threads = f"{found.threads} of PyTorch, {number(found.busy)} cores busy"
    lines = [
        f"{config.algorithm_name} · {config.world_name} · {found.device}",
        "",
        head,
        *rows,
        "",
        f"iterations     {found.iterations} of {whole(found.timesteps / found.iterations)} {what}, "
        f"in {found.seconds:.1f} s, after {found.warm_up:.1f} s",
        f"gradient steps {number(found.gradient_steps_per_second)}/s",
        f"memory         {memory}",
        f"threads        {threads}",
        f"code           {_code(found)}",
    ]
    return "\n".join([*lines, *([f"\nadvice         {found.advice}"] if found.advice else [])])


def _code(found: Measurement) -> str:
    """Machine code or not, and how to measure the other where a run would change to it."""
    if found.compiled or found.compile_after is None:
        return "compiled" if found.compiled else "as it is written"
    return (
        f"as it is written; runs compile theirs after {whole(found.compile_after)} gradient steps: "
        "--compile yes measures that"
    )
