import asyncio
import functools
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pgrad.errors import TrainingError, UsageError
from pgrad.stopping import Stopped
from pgrad.worlds.language import calls
from pgrad.worlds.language.isolated import Isolated
from pgrad.worlds.language.rewards import Rewards, Scores

TEXTS = ["a", "bb", "ccc", "dddd"]
IDS = [[1] * len(text) for text in TEXTS]
COLUMNS = {"answer": ["a", "x", "ccc", "y"], "level": [0, 1, 2, 3]}


def score(rewards: Rewards, texts: list[Any] = TEXTS, columns: dict[str, list[Any]] = COLUMNS) -> Scores:
    return rewards.score([f"{text}?" for text in texts], texts, [[1] * len(text) for text in texts], columns)


def lengths(completions: list[str], **_: Any) -> list[float]:
    return [float(len(one)) for one in completions]


def accuracy(prompts: list[str], completions: list[str], answer: list[str], **kwargs: Any) -> list[float]:
    assert set(kwargs) == {"completion_ids", "level"}
    assert prompts == [f"{one}?" for one in completions]
    return [float(one == right) for one, right in zip(completions, answer, strict=True)]


async def judged(completions: list[str], **_: Any) -> list[float | None]:
    await asyncio.sleep(0.01)
    return [None if one == "bb" else 10.0 for one in completions]


def unsure(completions: list[str]) -> list[float | None]:  # takes no **kwargs: it is given what it names
    return [None if one == "bb" else 1.0 for one in completions]


def test_weighted_sum_leaves_out_what_one_function_cannot_say() -> None:
    rewards = Rewards([lengths, accuracy, judged], weights=[1.0, 0.5, 0.25])
    found = score(rewards)
    assert found.total.tolist() == [1 + 0.5 + 2.5, 2.0, 3 + 0.5 + 2.5, 4 + 2.5]
    assert found.total.dtype == torch.float64
    assert found.each["judged"].isnan().tolist() == [False, True, False, False]
    assert found.metrics["rewards/judged/unscored"] == 1.0
    assert found.metrics["rewards/judged/mean"] == 10.0
    assert found.metrics["rewards/lengths/mean"] == 2.5
    assert found.metrics["rewards/lengths/std"] == pytest.approx(np.std([1, 2, 3, 4], ddof=1))
    assert not found.failures
    rewards.close()


def test_what_nobody_can_say_is_nan_and_never_zero() -> None:
    found = score(Rewards([unsure, functools.partial(unsure)]))
    assert found.total.tolist()[::2] == [2.0, 2.0]
    assert math.isnan(found.total[1])
    nothing = score(Rewards(lambda completions: [None] * len(completions)))
    assert nothing.total.isnan().all()
    assert not any("mean" in key for key in nothing.metrics)
    assert len(score(Rewards(lengths), []).total) == 0


def test_one_function_serves_both_conventions() -> None:
    """As TRL calls it: everything by name, extra columns and its own state too."""
    trl = {"prompts": [f"{t}?" for t in TEXTS], "completions": TEXTS, "completion_ids": IDS, **COLUMNS}
    ours = score(Rewards(accuracy)).each["accuracy"].tolist()
    assert accuracy(**trl) == ours == [1.0, 0.0, 1.0, 0.0]

    def extras(
        completions: list[str], trainer_state: Any = None, log_extra: Any = None, **_: Any
    ) -> list[float]:
        return [0.0 if trainer_state is None else 1.0] * len(completions)

    assert extras(**trl, trainer_state=object()) == [1.0] * 4
    assert score(Rewards(extras)).total.tolist() == [0.0] * 4


def test_functions_of_trl_itself() -> None:
    trl = pytest.importorskip("trl.rewards")
    overlong = trl.get_soft_overlong_punishment(max_completion_len=4, soft_punish_cache=2)
    assert score(Rewards(overlong)).total.tolist() == [0.0, 0.0, -0.5, -1.0]


