import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrad.errors import UsageError
from pgrad.worlds.language.arithmetic import modular_addition
from pgrad.worlds.language.expression import evaluate
from pgrad.worlds.language.sequences import copy, parity
from pgrad.worlds.language.task import SPLITS
from pgrad.worlds.language.tasks import TASKS, make_task

NAMES = sorted(TASKS)
ENDS = st.sampled_from(SPLITS)
EXPRESSIONS = st.recursive(
    st.integers(0, 99).map(str),
    lambda part: st.tuples(part, st.sampled_from("+-*/"), part).map(lambda p: f"({p[0]}{p[1]}{p[2]})"),
    max_leaves=6,
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(split=ENDS, seed=st.integers(0, 2**63), index=st.integers(0, 2**40))
def test_every_solution_is_right_and_fits(name: str, split: str, seed: int, index: int) -> None:
    task = make_task(name)
    one = task.instance(split, seed, index)
    low, high = task.larger if split == "larger" else task.sizes
    assert low <= one.size <= high
    assert task.verify(one.solution, one) == task.verify(f" {one.answer}\n", one) == 1.0
    assert set(one.prompt + one.solution) <= set(task.alphabet)
    assert 0 < len(one.solution) <= task.longest
    assert one == task.instance(split, seed, index)
    assert (split == "held_out") == (split != "larger" and task.is_held_out(one))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(text=st.text() | st.text(alphabet="01.(+-*/) 9e²٣", max_size=30), index=st.integers(0, 50))
def test_garbage_earns_nothing_and_raises_nothing(name: str, text: str, index: int) -> None:
    task = make_task(name)
    one = task.instance("train", 0, index)
    assert task.verify(text, one) in (0.0, 1.0)
    assert task.verify(text + "#", one) == 0.0
    for other in (None, 3, b"1", [one.answer]):
        assert task.verify(other, one) == 0.0
    assert task.verify(one.answer + " " * 20_000, one) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_problem(name: str) -> None:
    task = make_task(name)
    seen = {
        split: {one.key for seed in range(3) for one in task.instances(split, 500, seed)} for split in SPLITS
    }
    for a, b in itertools.combinations(SPLITS, 2):
        assert not seen[a] & seen[b], (a, b)
    assert all(len(keys) > 10 for keys in seen.values())


def test_about_a_fifth_of_all_problems_is_held_out() -> None:
    task = parity(sizes=(12, 12), larger=(13, 13))
    drawn = [task.draw(rng_of(bits), 12) for bits in range(4096)]
    assert 0.18 < sum(map(task.is_held_out, drawn)) / 4096 < 0.22


def rng_of(bits: int):
    class Fixed:
        place = 0

        def randrange(self, _: int) -> int:
            self.place += 1
            return bits >> (self.place - 1) & 1

        def random(self) -> float:
            return 1.0

    return Fixed()


def test_a_problem_that_asks_the_same_is_in_the_same_split() -> None:
    task = make_task("addition")
    by_key: dict[str, set[str]] = {}
    for one in task.instances("train", 3000, 0):
        by_key.setdefault(one.key, set()).add(one.prompt)
    turned = [prompts for prompts in by_key.values() if len(prompts) > 1]
    assert {"3+5=", "5+3="} in turned or len(turned) > 20


def test_numbers_of_a_stream_do_not_change_between_versions() -> None:
    found = {name: make_task(name).instance("train", 7, 11).prompt for name in NAMES}
    assert found == {
        "addition": "0+1=",
        "copy": "fd=",
        "countdown": "2,6,8:0=",
        "modular-addition": "4+2=",
        "parity": "10011001=",
        "reverse": "fcdg=",
        "sort": "8596=",
    }


def test_a_longer_list_begins_with_the_shorter_one_and_seeds_differ() -> None:
    task = make_task("sort")
    assert task.instances("train", 20, 3)[:8] == task.instances("train", 8, 3)
    assert task.instances("train", 20, 3) != task.instances("train", 20, 4)


def test_answers_are_what_they_ought_to_be() -> None:
    for name, answer in {
        "parity": lambda p: str(p.count("1") % 2),
        "copy": lambda p: p,
        "reverse": lambda p: p[::-1],
        "sort": lambda p: "".join(sorted(p)),
        "addition": lambda p: str(eval(p)),
        "modular-addition": lambda p: str(eval(p) % 7),
    }.items():
        task = make_task(name)
        for one in task.instances("train", 50, 1):
            right = answer(one.prompt.removesuffix("="))
            assert one.answer == right
            assert task.verify(right, one) == 1.0
            assert task.verify(right + right[-1:], one) == float(name == "parity")  # bits before are a chain


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_chain_of_thought_is_the_running_parity(share: float) -> None:
    task = parity(sizes=(5, 9), larger=(10, 10), chain=share)
    drawn = task.instances("train", 1000, 0)
    for one in drawn:
        bits = [int(c) for c in one.prompt[:-1]]
        if one.metadata["reasons"]:
            assert one.solution == "".join(str(sum(bits[: i + 1]) % 2) for i in range(len(bits)))
        else:
            assert one.solution == one.answer
    assert abs(sum(one.metadata["reasons"] for one in drawn) / 1000 - share) < 0.05


def test_a_chain_of_sums_ends_in_the_answer() -> None:
    task = modular_addition(modulus=13)
    for one in task.instances("train", 100, 0):
        terms = [int(term) for term in one.prompt[:-1].split("+")]
        assert one.solution == ",".join(str(sum(terms[: i + 1]) % 13) for i in range(len(terms)))
        assert task.verify(f"1,99,{one.answer}", one) == task.verify(one.answer, one) == 1.0
        for wrong in (f"{one.answer},", f"1+{one.answer}", f"1, {one.answer}", f"{one.answer},13", ""):
            assert task.verify(wrong, one) == 0.0


def test_parity_wants_bits_only() -> None:
    task = parity()
    one = next(x for x in task.instances("train", 50, 0) if x.answer == "1")
    assert [task.verify(t, one) for t in ("1", "01", "0001", "10", "", "=1", "0 1", "x1")] == [
        *(1.0, 1.0, 1.0),
        *(0.0,) * 5,
    ]


def test_countdown_takes_whatever_reaches_the_target() -> None:
    task = make_task("countdown")
    one = next(x for x in task.instances("train", 999, 0) if x.prompt.startswith("3,") and x.size == 3)
    numbers, target = one.metadata["numbers"], one.metadata["target"]
    a, b, c = numbers
    for text in (
        f"{a}{b}{c}",
        f"{target}",
        f"{target}+{a}-{a}",
        f"{a}+{b}",
        f"{a}+{b}+{c}+0*{a}",
        "3**3",
        "3/0",
    ):
        assert task.verify(text, one) == 0.0, text
    assert task.verify(f" ( {one.solution} ) ", one) == 1.0


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS)
def test_expressions_are_worth_what_python_says(text: str) -> None:
    numbered = ""
    for part in itertools.groupby(text, str.isdigit):
        digits = "".join(part[1])
        numbered += f"Fraction({digits})" if part[0] else digits
    try:
        right = eval(numbered, {"Fraction": Fraction})
    except ZeroDivisionError:
        right = None
    got = evaluate(text)
    assert (got and got[0]) == right if right is not None else got is None


