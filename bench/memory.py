"""What a memory costs: time per update of PPO with GRU and LSTM, beside the same without.

    OMP_NUM_THREADS=1 python bench/memory.py

Time of this process's own work, so that others on the machine disturb it little; the fastest of several
updates, collection and learning together, 8 environments times 128 steps.
"""

import time

import torch

import pgrad as pg
from pgrad.run.assemble import make_training
from pgrad.run.config import RunConfig, RunOptions
from pgrad.training.loop import Training

REPEATS = 10
SPECS = {"none": pg.AgentSpec()} | {
    f"{kind} {length}": pg.AgentSpec(memory=kind, sequence_length=length)
    for kind in ("gru", "lstm")
    for length in (16, 32, 128)
}


def prepared(algorithm: pg.PPO, spec: pg.AgentSpec) -> Training:
    training = make_training(RunConfig(algorithm, "CartPole-v1", spec, RunOptions(n_envs=8)))
    training.iterate()
    return training


def once(training: Training) -> float:
    begun = time.process_time()
    training.iterate()
    return time.process_time() - begun


def main() -> None:
    torch.set_num_threads(1)
    for n_epochs, batch_size in ((4, 256), (10, 1024), (10, 256), (10, 64)):
        algorithm = pg.PPO(n_steps=128, n_epochs=n_epochs, batch_size=batch_size)
        fitting = {
            name: spec
            for name, spec in SPECS.items()
            if spec.memory == "none" or batch_size % spec.sequence_length == 0
        }
        trainings = {name: prepared(algorithm, spec) for name, spec in fitting.items()}
        fastest = dict.fromkeys(trainings, float("inf"))
        for _ in range(REPEATS):  # in turn, so that all meet the same machine
            for name, training in trainings.items():
                fastest[name] = min(fastest[name], once(training))
        print(f"n_epochs {n_epochs}, batch_size {batch_size}")
        for name, seconds in fastest.items():
            print(f"  memory {name:<9} {1e3 * seconds:6.0f} ms  ×{seconds / fastest['none']:.2f}")


if __name__ == "__main__":
    main()
