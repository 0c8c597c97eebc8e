"""Whole trainings by machine code of the real compiler end where the functions as they are written do."""

from typing import Any

import pytest
import torch

import pgrad as pg
from tests.training.tools import CONSTRAINED, RELU, Parts, training

pytestmark = [pytest.mark.usefixtures("cache"), pytest.mark.filterwarnings("ignore")]  # the compiler's own

MEMORY = pg.AgentSpec(net_arch=(8,), memory="lstm", memory_size=4, sequence_length=8)
TRAININGS: dict[str, tuple[Any, Any, Any, int]] = {
    "sac": (pg.SAC(learning_starts=20, batch_size=16), "pendulum", RELU, 30),
    "trpo": (CONSTRAINED, Parts, RELU, 8),
    "lstm": (pg.PPO(n_steps=16, batch_size=16, n_epochs=2), "cartpole-masked", MEMORY, 10),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_iterations_by_machine_code(name: str) -> None:
    """All tensors of the agent up to rounding, so few that no action hangs on it; nothing falls back to what
    is written.
    """
    algorithm, world, agent, iterations = TRAININGS[name]
    ends = []
    for after in (None, 0):
        made = training(algorithm, world, agent=agent, n_envs=4)
        made.compile_after = after
        made.learner.machine.warn = pytest.fail  # nothing may run as it is written
        for _ in range(iterations):
            made.iterate()
        assert made.learner.n_updates > 0
        ends.append(made.learner.machine.tensors())
    assert None not in made.learner.machine._programs.values()
    assert len(made.learner.machine._programs) > 1
    for key, plain in ends[0].items():
        torch.testing.assert_close(ends[1][key], plain, atol=1e-3, rtol=1e-3, msg=key)
    start = training(algorithm, world, agent=agent, n_envs=4).learner.machine.tensors()
    assert any(not torch.allclose(ends[0][key], x, atol=1e-2) for key, x in start.items())