@pytest.mark.parametrize(
    "answer",
    [
        (1, 0, 1, 0),
        [True, False, True, False],
        np.array([1.0, 0, 1, 0], np.float32),
        torch.tensor([1, 0, 1, 0]),
        [torch.tensor(1.0), np.float32(0), np.int64(1), 0],
    ],
)
def test_numbers_of_every_kind(answer: Any) -> None:
    assert score(Rewards(lambda **_: answer)).total.tolist() == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([1.0, 2.0], "bad returned 2 rewards for 4 completions"),
        ([1.0] * 5, "bad returned 5 rewards for 4"),
        (1.0, "bad must return a list of numbers, one for each completion, got a float"),
        (None, "got a NoneType"),
        ({"a": 1}, "got a dict"),
        ([1.0, "2", 1, 1], "bad returned '2' for 'bb'"),
        ([1.0, [2.0], 1, 1], r"bad returned \[2.0\] for 'bb'"),
        ([1.0, 1, math.nan, 1], "bad returned nan for 'ccc'.* or None"),
        ([1.0, 1, 1, math.inf], "bad returned inf for 'dddd'"),
        (torch.tensor(1.0), "got a float"),
        (torch.ones(4, 2), r"bad returned \[1.0, 1.0\] for 'a'"),
    ],
)
def test_bad_answers_stop_the_run_at_once(answer: Any, words: str) -> None:
    def bad(**_: Any) -> Any:
        return answer

    with pytest.raises(TrainingError, match=words):
        score(Rewards([lengths, bad]))


def test_a_completion_it_raises_on_is_counted_named_and_left_out() -> None:
    def picky(completions: list[str], **_: Any) -> list[float]:
        return [1 / (len(one) - 2) for one in completions]

    found = score(Rewards([lengths, picky]))
    assert found.total.isnan().tolist() == [False, True, False, False]
    assert found.total[[0, 2, 3]].tolist() == [1 - 1, 3 + 1, 4 + 0.5]
    (failure,) = found.failures
    line = picky.__code__.co_firstlineno + 1
    error = f"ZeroDivisionError: division by zero (test_rewards.py:{line})"
    assert failure == ("picky", 1, "'bb'", error)
    assert found.metrics["rewards/picky/failed"] == found.metrics["rewards/picky/retried"] == 1.0
    assert found.metrics["rewards/picky/unscored"] == 0.0
    with pytest.raises(
        TrainingError, match=r"picky failed on 1 of 2 .* \(at most 0 of 4 may fail\): ZeroDivisionError.*'bb'"
    ):
        score(Rewards(picky, max_failures=0.0))


def looks(completions: list[str], **_: Any) -> list[float]:
    return [json.loads("0.5" if one == "a" else "{") for one in completions]  # raises in another file


async def looks_too(completions: list[str], **_: Any) -> list[float]:
    return looks(completions)


class Looking:
    def __call__(self, completions: list[str], **_: Any) -> list[float]:
        return looks(completions)


@functools.wraps(looks)
def decorated(*args: Any, **kwargs: Any) -> Any:
    return looks(*args, **kwargs)


@pytest.mark.parametrize("reward", [looks, looks_too, Looking(), Looking().__call__, decorated, "partial"])
def test_it_says_where_in_the_file_of_the_function(reward: Any) -> None:
    rewards = Rewards(functools.partial(looks) if reward == "partial" else reward)
    (failure,) = score(rewards, ["a", "b"], {}).failures
    assert failure.error.startswith("JSONDecodeError: ")
    assert failure.error.endswith(f" (test_rewards.py:{looks.__code__.co_firstlineno + 1})")
    rewards.close()


