"""What is said of several seeds at their end."""

import shlex
import signal
import sys
from collections.abc import Sequence

from pgrad.cli.finish import Output
from pgrad.report.statistics import over_runs, told
from pgrad.run.seeds import Seeds, Shown
from pgrad.run.seeds_folder import PICTURE, can_go_on, error_file, seed_folder
from pgrad.training.shown import number

LOST = "their states cannot be saved, so that none goes on: train anew, with --overwrite or elsewhere"
"""Said where runs cannot be continued."""


def shown_of(output: Output) -> Shown:
    """What to show and log, as the options say."""
    episodes = 0 if output.quiet else output.final_eval_episodes
    return Shown(episodes, output.tensorboard, output.wandb, not output.quiet)


def finish_several(found: Seeds, output: Output) -> int:
    """Say what each seed came to, what all of them, and what can be done next; the command's exit code.

    Where all fail alike it is the one of their error, else 1 where any fails; why was said when it happened.
    Raises KeyboardInterrupt or SystemExit where a signal stopped them, as the program would have without.
    """
    path = shlex.quote(str(found.path))
    failed = {seed: one for seed, one in found.outcomes.items() if one.state == "failed"}
    goes_on = can_go_on(found.path)
    if not output.quiet and found.results:
        _say(found)
    for seed, one in failed.items():
        if one.traceback:
            error_file(found.path, seed).write_text(one.traceback)
            print(f"where seed {seed} failed: {error_file(found.path, seed)}", file=sys.stderr)
    if found.signal is not None:
        done = f"{len(found.results)} of {len(found.seeds)} seeds are done"
        how = f"continue with: pgrad resume {path}" if goes_on else LOST
        print(f"stopped; {done}; {how}", file=sys.stderr)
        if found.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + found.signal)
    if failed:
        others = "the others are done; " if found.results else ""
        how = f"try again with: pgrad resume {path}" if goes_on else LOST
        print(f"{others}{how}", file=sys.stderr)
        codes = {one.error.exit_code for one in failed.values() if one.error is not None}
        return 1 if found.results or len(codes) != 1 else codes.pop()
    if not output.quiet:
        more = 2 * max(row["timesteps"] for row in found.results.values())
        print(f"\nnext           pgrad plot {path}")
        print(f"               pgrad play {shlex.quote(str(seed_folder(found.path, found.seeds[0])))}")
        if goes_on:
            print(f"               pgrad resume {path} --total-timesteps {more}")
    return 0


def _say(found: Seeds) -> None:
    print(f"\nruns           {found.path}")
    if (found.path / PICTURE).exists():
        print(f"curves         {found.path / PICTURE}")
    for seed, row in sorted(found.results.items()):
        last = "" if row["return"] is None else f"return {number(row['return'])} in training"
        print(f"{f'seed {seed}':<15}{row['text'] or last}")
    if found.values:
        say_mean(list(found.values.values()))


def say_mean(values: Sequence[float]) -> None:
    """The mean of a number that every seed has, and how sure it is."""
    over = over_runs(values)
    print(f"{'mean':<15}{told(over, len(values), number)}")
    if "iqm" in over:
        print(f"{'middle half':<15}{number(over['iqm'])} (interquartile mean)")
