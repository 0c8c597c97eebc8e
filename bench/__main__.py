"""Measure rows: python -m bench A B … [--rounds 5] [--pgrad ENVIRONMENT] [--peers ENVIRONMENT].

pgrad and its peers run in turn, each in a fresh process, on one core unless the side says more. Results go to
bench/results, and `python -m bench table` makes bench/RESULTS.md of them.
"""

import argparse
import json
import sys
from pathlib import Path

from bench.compare import compare
from bench.rows import ROWS
from bench.table import write_table

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=shape)
    parser.add_argument("what", nargs="+", choices=(*ROWS, "growth", "table"), help="rows, growth, table")
    parser.add_argument("--rounds", type=int, default=5, help="times that every side runs")
    parser.add_argument("--pgrad", type=Path, help="virtual environment with pgrad (default: this one)")
    parser.add_argument("--peers", type=Path, default=Path(".peers"), help="environment with bench/peers.txt")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    sound = True
    for name in options.what:
        if name == "table":
            continue
        if name == "growth":
            from bench.growth import growth

            result = growth(options.rounds, options.pgrad)
            sound = sound and not result["failed"]
        else:
            print(f"{name}: {ROWS[name].title}", flush=True)
            result = compare(ROWS[name], options.rounds, options.pgrad, options.peers.resolve())
            sound = sound and not result["failed"] and not result["unequal"]
            for line in result["unequal"]:
                print(f"not the same work: {line}")
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    write_table(options.out)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
