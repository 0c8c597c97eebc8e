"""`pgrad export DIR OUT`."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from pgrad.cli.parse import parse
from pgrad.cli.text import load_language
from pgrad.errors import UsageError


@dataclass(frozen=True)
class Export:
    """Write the language model of a run as a folder that transformers' from_pretrained loads."""

    run_dir: Annotated[Positional[str], arg(metavar="DIR", help_behavior_hint="(required)")] = ""
    """the folder of the run"""
    out: Annotated[Positional[str], arg(metavar="OUT", help_behavior_hint="(required)")] = ""
    """the folder to write, a new one"""
    adapter: FlagCreatePairsOff[bool] = False
    """write the LoRA adapter alone, as peft reads it; otherwise it is merged into the model"""
    checkpoint: str = "latest"
    """latest, best (by the return during training), or a checkpoint's name, such as 000000102400, or path"""


def run(args: list[str]) -> int:
    """Export, and print where the model is."""
    given: Export = parse(Export, "export", args)
    if not given.run_dir or not given.out:
        raise UsageError(
            "export which run, and where to? For example: pgrad export runs/grpo/parity-seed0 model"
        )
    print(load_language(given.run_dir, given.checkpoint).export(given.out, adapter=given.adapter))
    return 0
