"""What a memory costs: time per update with GRU and LSTM, beside the same without.

    OMP_NUM_THREADS=1 python bench/memory.py [ppo a2c trpo] [--compile]

Time of this process's own work, so that others on the machine disturb it little; the fastest of several
updates, collection and learning together, 8 environments times 128 steps (A2C: 16). --compile: by machine
code on both sides.
"""

import sys
import time
from typing import Any

import torch

import pgrad as pg
from pgrad.run.assemble import make_training
from pgrad.run.config import RunConfig, RunOptions
from pgrad.training.loop import Training

REPEATS = 10
ALGORITHMS: dict[str, list[Any]] = {
    "ppo": [
        pg.PPO(n_steps=128, n_epochs=n_epochs, batch_size=batch_size)
        for n_epochs, batch_size in ((4, 256), (10, 1024), (10, 256), (10, 64))
    ],
    "a2c": [pg.A2C(n_steps=16)],
    "trpo": [pg.TRPO(n_steps=128)],
}
SPECS = {"none": pg.AgentSpec()} | {
    f"{kind} {length}": pg.AgentSpec(memory=kind, sequence_length=length)
    for kind in ("gru", "lstm")
    for length in (16, 32, 128)
}


def prepared(algorithm: Any, spec: pg.AgentSpec, compiled: bool) -> Training:
    options = RunOptions(n_envs=8, compile="yes" if compiled else "no")
    training = make_training(RunConfig(algorithm, "CartPole-v1", spec, options))
    training.iterate()
    return training


def fits(algorithm: Any, spec: pg.AgentSpec) -> bool:
    whole = algorithm.n_steps % spec.sequence_length == 0
    return spec.memory == "none" or (
        whole and getattr(algorithm, "batch_size", 128) % spec.sequence_length == 0
    )


def once(training: Training) -> float:
    begun = time.process_time()
    training.iterate()
    return time.process_time() - begun


def main(names: list[str], compiled: bool) -> None:
    torch.set_num_threads(1)
    for algorithm in (one for name in names or ALGORITHMS for one in ALGORITHMS[name]):
        fitting = {name: spec for name, spec in SPECS.items() if fits(algorithm, spec)}
        trainings = {name: prepared(algorithm, spec, compiled) for name, spec in fitting.items()}
        fastest = dict.fromkeys(trainings, float("inf"))
        for _ in range(REPEATS):  # in turn, so that all meet the same machine
            for name, training in trainings.items():
                fastest[name] = min(fastest[name], once(training))
        print(f"{algorithm}")
        for name, seconds in fastest.items():
            print(f"  memory {name:<9} {1e3 * seconds:6.0f} ms  ×{seconds / fastest['none']:.2f}")


if __name__ == "__main__":
    wanted = sys.argv[1:]
    main([name for name in wanted if name != "--compile"], "--compile" in wanted)
