"""Reward functions: several, weighted, with time-outs, and never silently zero."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgrad.errors import TrainingError, UsageError
from pgrad.extras import did_you_mean
from pgrad.stopping import Stop, go_on
from pgrad.worlds.language.answers import read_answer, short
from pgrad.worlds.language.calls import Caller, Outcome, Wait, is_async, where
from pgrad.worlds.language.isolated import TIMEOUT

Reward = Callable[..., Any]
"""f(prompts, completions, **columns) -> list[float | None], or a coroutine that returns one (TRL's
signature). Texts are given as texts, conversations as lists of messages, their completions as
[{"role": "assistant", "content": …}]. Among the columns are `completion_ids`, the sampled tokens, and those
that the prompts have. A function is given what it names, everything where it takes **kwargs. None says that a
completion cannot be scored."""

WANTED = "give one with reward (--reward FILE.py:FUNCTION)"  # where there is none
GIVEN = ("prompts", "completions", "completion_ids")
_HANGS = 3  # completions one after the other that run into the time-out: it hangs on whatever it is given


class Failure(NamedTuple):
    """A completion on which a reward raised or did not end."""

    reward: str
    place: int  # in the batch
    completion: str
    error: str


class Scores(NamedTuple):
    """What a batch of N completions earned."""

    total: Tensor  # [N] float64  the weighted sum; NaN where nothing could be scored, or a function failed
    each: dict[str, Tensor]  # [N] float64  by function, unweighted; NaN for None and for failures
    failures: list[Failure]
    metrics: dict[str, float]


@dataclass(frozen=True)
class _Named:
    name: str
    function: Reward
    weight: float


class Rewards:
    """One or several reward functions, called with a batch each.

    Async functions run together and while the others run; the others one after the other.

    weights: of the sum, 1 each if not given. What a function says None to is left out of the sum.
    timeout: seconds for a call of a batch. A plain function runs in a thread that cannot be stopped: a hang
        costs these seconds twice (see below) and leaves the thread behind; see `Caller`, and `Isolated` for
        functions that may hang in C code.
    max_failures: where a call raises or does not end, its completions are asked again one at a time. Those
        that fail again are counted, named, and their total is NaN: left out, not scored 0. The run stops
        with more of them than this share of the batch (one is forgiven, unless the share is 0 or the batch
        is one), and where three in a row do not end.

    A function whose answer is not one number or None for each completion stops the run at once.

    Raises UsageError for no function, another number of weights than of functions, and bad numbers.
    """

    def __init__(
        self,
        functions: Reward | Sequence[Reward],
        weights: Sequence[float] | None = None,
        *,
        timeout: float = TIMEOUT,
        max_failures: float = 0.1,
    ) -> None:
        listed = list(functions) if isinstance(functions, Sequence) else [functions]
        if not listed or not all(map(callable, listed)):
            raise UsageError(f"rewards are functions, at least one, got {functions!r}")
        given = [1.0] * len(listed) if weights is None else list(weights)
        if len(given) != len(listed):
            raise UsageError(f"{len(listed)} reward functions need as many weights, got {len(given)}")
        if not all(isinstance(weight, int | float) and math.isfinite(weight) for weight in given):
            raise UsageError(f"reward weights must be finite, got {given}")
        if not isinstance(timeout, int | float) or not timeout > 0.0 or not 0.0 <= max_failures < 1.0:
            raise UsageError(
                f"timeout must be above 0 and max_failures in [0, 1), got {timeout} and {max_failures}"
            )
        names = _names(listed)
        self._rewards = [_Named(*one) for one in zip(names, listed, given, strict=True)]
        self.timeout, self.max_failures = timeout, max_failures
        self._caller = Caller()

    @property
    def names(self) -> list[str]:
        """Of the functions, in their order; a name that comes up again gets a number."""
        return [reward.name for reward in self._rewards]

    def require(self, columns: Sequence[str]) -> None:
        """Raise UsageError where a function needs an argument, or says in its attribute `columns` that it
        needs a column, that is none of these."""
        for reward in self._rewards:
            for name in getattr(reward.function, "columns", ()):
                _require(reward.name, name, columns)
            for name, parameter in _parameters(reward.function).items():
                needed = parameter.default is parameter.empty and parameter.kind not in (
                    parameter.VAR_KEYWORD,
                    parameter.VAR_POSITIONAL,
                )
                if needed and name not in GIVEN:
                    _require(reward.name, name, columns)

    def score(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        columns: Mapping[str, Sequence[Any]],
        stop: Stop = go_on,
    ) -> Scores:
        """Score N completions; every argument has N entries. `stop` is called while functions are waited for.

        Raises TrainingError, naming the function, for answers of another length, non-numbers, NaN and
        infinities, and for more failures than are allowed, with a completion and what was raised.
        """
        n = len(completions)
        known = {"prompts": prompts, "completions": completions, "completion_ids": completion_ids, **columns}
        started = {r.name: self._start(r, known) for r in self._rewards if n and is_async(r.function)}
        each: dict[str, Tensor] = {}
        failures: list[Failure] = []
        metrics: dict[str, float] = {}
        for reward in self._rewards if n else ():
            wait = started.get(reward.name) or self._start(reward, known)
            value, error = wait(stop)
            failed: list[Failure] = []
            if error is None:
                numbers = read_answer(reward.name, value, completions)
            else:
                numbers, failed = self._one_by_one(reward, known, n, error, stop)
            each[reward.name] = torch.tensor(numbers, dtype=torch.float64)
            failures += failed
            metrics |= _metrics(reward.name, each[reward.name], len(failed), error is not None)
        total = torch.full((n,), torch.nan, dtype=torch.float64)
        for reward in self._rewards if n else ():
            scored, part = ~each[reward.name].isnan(), reward.weight * each[reward.name]
            total = torch.where(scored, total.nan_to_num() + part, total)
        total[[failure.place for failure in failures]] = torch.nan
        return Scores(total, each, failures, metrics)

    def close(self) -> None:
        """Give back what the calls hold, and close the functions that can be closed."""
        self._caller.close()
        for reward in self._rewards:
            getattr(reward.function, "close", lambda: None)()

    def _start(self, reward: _Named, known: Mapping[str, Sequence[Any]], one: int | None = None) -> Wait:
        parameters = _parameters(reward.function)
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        arguments = {
            # Lists of its own: what a function does to them is its own affair.
            name: list(values) if one is None else [values[one]]
            for name, values in known.items()
            if takes_all or name in parameters
        }
        return self._caller.start(reward.function, arguments, self.timeout)

    def _one_by_one(
        self, reward: _Named, known: Mapping[str, Sequence[Any]], n: int, first: BaseException, stop: Stop
    ) -> tuple[list[float], list[Failure]]:
        allowed = max(1, int(self.max_failures * n)) if self.max_failures and n > 1 else 0
        numbers, failures, hangs = [], [], 0
        outcomes = self._again(reward, known, n, stop) if n > 1 else iter([Outcome(None, first)])
        for index, (value, error) in enumerate(outcomes):
            completion = known["completions"][index]
            if error is None:
                numbers += read_answer(reward.name, value, [completion])
                hangs = 0
                continue
            numbers.append(math.nan)
            hangs = hangs + 1 if isinstance(error, TimeoutError) else 0
            failures.append(Failure(reward.name, index, short(completion), self._line(reward, error)))
            if len(failures) > allowed or hangs == _HANGS:
                worst = failures[0]
                raise TrainingError(
                    f"reward {reward.name} failed on {len(failures)} of {index + 1} completions "
                    f"(at most {allowed} of {n} may fail): {worst.error}, on {worst.completion}"
                ) from error
        return numbers, failures

    def _again(
        self, reward: _Named, known: Mapping[str, Sequence[Any]], n: int, stop: Stop
    ) -> Iterator[Outcome]:
        if is_async(reward.function):
            waits = [self._start(reward, known, one) for one in range(n)]
            yield from (wait(stop) for wait in waits)
        else:
            for one in range(n):
                stop()
                yield self._start(reward, known, one)(stop)

    def _line(self, reward: _Named, error: BaseException) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self.timeout:g} s"
        text, name = str(error).splitlines(), type(error).__name__
        return (f"{name}: {text[0]}" if text else name) + where(error, reward.function)


def _metrics(name: str, values: Tensor, failed: int, retried: bool) -> dict[str, float]:
    scored = values[~values.isnan()]
    metrics = {
        f"rewards/{name}/unscored": float(len(values) - len(scored) - failed),
        f"rewards/{name}/failed": float(failed),
        f"rewards/{name}/retried": float(retried),
    }
    if len(scored):
        metrics[f"rewards/{name}/mean"] = scored.mean().item()
    if len(scored) > 1:
        metrics[f"rewards/{name}/std"] = scored.std().item()  # of a sample: n − 1
    return metrics


def _require(reward: str, name: str, columns: Sequence[str]) -> None:
    if name not in columns:
        raise UsageError(f"reward {reward} needs a column {name!r}{did_you_mean(name, columns)}")


def _parameters(function: Reward) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # of compiled functions nobody knows: give them everything
        return {"all": inspect.Parameter("all", inspect.Parameter.VAR_KEYWORD)}


def _names(functions: Sequence[Reward]) -> list[str]:
    names: list[str] = []
    for function in functions:
        inner = getattr(function, "func", function)  # of a partial
        name = getattr(inner, "__name__", type(inner).__name__).replace("<lambda>", "reward")
        numbered = (f"{name}_{number}" for number in count(2))
        names.append(name if name not in names else next(one for one in numbered if one not in names))
    return names
