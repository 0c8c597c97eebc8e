"""Every claim on problems that lack something: time, actions, states, chance, rewards or directions.

A claim may say that it cannot be tried on one; where it is tried, what is right must come out right.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pgrad.lab import Case, reference
from pgrad.lab.claim import ZERO
from pgrad.lab.claims import CLAIMS
from pgrad.lab.claims.common import true_gradient
from pgrad.lab.problems import random_case

BASE = random_case(7, n_states=3, n_actions=2, horizon=2)
STEP = torch.eye(3, dtype=torch.float64)


def table(*rows: list[list[float]]) -> Tensor:
    """P[s][a][s'] from rows of numbers."""
    return torch.tensor(rows, dtype=torch.float64)


def with_(case: Case = BASE, **changes: object) -> Case:
    """The same with another problem, as a user's own is: not the audit's."""
    return replace(case, problem=replace(case.problem, **changes), seed=0)  # type: ignore[arg-type]


def moved(theta: Tensor, direction: Tensor) -> Case:
    """The base problem with another policy and direction."""
    return replace(BASE, theta=theta, direction=direction, seed=0)


CYCLE = STEP[torch.tensor([[1, 2], [2, 0], [0, 1]])]
CORRIDOR = STEP[torch.tensor([[1, 0], [2, 1], [2, 2]])]
STAY = STEP.unsqueeze(1).expand(3, 2, 3)
LAST = torch.tensor([False, False, True])
FIRST, FIRST_TWO = (torch.tensor(x, dtype=torch.float64) for x in ([1, 0, 0], [0.5, 0.5, 0]))
LATE = torch.zeros(3, 2, dtype=torch.float64).index_put(
    (torch.tensor(1), torch.tensor(0)), torch.tensor(1.0).double()
)
RANDOM, ZEROS = BASE.problem, torch.zeros_like(BASE.theta)
CERTAIN = 8 * torch.where(BASE.theta == BASE.theta.amax(1, keepdim=True), 1.0, -1.0).double()
UNREACHED = with_(P=FIRST_TWO.expand(3, 2, 3), rho0=FIRST_TWO)

PROBLEMS = {
    "one decision": with_(horizon=1),
    "one state": random_case(3, n_states=1, n_actions=3, horizon=2),
    "one decision, one state": random_case(3, n_states=1, n_actions=2, horizon=1),
    "many decisions": with_(random_case(13, n_states=1, n_actions=2), horizon=7),
    "all states look alike": random_case(5, n_states=3, n_actions=2, horizon=2, n_observations=1),
    "deterministic": with_(P=CYCLE, horizon=3),
    "deterministic from one start": with_(P=CYCLE, rho0=FIRST, horizon=3),
    "nothing changes": with_(P=STAY),
    "actions change rewards only": with_(P=RANDOM.P[:, :1].expand(3, 2, 3), horizon=3),
    "actions that do the same": with_(
        P=RANDOM.P[:, :1].expand(3, 2, 3), r=torch.tensor([[1.0, 1], [0, 0], [0, 1]])
    ),
    "over at once": with_(P=STEP[2].expand(3, 2, 3), terminal=LAST, rho0=FIRST),
    "over by choice": with_(
        P=STEP[torch.tensor([[2, 0], [2, 2], [2, 2]])], terminal=LAST, rho0=FIRST, horizon=3
    ),
    "over by chance": with_(terminal=LAST, rho0=FIRST_TWO),
    "a state that is never reached": UNREACHED,
    "a late reward": with_(P=CORRIDOR, r=LATE, rho0=FIRST, horizon=3),
    "rewards of states": with_(r=RANDOM.r[:, :1].expand(3, 2), horizon=3),
    "rewards of actions": with_(r=RANDOM.r[:1].expand(3, 2)),
    "large rewards": with_(r=1e5 * RANDOM.r),
    "tiny rewards": with_(r=1e-6 * RANDOM.r),
    "raised rewards": with_(r=RANDOM.r + 1e4),
    "a uniform policy": moved(ZEROS, BASE.direction),
    "a policy nearly certain": moved(12 * BASE.theta, BASE.direction),
    "logits of ±8": moved(CERTAIN, BASE.direction),
    "logits of ±8, far from others": moved(CERTAIN, 5 * BASE.direction),
    "logits of ±8, no direction": moved(CERTAIN, ZEROS),
    "logits of ±8, large rewards": replace(with_(r=1e6 * RANDOM.r), theta=CERTAIN),
    "logits of ±8, deterministic": replace(with_(P=CYCLE, horizon=3), theta=CERTAIN),
    "no direction": moved(BASE.theta, ZEROS),
    "a direction that changes nothing": moved(BASE.theta, ZEROS + 1),
    "a tiny direction": moved(BASE.theta, 1e-6 * BASE.direction),
    "a direction in one state": moved(BASE.theta, LAST.unsqueeze(1) * BASE.direction),
    "a direction in a state never reached": replace(UNREACHED, direction=LAST.unsqueeze(1) * BASE.direction),
    "five actions": random_case(20, n_states=2, n_actions=5, horizon=2),
}
"""By name."""

TIMELESS = [
    "one decision",
    "one state",
    "all states look alike",
    "deterministic",
    "over by choice",
    "over by chance",
]
"""Looked at without a future (γ = 0) and without a discount (γ = 1) too."""

CASES = {f"{name}, γ = 0.9": replace(case, gamma=0.9) for name, case in PROBLEMS.items()}
CASES |= {f"{name}, γ = {g:g}": replace(PROBLEMS[name], gamma=g) for name in TIMELESS for g in (0.0, 1.0)}
CASES |= {"the reference, γ = 0": reference(0.0)}
"""All have a gradient: `pgrad lab` refuses what has none."""

TRIED = [claim for claim in CLAIMS.values() if claim.id != "E-53"]
"""All but the bicycle's, which rides alike beside every problem."""


@pytest.mark.parametrize("name", CASES)
def test_right_wherever_it_fits(name: str) -> None:
    case, wrong = CASES[name], {}
    for claim in TRIED:
        if claim.fits(case):
            measured = claim.measure(case)
            if not claim.confirmed(measured):
                wrong[claim.id] = measured.numbers
    assert not wrong


def test_most_claims_fit_and_the_others_say_what_they_need() -> None:
    fit = {(name, claim.id): claim.fits(case) for name, case in CASES.items() for claim in TRIED}
    assert sum(fit.values()) > 0.8 * len(fit)
    silent = {claim for (_, claim), fits in fit.items() if not fits and not CLAIMS[claim].needs}
    assert not silent


def test_what_has_no_gradient() -> None:
    """One action, and rewards that are all alike; everything else here has one."""
    assert all(float(true_gradient(case).norm()) > ZERO for case in CASES.values())
    for case in (random_case(3, n_actions=1), with_(r=ZEROS), with_(r=ZEROS + 1)):
        assert float(true_gradient(case).norm()) < ZERO


@pytest.mark.parametrize("name", ["L-17", "E-21", "L-54", "L-55", "E-13"])
def test_batches_of_a_large_problem(name: str) -> None:
    """20,736 trajectories, of which all pairs would be 200 million: a shorter copy is looked at."""
    large = replace(random_case(1, n_states=4, n_actions=3, horizon=4), seed=0)
    assert CLAIMS[name].measure(large).right
