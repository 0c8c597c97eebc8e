"""The command line: `pgrad train ppo CartPole-v1`, made from the dataclasses."""

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from pgrad import HOMES
from pgrad.cli.names import choose, plain_name
from pgrad.errors import PgradError

COMMANDS = {
    "train": "train an algorithm in a world",
    "resume": "continue a run exactly where it stopped",
    "bench": "tell where the time of a training would go",
    "eval": "evaluate the agent of a run over whole episodes",
    "play": "record a video of the agent of a run, or show what it writes",
    "chat": "try the language model of a run",
    "export": "write the language model of a run as a folder for transformers",
    "plot": "draw the learning curves of runs in one picture",
    "recipe": "run a published result again, over several seeds",
    "lab": "hold every estimator and claim against the exact gradient",
    "list": "the algorithms and worlds there are",
    "doctor": "what this installation can do: versions, devices, extras",
}
"""Each is the function `run(arguments)` of the module of its name in `commands`, imported when asked for."""

HELP = """usage: pgrad COMMAND ...

Policy-gradient reinforcement learning, from REINFORCE to PPO, TRPO, SAC and GRPO.

commands:
{commands}

options:
  -h, --help     help, also after a command: pgrad train ppo --help
  --version      the version of pgrad
  --traceback    show where an error came from (as does PGRAD_TRACEBACK=1)

examples:
  pgrad train ppo CartPole-v1 --total-timesteps 100_000 --seed 1 --clip-range 0.1
  pgrad eval runs/ppo/CartPole-v1-seed1
  pgrad play runs/ppo/CartPole-v1-seed1
  pgrad train grpo parity --model scratch:tiny
  pgrad lab L-13
"""

INTERRUPTED, BROKEN_PIPE = 130, 141
"""128 + the signal's number, as shells count."""
_AS_PYTHON = warnings.formatwarning


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line (by default that of this process) and return its exit code.

    0 for success, 1 for an error in training and an output that takes nothing, 2 for what the user can put
    right, 130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP, 141 where nobody reads the output any
    more. What pgrad raises on purpose is one line on stderr.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    traceback = "--traceback" in args or os.environ.get("PGRAD_TRACEBACK", "0") not in ("", "0")
    for stream in (sys.stdout, sys.stderr):  # a terminal without Greek letters still gets the rest
        with contextlib.suppress(AttributeError, OSError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    warnings.formatwarning = _told
    try:
        code = _carry_out_told([arg for arg in args if arg != "--traceback"], traceback)
        sys.stdout.flush()  # what cannot be written is found out here, not when the interpreter ends
    except OSError as error:
        if traceback and not isinstance(error, BrokenPipeError):
            raise
        return _without_output(error)
    finally:
        warnings.formatwarning = _AS_PYTHON
    return code


def _carry_out_told(args: list[str], traceback: bool) -> int:
    """The exit code of a command line; what pgrad raises on purpose is told, unless with its traceback."""
    try:
        return _carry_out(args)
    except PgradError as error:
        if traceback:
            raise
        print(f"pgrad: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        if traceback:
            raise
        return INTERRUPTED
    except SystemExit as end:  # of the parser, or after a signal
        return end.code if isinstance(end.code, int) else int(end.code is not None)


def _without_output(error: OSError) -> int:
    """The exit code where stdout takes nothing any more, which is told. Raises what is another error."""
    from pgrad.training.disk.files import is_disk_full, reason

    unread = isinstance(error, BrokenPipeError)  # nobody is left to be told
    if not (unread or (error.filename is None and is_disk_full(error)) or _fails()):
        raise error
    with contextlib.suppress(OSError, ValueError):  # the interpreter flushes once again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if unread:
        return BROKEN_PIPE
    print(f"pgrad: error: cannot write to the output: {reason(error)}", file=sys.stderr)
    return PgradError.exit_code


def _fails() -> bool:
    """Whether stdout still holds what it cannot write."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _told(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as Python writes it; one of pgrad's own in one line, whatever line of pgrad it is from."""
    own = Path(filename).is_relative_to(Path(__file__).parent.parent)
    return f"pgrad: warning: {message}\n" if own else _AS_PYTHON(message, category, filename, lineno, line)


def _carry_out(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(
            HELP.format(commands="\n".join(f"  {name:<14} {what}" for name, what in COMMANDS.items())), end=""
        )
        return 0
    if args[0] in ("-V", "--version", "version"):
        from pgrad import __version__

        print(f"pgrad {__version__}")
        return 0
    meant = f"pgrad train {args[0].lower()} WORLD" if _is_algorithm(args[0]) else ""
    command = choose(args[0], COMMANDS, "command", meant and f"did you mean: {meant}?")
    code: int = import_module(f"pgrad.cli.commands.{command}").run(args[1:])
    return code


def _is_algorithm(name: str) -> bool:
    """Whether one of the algorithms is called so, found out before PyTorch is loaded."""
    return plain_name(name) in map(plain_name, HOMES["pgrad.algorithms"])
