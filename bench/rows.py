"""What is measured: every row as data."""

import os
from dataclasses import replace
from typing import Any

from bench.work import Row, Side, Target, Work

CORES = len(os.sched_getaffinity(0))


def pgrad(work: Work, name: str = "pgrad", compiled: str = "no", **others: Any) -> Side:
    train = {"compile": compiled, **others.pop("train", {})}
    return Side(name, "on_pgrad", work, train=train, **others)


def peer(name: str, library: str, work: Work) -> Side:
    return Side(name, "on_sb3", work, library=library)


def faster(side: str, bound: float, rival: str, moonshot: float | None = None) -> Target:
    return Target(side, "steps_per_second", bound, rival, moonshot)


def lighter(side: str, rival: str) -> Target:
    return Target(side, "peak_mb", 1.0, rival)


def sb3(work: Work) -> Side:
    return peer("sb3", "stable_baselines3", work)


def sbx(work: Work) -> Side:
    return peer("sbx", "sbx", work)


def contrib(work: Work) -> Side:
    return peer("sb3-contrib", "sb3_contrib", work)


WITHOUT = "without a memory"


def remembering(title: str, work: Work, compiled: str = "no") -> Row:
    """The same work without a memory and with one: at most 2.5 times as long."""
    gru, lstm = replace(work, memory_size=64, memory="gru"), replace(work, memory_size=64)
    sides = [pgrad(gru, "pgrad GRU", compiled), pgrad(lstm, "pgrad LSTM", compiled)]
    targets = [faster(side.name, 0.4, WITHOUT) for side in sides]
    return Row(title, (pgrad(work, WITHOUT, compiled), *sides), tuple(targets))


PPO = {"learning_rate": 3e-4, "gamma": 0.99, "gae_lambda": 0.95, "clip_range": 0.2, "ent_coef": 0.0}
PPO_CARTPOLE = Work("ppo", "CartPole-v1", 8, 51_200, PPO | {"n_steps": 128, "n_epochs": 4, "batch_size": 256})
PPO_TENSOR = Work("ppo", "cartpole", 1024, 491_520, PPO | {"n_steps": 16, "n_epochs": 4, "batch_size": 4096})
MUJOCO = PPO | {"n_epochs": 10, "batch_size": 64}
PPO_CHEETAH_1 = Work("ppo", "HalfCheetah-v5", 1, 12_200, MUJOCO | {"n_steps": 2048}, normalize=True)
PPO_CHEETAH_8 = Work("ppo", "HalfCheetah-v5", 8, 20_400, MUJOCO | {"n_steps": 256}, normalize=True)
PPO_ENVPOOL_8 = replace(PPO_CHEETAH_8, world="envpool:HalfCheetah-v5")
SAC_CHEETAH = Work(
    "sac",
    "HalfCheetah-v5",
    1,
    3_500,
    {"batch_size": 256, "learning_starts": 1_000},
    note_every=100,
    settled=2_000 / 3_500,
)
A2C_CARTPOLE = Work(
    "a2c", "CartPole-v1", 8, 50_000, {"n_steps": 5, "learning_rate": 7e-4, "ent_coef": 0.0}, note_every=1_000
)
TRPO_CHEETAH = Work(
    "trpo",
    "HalfCheetah-v5",
    1,
    16_300,  # eight updates, though some rows of pgrad are resets, which it does not count as steps
    {"n_steps": 2048, "batch_size": 128, "cg_max_steps": 15, "n_critic_updates": 10},
)
MEMORY_CARTPOLE = Work(
    "ppo",
    "CartPole-v1",
    8,
    10_240,
    PPO | {"n_steps": 128, "n_epochs": 4, "batch_size": 256},
    memory_size=64,
)
PPO_LONGER, PPO_LONGEST = (replace(PPO_CARTPOLE, total_timesteps=n) for n in (30_720, 102_400))
A2C_LONGER = replace(A2C_CARTPOLE, settings=A2C_CARTPOLE.settings | {"n_steps": 16}, total_timesteps=30_720)
TRPO_CARTPOLE = Work("trpo", "CartPole-v1", 8, 15_360, {"n_steps": 128})
SOLVE = Work("ppo", "CartPole-v1", 8, 100_000, {})  # each by its own numbers

