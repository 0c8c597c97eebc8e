"""Spellings: other libraries' options, numbers, key=value pairs, what was probably meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrad.cli.names import ALIASES, choose, pairs, translate, whole
from pgrad.errors import UsageError
from pgrad.extras import nearest


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--num-envs 4", "--n-envs 4"),
        ("--num_envs=4", "--n-envs=4"),
        ("--num-steps 4 --update-epochs 3", "--n-steps 4 --n-epochs 3"),
        ("--clip-coef 0.1", "--clip-range 0.1"),
        ("--epsilon 0.1", "--clip-range 0.1"),
        ("--lr -1e-3", "--learning-rate -1e-3"),
        ("--n-timesteps 1e6", "--total-timesteps 1e6"),
        ("--gae-lambda 1 --vf_coef 2", "--gae-lambda 1 --vf-coef 2"),
        ("--anneal-lr --seed 1", "--learning-rate-schedule linear --seed 1"),
        ("--no-anneal-lr", "--learning-rate-schedule constant"),
        ("--seed 1 --env CartPole-v1", "CartPole-v1 --seed 1"),
        ("--seed 1 --env_id=CartPole-v1", "CartPole-v1 --seed 1"),
        ("CartPole-v1 --run_dir a_b-c", "CartPole-v1 --run-dir a_b-c"),
        ("--lora", "--lora 16"),
        ("--lora p.jsonl --seed 1", "--lora 16 p.jsonl --seed 1"),
        ("--lora --seed 1", "--lora 16 --seed 1"),
        ("--lora 8 p.jsonl", "--lora 8 p.jsonl"),
        ("--lora=8", "--lora=8"),
        ("--lora -1", "--lora -1"),
        ("--lora-alpha 3", "--lora-alpha 3"),
    ],
)
def test_other_spellings_are_translated(given: str, meant: str) -> None:
    assert translate(given.split()) == meant.split()


def test_translation_is_idempotent_and_no_alias_hides_another() -> None:
    once = translate([f"--{alias}" for alias in ALIASES])
    assert once == [f"--{name}" for name in ALIASES.values()]
    assert translate(once) == once


@pytest.mark.parametrize("name", ["ppo-kl", "PPOKL", "ppo_kl", "PPO-KL"])
def test_case_hyphens_and_underscores_do_not_matter(name: str) -> None:
    assert choose(name, ["ppo", "ppo-kl"], "algorithm") == "ppo-kl"


def test_an_unknown_name_gets_the_nearest_one_and_all() -> None:
    with pytest.raises(UsageError) as error:
        choose("reinforc", ["ppo", "reinforce"], "algorithm")
    assert (
        str(error.value)
        == "unknown algorithm 'reinforc': did you mean reinforce? (there are: ppo, reinforce)"
    )
    with pytest.raises(UsageError) as error:
        choose("zzz", ["ppo", "reinforce"], "algorithm")
    assert str(error.value) == "unknown algorithm 'zzz' (there are: ppo, reinforce)"


def test_the_beginning_of_a_name_is_near_to_it() -> None:
    with pytest.raises(
        UsageError, match=r"'off-policy': did you mean off-policy-actor-critic\? \(there are: "
    ):
        choose("off-policy", ["ppo", "off-policy-actor-critic"], "algorithm")
    assert (
        nearest("TRAIN", ["train-on-and-on", "train-and-more", "else"], 1) == "did you mean train-and-more?"
    )
    assert nearest("ex", ["exact-advantages"]) == ""


def test_where_there_are_many_it_is_said_what_lists_them() -> None:
    with pytest.raises(UsageError) as error:
        choose("zzz", ["ppo"], "recipe", "pgrad recipe lists all")
    assert str(error.value) == "unknown recipe 'zzz' (pgrad recipe lists all)"
    with pytest.raises(UsageError) as error:
        choose("pp0", ["ppo"], "recipe", "pgrad recipe lists all")
    assert str(error.value) == "unknown recipe 'pp0': did you mean ppo? (pgrad recipe lists all)"


@given(st.integers(-(10**15), 10**15))
def test_whole_numbers_are_read_as_written(n: int) -> None:
    assert whole(str(n)) == whole(f"{n:_}") == n


@pytest.mark.parametrize(
    ("text", "n"), [("1e6", 10**6), ("2.5e3", 2500), ("1E2", 100), ("-3.0", -3), ("0", 0)]
)
def test_whole_numbers_in_scientific_notation(text: str, n: int) -> None:
    assert whole(text) == n
    assert type(whole(text)) is int


@pytest.mark.parametrize("text", ["1.5", "1e-3", "nan", "inf", "-inf", "x", "", "1e"])
def test_what_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number"):
        whole(text)


def test_pairs_are_python_literals_or_strings() -> None:
    given = [
        "gravity=-9.8",
        "continuous=True",
        "sutton=false",
        "map_name=8x8",
        "sizes=[1,2]",
        "path=a=b",
        "none=None",
    ]
    assert pairs(given) == {
        "gravity": -9.8,
        "continuous": True,
        "sutton": False,
        "map_name": "8x8",
        "sizes": [1, 2],
        "path": "a=b",
        "none": None,
    }


@pytest.mark.parametrize("text", ["gravity", "=1", "a b=1", "1a=2", "--x=3"])
def test_what_is_no_pair_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="takes key=value pairs"):
        pairs([text])
