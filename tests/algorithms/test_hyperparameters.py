"""Defaults are those of the notes (M-98), ranges are checked, and a wrong value is told in one line."""

import dataclasses
import math
from typing import Any

import pytest

import pgrad as pg
from pgrad.algorithms import ALGORITHMS
from pgrad.algorithms.validate import RULES
from pgrad.errors import UsageError


def test_defaults_of_the_notes() -> None:
    """c₁ = .5, c₂ = .01, γ = .99, λ = .95, ε = .2, gradient norm .5; SB3's where the notes have none."""
    ppo = pg.PPO()
    assert (ppo.vf_coef, ppo.ent_coef, ppo.gamma, ppo.gae_lambda) == (0.5, 0.01, 0.99, 0.95)
    assert (ppo.clip_range, ppo.max_grad_norm) == (0.2, 0.5)
    assert (ppo.learning_rate, ppo.n_epochs, ppo.batch_size, ppo.n_steps * 8) == (3e-4, 10, 64, 2048)
    assert (ppo.normalize_advantage, ppo.clip_range_vf, ppo.target_kl) == (True, None, None)
    a2c = pg.A2C()
    assert (a2c.vf_coef, a2c.ent_coef, a2c.gamma, a2c.max_grad_norm) == (0.5, 0.01, 0.99, 0.5)
    assert (a2c.learning_rate, a2c.n_steps, a2c.gae_lambda) == (7e-4, 5, 1.0)
    assert (a2c.optimizer, a2c.normalize_advantage) == ("rmsprop", False)
    kl = pg.PPOKL()
    assert (kl.vf_coef, kl.ent_coef, kl.gamma, kl.gae_lambda, kl.max_grad_norm) == (
        0.5,
        0.01,
        0.99,
        0.95,
        0.5,
    )
    for algorithm in (pg.Reinforce(), pg.ActorCritic()):
        assert (algorithm.gamma, algorithm.max_grad_norm) == (0.99, 0.5)
    assert pg.ActorCritic().ent_coef == 0.01
    assert not pg.Reinforce().discount_decisions
    assert {ppo.optimizer_eps, a2c.optimizer_eps, kl.optimizer_eps, pg.TRPO().optimizer_eps} == {1e-5}
    assert pg.SAC().optimizer_eps == pg.DiscreteSAC().optimizer_eps == 1e-8  # torch's, as all of SAC's have


@pytest.mark.parametrize("cls", ALGORITHMS.values())
def test_every_number_has_a_rule(cls: Any) -> None:
    for field in dataclasses.fields(cls):
        value = getattr(cls(), field.name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert field.name in RULES, f"{field.name} may be anything"


RATES = ("learning_rate", "critic_learning_rate", "ent_coef", "vf_coef", "beta", "cg_damping")
UNITS = ("gamma", "gae_lambda")
COUNTS = (
    *("n_steps", "n_episodes", "bootstrap_steps", "batch_size", "n_epochs", "n_critic_updates"),
    *("buffer_size", "cg_max_steps", "sub_sampling_factor", "n_prompts", "max_length"),
)
POSITIVES = (
    "clip_range",
    "clip_range_high",
    "clip_range_vf",
    "target_kl",
    "max_grad_norm",
    "optimizer_eps",
    "rho_max",
    "c_max",
)
WRONG: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(RATES, (-0.1, math.nan, math.inf, -math.inf, "much", True)),
    **dict.fromkeys(UNITS, (-0.1, 1.1, 2, math.nan, math.inf, "0.9", True)),
    **dict.fromkeys(COUNTS, (0, -4, 2.5, math.nan, math.inf, "8", True)),
    **dict.fromkeys(POSITIVES, (0.0, -0.2, math.nan, "small", True)),
    **dict.fromkeys(
        ("learning_starts", "line_search_max_iter", "replay_ratio", "reuse"),
        (-1, 2.5, math.nan, "late", True),
    ),
    "gradient_steps": (0, -2, 1.5, math.nan, "all", True),
    "tau": (0.0, 1.5, -0.1, math.nan, "slow", True),
    "held_out": (1.0, -0.1, math.nan, "some", True),
    "target_entropy": (math.nan, math.inf, "low", True),
    "num_generations": (0, 1, -1, 2.5, math.nan, "two", True),
    "line_search_shrinking_factor": (0.0, 1.0, -0.5, math.nan, "half", True),
}


def test_the_table_covers_all_rules() -> None:
    assert WRONG.keys() == RULES.keys()


@pytest.mark.parametrize("cls", ALGORITHMS.values())
def test_wrong_numbers(cls: Any) -> None:
    """Each is refused with its name, what is allowed and what came, on one line."""
    for field in dataclasses.fields(cls):
        for value in WRONG.get(field.name, ()):
            with pytest.raises(UsageError) as error:
                cls(**{field.name: value})
            text = str(error.value)
            assert text.startswith(f"{cls.__name__}: {field.name} must be ")
            assert text.endswith(f"got {value!r}")
            assert "\n" not in text


