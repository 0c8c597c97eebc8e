"""Defaults that are others on text: what is settled, and that what is given wins."""

import copy
import dataclasses
from typing import Any

import pytest

import pgrad as pg
from pgrad.algorithms import ALGORITHMS
from pgrad.algorithms.usual import (
    Lengths,
    Rates,
    Usual,
    both,
    counts_completions,
    for_completions,
    for_steps,
    for_text,
)

STEPS: dict[str, dict[str, Any]] = {
    "ppo": {
        "learning_rate": 3e-4,
        "n_steps": 256,
        "batch_size": 64,
        "n_epochs": 10,
        "gamma": 0.99,
        "ent_coef": 0.01,
        "critic_learning_rate": None,
    },
    "a2c": {"learning_rate": 7e-4, "n_steps": 5, "gamma": 0.99, "ent_coef": 0.01, "optimizer": "rmsprop"},
    "actor-critic": {
        "learning_rate": 1e-3,
        "n_steps": 128,
        "bootstrap_steps": 1,
        "n_critic_updates": 10,
        "gamma": 0.99,
        "ent_coef": 0.01,
    },
    "reinforce": {
        "learning_rate": 3e-3,
        "n_episodes": 8,
        "gamma": 0.99,
        "baseline": "value",
        "n_critic_updates": 20,
    },
    "grpo": {"learning_rate": 1e-3, "gamma": 1.0, "n_prompts": 8, "average": "sequence"},
    "imitate": {"learning_rate": 1e-3, "batch_size": 64},
}


@pytest.mark.parametrize("name", STEPS)
def test_in_worlds_of_steps_they_are_plain_numbers(name: str) -> None:
    algorithm: Any = ALGORITHMS[name]()
    settled = for_steps(algorithm)
    assert settled == algorithm
    for field, value in STEPS[name].items():
        assert getattr(algorithm, field) == value
        assert type(getattr(settled, field)) is type(value)
    assert not any(isinstance(getattr(settled, f.name), Usual) for f in dataclasses.fields(settled))


@pytest.mark.parametrize("kind", Rates._fields)
@pytest.mark.parametrize("name", STEPS)
def test_on_text(name: str, kind: str) -> None:
    algorithm = for_completions(for_text(ALGORITHMS[name](), kind), 50)
    rates = {"scratch": 3e-4, "pretrained": 1e-6, "lora": 1e-5}
    if name == "imitate":
        rates = {"scratch": 1e-3, "pretrained": 2e-5, "lora": 2e-4}
    own: Any = algorithm
    assert own.learning_rate == rates[kind]
    assert own.gamma == 1.0
    assert (own.optimizer, own.optimizer_eps) == ("adam", 1e-8)
    assert own.ent_coef == 0.0
    if own.critic == "value":
        assert own.critic_learning_rate == pytest.approx(10 * rates[kind])
        assert own.n_steps == 8 * 50
    else:
        assert own.critic_learning_rate is None
    if name == "reinforce":
        assert own.baseline == "leave-one-out"
    if name == "grpo":
        assert (own.n_prompts, own.average) == (32 if kind == "scratch" else 8, "token")
        assert type(own.n_prompts) is int
    assert not any(isinstance(getattr(own, f.name), Usual) for f in dataclasses.fields(own))


@pytest.mark.parametrize("name", STEPS)
def test_what_is_given_wins(name: str) -> None:
    """Though it be the default itself, and after copies."""
    fresh: Any = ALGORITHMS[name]()
    open_ = {f.name: getattr(fresh, f.name) for f in dataclasses.fields(fresh)}
    kinds: dict[type, Any] = {float: float, int: int, str: str}
    given = {
        k: next(t for t in kinds if isinstance(x, t))(x) for k, x in open_.items() if isinstance(x, Usual)
    }
    assert given
    algorithm = for_completions(for_text(ALGORITHMS[name](**given), "lora"), 9)
    for field, value in given.items():
        assert getattr(algorithm, field) == value, field
    assert not counts_completions(ALGORITHMS[name](**given))
    half = dataclasses.replace(fresh, learning_rate=0.5)
    assert for_text(half, "lora").learning_rate == 0.5
    assert for_text(half, "lora").gamma == 1.0
    assert for_text(copy.deepcopy(fresh), "lora") == for_text(fresh, "lora")


def test_a_critics_rate_that_is_given_is_kept() -> None:
    assert for_text(pg.PPO(critic_learning_rate=3e-3), "lora").critic_learning_rate == 3e-3
    assert for_text(pg.PPO(learning_rate=2e-4), "lora").critic_learning_rate == 2e-3


def test_both_are_said() -> None:
    ppo: Any = pg.PPO()
    assert both(ppo.gamma) == "0.99, text: 1"
    assert both(ppo.batch_size) == "64, text: none"
    assert both(ppo.n_steps) == f"256, text: {Lengths(8)}" == "256, text: 8 completions"
    assert "text: 0.0003 from scratch, 1e-06 pretrained, 1e-05 LoRA" in both(ppo.learning_rate)
    assert both(pg.PPO(gamma=0.99).gamma) == "0.99"


def test_elsewhere_they_look_like_numbers() -> None:
    ppo: Any = pg.PPO()
    assert [str(ppo.gamma), f"{ppo.n_steps}", repr(ppo.batch_size)] == ["0.99", "256", "64"]
    assert f"{pg.A2C().optimizer}" == "rmsprop"