def test_past_the_share_the_run_stops_and_says_why() -> None:
    calls = []

    def broken(completions: list[str], **_: Any) -> list[float]:
        calls.append(len(completions))
        raise KeyError("solution")

    texts = [str(i) for i in range(40)]
    with pytest.raises(
        TrainingError, match=r"reward broken failed on 5 of 5 .*\(at most 4 of 40 may fail\): KeyError.*'0'"
    ) as error:
        score(Rewards(broken), texts, {})
    assert calls == [40, 1, 1, 1, 1, 1]
    assert isinstance(error.value.__cause__, KeyError)
    with pytest.raises(TrainingError, match="failed on 1 of 1"):
        score(Rewards(broken), ["a"], {})

    def leaves(**_: Any) -> None:
        raise SystemExit("bye")

    with pytest.raises(TrainingError, match="SystemExit: bye"):
        score(Rewards(leaves))


def test_what_fails_once_only_loses_nothing() -> None:
    calls = []

    def shaky(completions: list[str], **_: Any) -> list[float]:
        calls.append(0)
        if len(calls) == 1:
            raise ConnectionError
        return lengths(completions)

    found = score(Rewards(shaky))
    assert found.total.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert found.metrics["rewards/shaky/retried"] == 1.0
    assert found.metrics["rewards/shaky/failed"] == 0.0


def hangs_on(letter: str, how: Any) -> Any:
    def sync(completions: list[str], **_: Any) -> list[float]:
        if any(letter in one for one in completions):
            how(30)
        return lengths(completions)

    async def coroutine(completions: list[str], **_: Any) -> list[float]:
        if any(letter in one for one in completions):
            await asyncio.sleep(30)
        return lengths(completions)

    return sync if how is time.sleep else coroutine


@pytest.mark.parametrize("how", [time.sleep, asyncio.sleep])
def test_a_hang_ends_at_the_time_out(how: Any) -> None:
    rewards = Rewards(hangs_on("b", how), timeout=0.2)
    began = time.monotonic()
    found = score(rewards)
    assert 0.4 <= time.monotonic() - began < 10
    assert found.total.isnan().tolist() == [False, True, False, False]
    assert found.failures[0].error == "no answer within 0.2 s"
    rewards.close()


def test_a_coroutine_is_cancelled_at_its_time_out() -> None:
    ended = []

    async def waits(completions: list[str], **_: Any) -> list[float]:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(len(completions))
        return lengths(completions)

    rewards = Rewards(waits, timeout=0.1)
    with pytest.raises(TrainingError, match="no answer within"):
        score(rewards, ["a"])
    assert ended == [1]
    rewards.close()


def test_a_computation_without_end_is_left_behind_too() -> None:
    stop = []

    def busy(completions: list[str], **_: Any) -> list[float]:
        while not stop:
            pass
        return lengths(completions)

    with pytest.raises(TrainingError, match=r"busy failed on 1 of 1 .*no answer within 0.2 s"):
        score(Rewards(busy, timeout=0.2), ["a"])
    stop.append(True)


@pytest.mark.parametrize("how", [time.sleep, asyncio.sleep])
def test_three_hangs_in_a_row_stop_the_run(how: Any) -> None:
    rewards = Rewards(hangs_on("", how), timeout=0.1, max_failures=0.9)
    with pytest.raises(TrainingError, match="failed on 3 of 3 completions"):
        score(rewards, [str(i) for i in range(50)], {})
    rewards.close()


def test_a_coroutine_that_blocks_its_loop_does_not_hold_up_the_next() -> None:
    stop = []

    async def blocks(completions: list[str], **_: Any) -> list[float]:
        while not stop and "b" in completions[0]:
            time.sleep(0.01)
        return lengths(completions)

    rewards = Rewards(blocks, timeout=0.1)
    with pytest.raises(TrainingError, match="no answer"):
        score(rewards, ["b"])
    assert score(rewards, ["a"]).total.tolist() == [1.0]
    stop.append(True)
    rewards.close()