@pytest.mark.parametrize("cls", ALGORITHMS.values())
def test_whole_floats_are_counts(cls: Any) -> None:
    """As on the command line, where 1e6 is one."""
    names = [field.name for field in dataclasses.fields(cls) if field.name in COUNTS]
    assert names
    for name in names:
        value = getattr(cls(**{name: 6.4e1}), name)
        assert (value, type(value)) == (64, int)
    assert type(cls(learning_rate=1.0).learning_rate) is float


@pytest.mark.parametrize("cls", ALGORITHMS.values())
def test_borders_are_allowed(cls: Any) -> None:
    names = {field.name for field in dataclasses.fields(cls)}
    for name in names & set(RATES):
        cls(**{name: 0.0})
    for name in names & set(UNITS):
        cls(**{name: 0.0})
        cls(**{name: 1})
    for name in names & set(COUNTS):
        cls(**{name: 1})
    for name in names & set(POSITIVES):
        cls(**{name: math.inf, **({"rho_max": math.inf} if name == "c_max" else {})})


@pytest.mark.parametrize("cls", ALGORITHMS.values())
def test_none_only_where_it_means_something(cls: Any) -> None:
    optional = {"critic_learning_rate", "clip_range_vf", "target_kl", "bootstrap_steps"}
    optional |= {"demonstrations", "clip_range_high", "max_length"}
    if cls is pg.GRPO:
        optional |= {"batch_size", "rho_max"}
    if cls is pg.PPO:
        optional |= {"batch_size"}
    for field in dataclasses.fields(cls):
        if field.name in optional and (cls, field.name) != (pg.TRPO, "target_kl"):
            cls(**{field.name: None})
        else:
            with pytest.raises(UsageError, match=f"{field.name} must be .*, got None"):
                cls(**{field.name: None})


@pytest.mark.parametrize(
    ("cls", "name", "value", "allowed"),
    [
        (pg.PPO, "learning_rate_schedule", "cosine", "'constant' or 'linear'"),
        (pg.PPO, "clip_range_schedule", "step", "'constant' or 'linear'"),
        (pg.A2C, "optimizer", "sgd", "'adam' or 'rmsprop'"),
        (pg.Reinforce, "baseline", "average", "'none' or 'mean' or 'leave-one-out' or 'optimal' or 'value'"),
        (pg.PPO, "normalize_advantage", "yes", "True or False"),
        (pg.Reinforce, "reward_to_go", 1, "True or False"),
    ],
)
def test_wrong_choices(cls: Any, name: str, value: Any, allowed: str) -> None:
    """A word that is none of the choices would otherwise silently mean the last of them."""
    with pytest.raises(UsageError) as error:
        cls(**{name: value})
    assert str(error.value) == f"{cls.__name__}: {name} must be {allowed}, got {value!r}"


def test_the_critic_looks_no_further_than_the_ratios_it_judges_by() -> None:
    """c̄ ≤ ρ̄, as V-trace has it; both may be infinite."""
    for rho, c in ((1.0, 1.5), (2.0, math.inf)):
        with pytest.raises(UsageError, match=f"c_max must be at most rho_max, {rho}, got {c}"):
            pg.OffPolicyActorCritic(rho_max=rho, c_max=c)
    for rho, c in ((1.5, 1.0), (2.0, 2.0), (math.inf, 3.0), (math.inf, math.inf)):
        pg.OffPolicyActorCritic(rho_max=rho, c_max=c)


def test_all_errors_at_once() -> None:
    with pytest.raises(UsageError) as error:
        pg.PPO(gamma=1.5, n_steps=0, clip_range=-1.0, optimizer="sgd")  # type: ignore[arg-type]
    for name in ("gamma", "n_steps", "clip_range", "optimizer"):
        assert f"{name} must be" in str(error.value)


@pytest.mark.parametrize(
    ("n_steps", "n_envs", "batch_size", "hint"),
    [
        (100, 8, 64, "n_steps · n_envs = 100 · 8 = 800; the nearest that do are 50 and 80"),
        (10, 4, 64, "n_steps · n_envs = 10 · 4 = 40; 40 does"),
        (7, 1, 2, "n_steps · n_envs = 7 · 1 = 7; the nearest that do are 1 and 7"),
    ],
)
@pytest.mark.parametrize("cls", [pg.PPO, pg.PPOKL])
def test_batches_that_do_not_divide(cls: Any, n_steps: int, n_envs: int, batch_size: int, hint: str) -> None:
    """Both numbers, and what would do."""
    with pytest.raises(UsageError) as error:
        cls(n_steps=n_steps, batch_size=batch_size).collects(n_envs)
    assert str(error.value) == f"batch_size {batch_size} does not divide {hint}"


def test_a_critic_is_asked_for_where_it_is_used() -> None:
    assert all(cls().critic == "value" for cls in (pg.PPO, pg.PPOKL, pg.A2C, pg.ActorCritic))
    assert pg.Reinforce(baseline="value").critic == "value"
    for baseline in ("none", "mean", "leave-one-out", "optimal"):
        assert pg.Reinforce(baseline=baseline).critic == "none"  # type: ignore[arg-type]
    assert pg.SAC.critic == pg.DiscreteSAC.critic == "q"