ROWS = {
    "A": Row(
        "PPO, CartPole-v1: 8 environments × 128 steps, 4 epochs, minibatch 256",
        (
            pgrad(PPO_CARTPOLE, "pgrad eager"),
            pgrad(PPO_CARTPOLE, "pgrad compiled", "yes"),
            sb3(PPO_CARTPOLE),
            sbx(PPO_CARTPOLE),
            Side("skrl", "on_skrl", PPO_CARTPOLE),
        ),
        (
            faster("pgrad eager", 2.0, "sb3"),
            faster("pgrad compiled", 5.0, "sb3", 10.0),
            Target("pgrad eager", "first_update", 1.5),
            lighter("pgrad eager", "sb3"),
            lighter("pgrad compiled", "sb3"),
        ),
    ),
    "B": Row(
        "PPO, tensor cart-pole: 1024 × 16, 4 epochs, minibatch 4096; SB3 does the work of row A",
        (
            pgrad(PPO_TENSOR, "pgrad eager"),
            pgrad(PPO_TENSOR, "pgrad compiled", "yes"),
            sb3(PPO_CARTPOLE),
        ),
        (
            faster("pgrad compiled", 12.0, "sb3"),
            lighter("pgrad eager", "sb3"),
            lighter("pgrad compiled", "sb3"),
        ),
    ),
    "C1": Row(
        "PPO, HalfCheetah-v5: 1 × 2048, 10 epochs, minibatch 64, normalised",
        (
            pgrad(PPO_CHEETAH_1, "pgrad eager"),
            pgrad(PPO_CHEETAH_1, "pgrad compiled", "yes"),
            sb3(PPO_CHEETAH_1),
            sbx(PPO_CHEETAH_1),
        ),
        (
            faster("pgrad compiled", 1.6, "sb3"),
            lighter("pgrad eager", "sb3"),
            lighter("pgrad compiled", "sb3"),
        ),
    ),
    "C8": Row(
        "PPO, HalfCheetah-v5: 8 × 256, 10 epochs, minibatch 64, normalised",
        (
            pgrad(PPO_CHEETAH_8, "pgrad eager"),
            pgrad(PPO_CHEETAH_8, "pgrad compiled", "yes"),
            pgrad(PPO_CHEETAH_8, "pgrad compiled, workers", "yes", cores=0, train={"workers": CORES}),
            pgrad(PPO_ENVPOOL_8, "pgrad compiled, EnvPool", "yes", cores=0, train={"workers": CORES}),
            sb3(PPO_CHEETAH_8),
            sbx(PPO_CHEETAH_8),
        ),
        (
            faster("pgrad compiled", 3.0, "sb3"),
            faster("pgrad compiled, workers", 5.0, "sb3"),
            faster("pgrad compiled, EnvPool", 5.0, "sb3"),
            lighter("pgrad eager", "sb3"),
            lighter("pgrad compiled", "sb3"),
            lighter("pgrad compiled, workers", "sb3"),
            lighter("pgrad compiled, EnvPool", "sb3"),
        ),
    ),
    "D": Row(
        "SAC, HalfCheetah-v5: batch 256, 2 × 256, an update every step after 1000",
        (
            pgrad(SAC_CHEETAH, "pgrad eager"),
            pgrad(SAC_CHEETAH, "pgrad compiled", "yes"),
            sb3(SAC_CHEETAH),
            sbx(SAC_CHEETAH),
        ),
        (
            faster("pgrad compiled", 1.8, "sb3"),
            faster("pgrad compiled", 1.0, "sbx"),
            lighter("pgrad eager", "sb3"),
            lighter("pgrad compiled", "sb3"),
        ),
    ),
    "E": Row(
        "A2C, CartPole-v1: 8 × 5",
        (
            pgrad(A2C_CARTPOLE, "pgrad eager"),
            pgrad(A2C_CARTPOLE, "pgrad compiled", "yes"),
            sb3(A2C_CARTPOLE),
        ),
        (
            faster("pgrad compiled", 3.0, "sb3"),
            lighter("pgrad eager", "sb3"),
            lighter("pgrad compiled", "sb3"),
        ),
    ),
    "F": Row(
        "TRPO, HalfCheetah-v5: 1 × 2048, 15 conjugate gradients, 10 passes of the critic",
        (
            pgrad(TRPO_CHEETAH, "pgrad eager"),
            pgrad(TRPO_CHEETAH, "pgrad compiled", "yes"),
            contrib(TRPO_CHEETAH),
        ),
        (
            faster("pgrad compiled", 3.0, "sb3-contrib"),
            lighter("pgrad eager", "sb3-contrib"),
            lighter("pgrad compiled", "sb3-contrib"),
        ),
    ),
    "G": Row(
        "From the shell to CartPole-v1 solved: 475 over 100 episodes, imports and evaluations included",
        (Side("pgrad", "shell", SOLVE, cores=0), Side("sb3", "zoo", SOLVE, cores=0)),
        (
            Target("pgrad", "solved_after", 6.0, moonshot=3.0),
            Target("pgrad", "score", 475.0),
            lighter("pgrad", "sb3"),
        ),
    ),
    "I": Row(
        "Recurrent PPO, CartPole-v1: 8 × 128, 4 epochs, minibatch 256, LSTM of 64, then 64-64",
        (
            pgrad(MEMORY_CARTPOLE, "pgrad eager"),
            pgrad(MEMORY_CARTPOLE, "pgrad compiled", "yes"),
            pgrad(MEMORY_CARTPOLE, "pgrad eager, through 128", agent={"sequence_length": 128}),
            pgrad(MEMORY_CARTPOLE, "pgrad compiled, through 128", "yes", agent={"sequence_length": 128}),
            contrib(MEMORY_CARTPOLE),
        ),
        (
            faster("pgrad compiled", 5.0, "sb3-contrib"),
            faster("pgrad compiled, through 128", 5.0, "sb3-contrib"),
            lighter("pgrad eager", "sb3-contrib"),
            lighter("pgrad compiled", "sb3-contrib"),
        ),
        larger_by=0.02,
    ),
    "J1": remembering("PPO as in row A with a GRU or an LSTM of 64, in sequences of 16", PPO_LONGER),
    "J2": remembering("The same, compiled", PPO_LONGEST, "yes"),
    "J3": remembering("A2C, CartPole-v1: 8 × 16, with a memory as in row J1", A2C_LONGER),
    "J4": remembering("TRPO, CartPole-v1: 8 × 128, with a memory as in row J1", TRPO_CARTPOLE),
}