def test_async_functions_run_together() -> None:
    async def slow(completions: list[str], **_: Any) -> list[float]:
        await asyncio.sleep(0.5)
        return lengths(completions)

    class Judge:
        async def __call__(self, completions: list[str], **_: Any) -> list[float]:
            return await slow(completions)

    rewards = Rewards([slow, functools.partial(slow), Judge()])
    assert rewards.names == ["slow", "slow_2", "Judge"]
    began = time.monotonic()
    assert score(rewards).total.tolist() == [3.0, 6.0, 9.0, 12.0]
    assert time.monotonic() - began < 1.4
    rewards.close()


def test_a_function_may_do_to_its_lists_what_it_likes() -> None:
    def greedy(completions: list[str], answer: list[str], **_: Any) -> list[float]:
        completions.clear()
        answer.append("z")
        return [0.0] * 4

    assert score(Rewards([greedy, lengths])).total.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert COLUMNS["answer"] == ["a", "x", "ccc", "y"]


def test_functions_say_which_columns_they_need() -> None:
    Rewards([accuracy, lengths, unsure]).require(["answer"])
    with pytest.raises(UsageError, match="reward accuracy needs a column 'answer': did you mean answers"):
        Rewards([lengths, accuracy]).require(["answers"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"functions": []}, "at least one"),
        ({"functions": ["f"]}, "are functions"),
        ({"functions": [lengths], "weights": [1.0, 2.0]}, "as many weights"),
        ({"functions": lengths, "weights": [math.nan]}, "finite"),
        ({"functions": lengths, "timeout": 0.0}, "timeout must be above 0"),
        ({"functions": lengths, "max_failures": 1.0}, "max_failures in"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Rewards(**arguments)


SLOW = """
import time
def slow(completions, **columns):
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_an_answer_that_is_there_is_not_thrown_away(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop is not asked for once it has come: it was paid for, and would be again."""
    monkeypatch.setattr(calls, "POLL", 30.0)

    def paid(completions: list[str]) -> list[float]:
        time.sleep(0.05)  # it is waited for
        return [1.0] * len(completions)

    async def paid_too(completions: list[str]) -> list[float]:
        await asyncio.sleep(0.05)
        return [1.0] * len(completions)

    def stop() -> None:
        raise Stopped

    rewards = Rewards({"function": paid, "coroutine": paid_too}[kind])
    assert rewards.score(["?"] * 2, ["a", "b"], [[1], [2]], {}, stop).total.tolist() == [1.0, 1.0]
    rewards.close()


def test_between_completions_that_are_asked_again_it_can_be_stopped() -> None:
    asked: list[int] = []

    def fails(completions: list[str]) -> list[float]:
        asked.append(len(completions))
        raise ValueError

    def stop() -> None:
        if len(asked) == 2:
            raise Stopped

    rewards = Rewards(fails, max_failures=0.9)
    with pytest.raises(Stopped):
        rewards.score(["?"] * 9, ["a"] * 9, [[1]] * 9, {}, stop)
    assert asked == [9, 1]


@pytest.mark.parametrize("kind", ["function", "coroutine", "process"])
def test_a_wait_that_is_stopped_leaves_nothing_that_holds_the_program_up(kind: str, tmp_path: Path) -> None:
    """Of what is still being judged nothing is kept; a process of its own is ended with the rewards."""
    (tmp_path / "slow.py").write_text(SLOW)

    def slow(completions: list[str]) -> None:
        time.sleep(60)

    async def slow_too(completions: list[str]) -> None:
        await asyncio.sleep(60)

    isolated = Isolated(tmp_path / "slow.py", "slow")
    functions: dict[str, Any] = {"function": slow, "coroutine": slow_too, "process": isolated}
    rewards, asked = Rewards(functions[kind]), []

    def stop() -> None:
        asked.append(time.monotonic())
        if len(asked) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        rewards.score(["?"], ["a"], [[1]], {}, stop)
    before = time.monotonic()
    rewards.close()
    assert time.monotonic() - before < 30, "it does not wait for an answer"
    assert max(np.diff(asked)) < 30, "and is asked all the time"
