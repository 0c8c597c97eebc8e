"""Steps of several groups as one program: what they compute one by one."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import pgrad as pg
from pgrad.algorithms.soft import temper
from pgrad.data import Transition
from pgrad.training.loop import Training
from tests.training.tools import training

pytestmark = pytest.mark.usefixtures("cache")
SPEC = pg.AgentSpec(net_arch=(8,))
CASES = {
    "sac": (pg.SAC(learning_starts=4, batch_size=8, critic_learning_rate=1e-2), "pendulum"),
    "sac, fixed temperature": (pg.SAC(learning_starts=4, batch_size=8, ent_coef=0.1), "pendulum"),
    "sac, rmsprop": (pg.SAC(learning_starts=4, batch_size=8, optimizer="rmsprop"), "pendulum"),
    "discrete-sac": (pg.DiscreteSAC(learning_starts=4, batch_size=8, gradient_steps=2), "cartpole"),
}


def pair(name: str) -> tuple[Training, Training, list[str]]:
    """The same training twice, the second by machine code from the start; what that tells."""
    algorithm, world = CASES[name]
    plain, quick = (training(algorithm, world, agent=SPEC) for _ in range(2))
    told: list[str] = []
    quick.compile_after = 0
    quick.learner.machine.tell = quick.learner.machine.warn = told.append
    return plain, quick, told


def everything(made: Training) -> dict[str, Tensor]:
    """All that steps move: parameters, slow copies, temperature, moments, and where the generators are."""
    state = made.learner.state_dict()
    moments = {f"{group}.{key}": x for group, own in state["optimizers"].items() for key, x in own.items()}
    return made.agent.state_dict() | moments | {key: state[key] for key in ("generator", "noise")}


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("name", CASES)
def test_one_program_does_what_the_steps_do(name: str) -> None:
    plain, quick, told = pair(name)
    for _ in range(12):
        one, other = plain.iterate(), quick.iterate()
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5)
    step = f"gradient steps ({type(quick.algorithm).__name__}.gradient_step)"
    assert [step in line for line in told if "gradient_step" in line] == [True]
    assert not [line for line in told if "cannot" in line or ".loss" in line]
    assert quick.learner.n_updates == plain.learner.n_updates > 0
    ours, theirs = everything(plain), everything(quick)
    assert ours.keys() == theirs.keys()
    for key, x in ours.items():
        torch.testing.assert_close(theirs[key], x, rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.usefixtures("interpreted")
def test_a_group_that_is_stepped_twice_is_stepped_as_written() -> None:
    """One program knows one step size for each group: a second step would be as long as the first."""
    plain, quick, told = pair("sac")
    for made in (plain, quick):
        for _ in range(3):
            made.iterate()

    def twice(learner: Any, replayed: Transition, noise: Any) -> None:
        algorithm = CASES["sac"][0]
        assert isinstance(algorithm, pg.SAC)
        batch = learner.compute(algorithm.credit, replayed, noise)
        for _ in range(2):
            learner.descend(algorithm.loss, batch, "critic")
        temper(learner, batch, learner.descend(partial(algorithm.actor_loss, noise=noise), batch, "actor"))

    for made in (plain, quick):
        replayed = made.learner.replay.transitions(8, made.learner.generator)
        made.learner.perform(twice, replayed, made.learner.noise)
    assert [line for line in told if "twice cannot be compiled" in line]
    ours, theirs = everything(plain), everything(quick)
    for key, x in ours.items():
        torch.testing.assert_close(theirs[key], x, rtol=1e-4, atol=1e-6, msg=key)
