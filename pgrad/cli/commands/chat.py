"""`pgrad chat DIR`."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional, arg

from pgrad.cli.parse import parse
from pgrad.cli.text import load_language
from pgrad.errors import UsageError
from pgrad.run import Run
from pgrad.worlds.language.encoding import encode_prompt
from pgrad.worlds.language.kind import names_task
from pgrad.worlds.language.prompts import Content, Prompt


@dataclass(frozen=True)
class Chat:
    """Let the language model of a run complete a prompt, or every line of standard input."""

    run_dir: Annotated[Positional[str], arg(metavar="DIR", help_behavior_hint="(required)")] = ""
    """the folder of the run"""
    prompt: str | None = None
    """complete this; none: every line that is typed"""
    n: int = 1
    """completions of each prompt"""
    greedy: FlagCreatePairsOff[bool] = False
    """always the most probable token; otherwise tokens are sampled"""
    temperature: float | None = None
    """divides the logits; none is that of training"""
    max_completion_length: int = 0
    """tokens of a completion; 0 is that of training"""
    plain: FlagCreatePairsOff[bool] = False
    """give the model the text as it is, not as a conversation through its chat template"""
    checkpoint: str = "latest"
    """latest, best (by the return during training), or a checkpoint's name, such as 000000102400, or path"""
    seed: int = 0
    """what the sampling draws from"""


def run(args: list[str]) -> int:
    """Complete, one answer after the other."""
    given: Chat = parse(Chat, "chat", args)
    if not given.run_dir:
        raise UsageError("chat with which run? For example: pgrad chat runs/grpo/parity-seed0")
    loaded = load_language(given.run_dir, given.checkpoint)
    if given.prompt is not None:
        _answer(loaded, given, given.prompt, 0)
        return 0
    typed, code = sys.stdin.isatty(), 0
    for number, (row, line) in enumerate(_lines(typed)):
        try:
            network: Any = loaded.agent.network
            encode_prompt(network.tokenizer, Prompt(_prompt(loaded, given, line), row))
            _answer(loaded, given, line, number)
        except UsageError as error:
            print(f"line {row}: {error}", file=sys.stderr)
            code = 0 if typed else error.exit_code
    return code


def _prompt(loaded: Run, given: Chat, text: str) -> Content:
    """The text as the model is given it: as it is, or as a conversation."""
    network: Any = loaded.agent.network
    talks = network.tokenizer.chat_template and not names_task(loaded.config.world) and not given.plain
    return [{"role": "user", "content": text}] if talks else text


def _answer(loaded: Run, given: Chat, text: str, number: int) -> None:
    said = loaded.complete(
        [_prompt(loaded, given, text)],
        given.n,
        greedy=given.greedy,
        temperature=given.temperature,
        max_completion_length=given.max_completion_length,
        seed=given.seed + number,
    )
    print("\n".join(said[0]), flush=True)


def _lines(typed: bool) -> Iterator[tuple[int, str]]:
    """What is typed until the end of input, with the number of the line; empty ones are left out."""
    for row in count(1):
        if typed:
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield row, line.rstrip("\n")
