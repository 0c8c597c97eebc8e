"""Tensor worlds with other numbers: those that one would make in Python; bad ones are told."""

from typing import Any

import pytest
import torch

from pgrad.errors import UsageError
from pgrad.worlds import make
from pgrad.worlds.tensors.bicycle import Bicycle
from pgrad.worlds.tensors.settings import settings, with_settings
from pgrad.worlds.tensors.tensor import TENSOR_WORLDS, TensorWorld, dynamics_of
from pgrad.worlds.tensors.tmaze import TMaze
from tests.worlds.tools import sampler


@pytest.mark.parametrize(
    ("name", "given", "dynamics"),
    [
        ("bicycle", {"speed": 3, "fall_cost": 0.5}, Bicycle(speed=3.0, fall_cost=0.5)),
        ("bicycle-no-rate", {"ahead": 0.0}, Bicycle(ahead=0.0, rates_seen=False, name="bicycle-no-rate")),
        ("bicycle", {"rates_seen": False}, Bicycle(rates_seen=False)),
        ("t-maze", {"length": 70, "max_episode_steps": 100}, TMaze(length=70, max_episode_steps=100)),
    ],
)
def test_a_name_with_numbers_is_the_dynamics_with_them(name: str, given: Any, dynamics: Any) -> None:
    """Step by step, and not the world without them."""
    one, other = make(name, n_envs=3, seed=1, kwargs=given), TensorWorld(dynamics, 3, 1)
    assert one.name == name
    assert one.observation_space == other.observation_space
    assert dynamics != dynamics_of(name)
    assert torch.equal(one.reset(), other.reset())
    draw = sampler(one, 0)
    for _ in range(120):
        action = draw()
        mine, theirs = one.step(action), other.step(action)
        for x, y in zip(mine, theirs, strict=True):
            assert torch.equal(x, y)


def test_every_number_of_a_world_can_be_set_and_nothing_else() -> None:
    for name in TENSOR_WORLDS:
        dynamics: Any = dynamics_of(name)
        own = {key: getattr(dynamics, key) for key in settings(dynamics)}
        assert not own.keys() & {"name", "noise", "continuous", "start", "step", "P"}
        assert all(x is None or isinstance(x, bool | int | float) for x in own.values())
        if own:
            made: Any = with_settings(dynamics, own)
            assert {key: getattr(made, key) for key in own} == own
    assert {"speed", "dt", "rates_seen", "max_episode_steps"} <= settings(Bicycle()).keys()


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("bicycle", {"sped": 3}, "bicycle has no 'sped' to set: did you mean speed? (there are: gravity, "),
        ("bicycle", {"name": "x"}, "bicycle has no 'name' to set (there are: "),
        ("bicycle", {"noise": 3}, "bicycle has no 'noise' to set (there are: "),
        ("probe-both", {"continuous": True}, "no 'continuous' to set (there are: max_episode_steps)"),
        ("bicycle", {"speed": "fast"}, "speed of bicycle must be a finite number, got 'fast'"),
        ("bicycle", {"speed": True}, "speed of bicycle must be a finite number, got True"),
        ("bicycle", {"dt": float("nan")}, "dt of bicycle must be a finite number, got nan"),
        ("bicycle", {"rates_seen": 1}, "rates_seen of bicycle must be true or false, got 1"),
        ("bicycle", {"max_episode_steps": 0}, "must be a whole number ≥ 1, got 0"),
        ("t-maze", {"length": 7.5}, "length of t-maze must be a whole number ≥ 1, got 7.5"),
        (
            "t-maze",
            {"length": 70},
            "t-maze cannot be made with length=70: length must be at least 1 and less",
        ),
        ("bicycle", {"height": 0}, "bicycle cannot be made with height=0: float division by zero"),
        ("bicycle", {"dt": 0.0}, "bicycle cannot be made with dt=0.0: its first step is not finite"),
        ("bicycle", {"max_lean": -1.0}, "bicycle cannot be made with max_lean=-1.0: Box all low values"),
    ],
)
def test_what_cannot_be_set_is_told(name: str, given: Any, text: str) -> None:
    with pytest.raises(UsageError) as error:
        make(name, kwargs=given)
    assert text in str(error.value)
    assert "\n" not in str(error.value)