def test_operators_bind_as_usual_and_bad_expressions_are_none() -> None:
    assert evaluate("2+3*4-6/4") == (Fraction(25, 2), [2, 3, 4, 6, 4])
    assert evaluate("8-3-2") == (Fraction(3), [8, 3, 2])
    assert evaluate("8/4/2") == (Fraction(1), [8, 4, 2])
    for bad in ("", "(", ")", "1+", "+1", "1 2", "(1", "1)", "()", "2**3", "1/0", "a", "1.5", "٣", "1" * 201):
        assert evaluate(bad) is None, bad
    assert evaluate("(" * 90 + "1" + ")" * 90) == (Fraction(1), [1])


def test_options_and_their_errors() -> None:
    assert make_task("copy", letters="xyx").alphabet == "xy="
    assert modular_addition(modulus=97, chain=0.0).longest == 2
    assert modular_addition(modulus=97).longest == 6 * 3 - 1
    for name, options, words in (
        ("party", {}, "did you mean parity"),
        ("copy", {"leters": "ab"}, "did you mean letters"),
        ("copy", {"letters": "a"}, "two or more"),
        ("copy", {"letters": "a="}, "no '='"),
        ("copy", {"sizes": (0, 2)}, "1 ≤ first ≤ last"),
        ("copy", {"sizes": (3, 2)}, "1 ≤ first ≤ last"),
        ("copy", {"sizes": (2, 6)}, "larger must begin above"),
        ("copy", {"sizes": 3}, "cannot take"),
        ("copy", {"sizes": ("a", "b")}, "cannot take"),
        ("parity", {"chain": 2.0}, "between 0 and 1"),
        ("modular-addition", {"modulus": 1}, "at least 2"),
        ("modular-addition", {"chain": -0.1}, "between 0 and 1"),
        ("countdown", {"highest": 1}, "at least 2"),
    ):
        with pytest.raises(UsageError, match=words):
            make_task(name, **options)
    with pytest.raises(UsageError, match="a split is one of train, held_out, larger"):
        copy().instance("test", 0, 0)
    with pytest.raises(UsageError, match="too few problems"):
        parity(sizes=(1, 1), larger=(2, 2)).instances("held_out", 1, 0)


def test_reasoning_gym_behind_the_same_interface() -> None:
    pytest.importorskip("reasoning_gym")
    task = make_task("reasoning-gym:chain_sum", payload=True, min_digits=1, max_digits=1)
    train, held_out = task.instances("train", 40, 0), task.instances("held_out", 20, 0)
    assert not {one.key for one in train} & {one.key for one in held_out}
    for one in train:
        assert eval(one.prompt.removesuffix("=")) == int(one.answer)
        assert task.verify(one.solution, one) == 1.0
        assert task.verify(str(int(one.answer) + 1), one) == task.verify("((", one) == 0.0
        assert set(one.prompt + one.solution) <= set(task.alphabet)
    english = make_task("reasoning-gym:chain_sum").instance("train", 0, 0)
    assert len(english.prompt) > len(train[0].prompt) + 20
    for name, options, words in (
        ("chain_sun", {}, "did you mean chain_sum"),
        ("maze", {"payload": True}, "payload is not known"),
        ("chain_sum", {"min_dig": 1}, "cannot take"),
        ("chain_sum", {"min_digits": -1}, "cannot take"),
    ):
        with pytest.raises(UsageError, match=words):
            make_task(f"reasoning-gym:{name}", **options)
    with pytest.raises(UsageError, match="no sizes"):
        task.instance("larger", 0, 0)


def test_a_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "reasoning_gym", None)
    how = r"reasoning-gym is not installed: pip install 'pgrad\[reasoning-gym\]'"
    with pytest.raises(UsageError, match=how):
        make_task("reasoning-gym:gcd")
