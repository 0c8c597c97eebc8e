"""pgrad's command line on CartPole-v1, as one would type it, until an evaluation says that it is solved."""

import csv
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from clock import SOLVED, Clock, tell

COMMAND = (
    "train ppo CartPole-v1 --n-envs 32 --n-steps 32 --batch-size 256 --n-epochs 6 --total-timesteps 60000"
    " --learning-rate 3e-3 --learning-rate-schedule linear --gamma 0.98 --gae-lambda 0.8 --ent-coef 0"
    " --eval-every 10000 --eval-episodes 100"
)


def scores(path: Path) -> list[float]:
    """Mean returns of the evaluations in a run's metrics; the last row may be half written."""
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    found = (row.get("eval/mean_reward") for row in csv.DictReader(io.StringIO(whole)))
    return [float(x) for x in found if x]


def main() -> None:
    seed = json.loads(sys.argv[1])["seed"]
    program = Path(sys.executable).with_name("pgrad")
    command = [str(program), *COMMAND.split(), "--seed", str(seed), "--run-dir", "run"]
    clock = Clock()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    metrics, best = Path("run", "metrics.csv"), 0.0
    while process.poll() is None and best < SOLVED:
        time.sleep(0.01)
        best = max([0.0, *scores(metrics)])
    clock.note(0, 0)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    process.wait()
    tell(clock, [], max([best, *scores(metrics)]))


if __name__ == "__main__":
    main()
