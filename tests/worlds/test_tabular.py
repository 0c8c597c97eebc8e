"""Tabular problems as worlds: what happens is what the tables say, and every algorithm can train on them."""

import dataclasses

import numpy as np
import pytest
import torch

import pgrad as pg
from pgrad.errors import UsageError
from pgrad.lab import exact
from pgrad.worlds.make import make
from pgrad.worlds.tensors.tabular import REFERENCE, Tabular
from pgrad.worlds.tensors.tensor import TensorWorld
from tests.worlds.conformance import check_world

P = [[[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]], [[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]], [[1.0, 0.0, 0.0]] * 2]
R = [[1.0, -1.0], [0.5, 2.0], [0.0, 0.0]]
RHO = [0.6, 0.4, 0.0]


def test_frequencies() -> None:
    """First states and transitions come as often as rho0 and P say (within 4 standard errors)."""
    n = 40_000
    world = TensorWorld(Tabular(P, R, RHO, horizon=2), n, seed=5)
    first = world.reset()
    expected = torch.tensor(RHO, dtype=torch.float64)
    share = torch.bincount(first, minlength=3) / n
    assert ((share - expected).abs() <= 4 * (expected * (1 - expected) / n).sqrt()).all()
    action = torch.arange(n) % 2
    step = world.step(action)
    for s in (0, 1):
        for a in (0, 1):
            rows = (first == s) & (action == a)
            p = torch.tensor(P[s][a], dtype=torch.float64)
            share = torch.bincount(step.obs[rows], minlength=3) / rows.sum()
            assert ((share - p).abs() <= 4 * (p * (1 - p) / rows.sum()).sqrt()).all()
            assert (step.reward[rows] == R[s][a]).all()
    assert not step.terminated.any()
    assert world.step(action).terminated.all()


def test_terminal_states_end_the_task_and_clocks_do_not() -> None:
    problem = Tabular(P, R, RHO, terminal=[False, False, True], time_limit=4)
    world = TensorWorld(problem, 500, seed=0)
    world.reset()
    clock = torch.zeros(500, dtype=torch.int64)
    for _ in range(12):
        reset = world.ended.clone()
        step = world.step(torch.zeros(500, dtype=torch.int64))
        clock = torch.where(reset, 0, clock + 1)
        assert torch.equal(step.terminated, (step.obs == 2) & ~reset)
        assert torch.equal(step.truncated, (clock == 4) & ~step.terminated)
    assert step.obs.max() == 2


def test_states_that_look_alike() -> None:
    world = TensorWorld(Tabular(P, R, RHO, horizon=3, observation=[0, 1, 0]), 50, seed=1)
    assert world.observation_space.n == 2
    seen = torch.cat([world.reset(), *(world.step(torch.zeros(50, dtype=torch.int64)).obs for _ in range(5))])
    assert set(seen.tolist()) == {0, 1}


@pytest.mark.parametrize("endless", [False, True])
def test_conforms(endless: bool) -> None:
    problem = dataclasses.replace(REFERENCE, horizon=None, time_limit=9) if endless else REFERENCE
    check_world(lambda n, seed: TensorWorld(problem, n, seed), steps=60, random_steps=True)


def test_a_problem_is_a_world() -> None:
    """`make` takes the problem itself, and knows the reference by its name."""
    for given in (REFERENCE, "lab-3x2x4"):
        world = make(given, n_envs=4, seed=3)
        assert (world.name, world.n_envs, int(world.observation_space.n)) == ("lab-3x2x4", 4, 3)
    with pytest.raises(UsageError, match="takes no workers"):
        make(REFERENCE, n_envs=2, workers=1)


@pytest.mark.parametrize("seed", range(3))
def test_reinforce_solves_the_reference(seed: int) -> None:
    """≥ 95% of the best return 3.8535 (γ = .9) after 2000 episodes (M-17), by exact evaluation."""
    run = pg.train(
        pg.Reinforce(gamma=0.9, learning_rate=0.02, n_episodes=10, baseline="mean"),
        REFERENCE,
        total_timesteps=8000,
        n_envs=10,
        seed=seed,
        progress=False,
    )
    with torch.no_grad():
        theta = run.agent.policy(torch.arange(3)).logits.double()
    assert float(exact.objective(REFERENCE, theta, 0.9)) > 0.95 * 3.8535


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"P": [[0.5, 0.5]]}, r"P must have shape \[S, A, S\], got \[1, 2\]"),
        ({"P": "rows"}, "P is not a table of numbers"),
        ({"P": [[[0.5], [0.2, 0.8]]]}, "P is not a table of numbers"),
        ({"r": [[1.0, 2.0]]}, r"r must have shape \[3, 2\], got \[1, 2\]"),
        ({"rho0": [0.5, 0.6, 0.0]}, "every row of rho0 must be probabilities ≥ 0 that sum to 1"),
        ({"rho0": [1.5, -0.5, 0.0]}, "every row of rho0 must be probabilities"),
        ({"P": (2 * np.array(P)).tolist()}, "every row of P must be probabilities"),
        ({"r": [[np.nan, 0.0]] * 3}, "r has an entry that is NaN"),
        ({"observation": [0, 2, 2]}, r"numbered 0, 1, … without a gap, got \[0, 2\]"),
        ({"observation": [0, 0.5, 1]}, "observation has an entry that is NaN or not of the right kind"),
        ({"terminal": [True, False, False]}, "no episode may start in a terminal state"),
        ({"horizon": 0}, "horizon must be a whole number of at least 1, got 0"),
        ({"horizon": 2.5}, "horizon must be a whole number of at least 1, got 2.5"),
        ({"time_limit": True}, "time_limit must be a whole number"),
    ],
)
def test_bad_problems(change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Tabular(**{"P": P, "r": R, "rho0": RHO, "horizon": 2} | change)
