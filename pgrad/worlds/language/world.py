"""Prompts, how they are read, and what an answer is worth."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from pgrad.errors import UsageError
from pgrad.stopping import Stop, go_on
from pgrad.worlds.language.encoding import decode, encode_prompt, encode_solution
from pgrad.worlds.language.isolated import TIMEOUT
from pgrad.worlds.language.prompts import Prompt
from pgrad.worlds.language.rewards import WANTED, Failure, Reward, Rewards
from pgrad.worlds.language.source import find_source, with_options
from pgrad.worlds.language.task import Task
from pgrad.worlds.language.tokenizer import character_tokenizer

USUAL_LENGTH = 256
"""Tokens of a completion where nobody says and no task knows: TRL's."""


class Scored(NamedTuple):
    """More about completions than what they were worth."""

    texts: list[str]  # as the rewards read them
    metrics: dict[str, float]  # rewards/NAME/mean, std, unscored, failed, retried
    failures: list[Failure]


class LanguageWorld:
    """A world of one step to a reader and of many to a model: a prompt, a completion, a reward.

    source: a Task or the name of one (see `make_task`), or prompts (see `load_prompts`).
    tokenizer: of `transformers`; None for one of characters, those of the task or of the prompts.
    rewards: functions, or `Rewards` for their limits; a task has its own verifier. Without any, prompts are
        there to be imitated: nothing can be scored.
    max_completion_length: tokens of a completion, its EOS among them; 0 for the longest solution of a task,
        elsewhere for `usual_length` (demonstrations may then be as long as the context lets them).
    seed: of the order of prompts, or of a task's problems.
    eos: ids that end a completion beside the tokenizer's; a demonstration ends with the first of all.
    column: where the prompts are in a source with columns.
    held_out: other prompts to evaluate on, or how many to set aside; a task has its own.
    n_prompts: train on the first so many problems of a task, again and again; 0 for ever new ones.
    options: of a task that is given by name, such as {"sizes": (2, 4)}.
    reward_weights, reward_timeout: of the rewards, as in `Rewards`.

    Raises UsageError, naming the row where there is one, for every prompt that cannot be read,
    no token that ends a text, and a reward that needs a column that is not there.
    """

    def __init__(
        self,
        source: Task | str | Any,
        tokenizer: Any = None,
        rewards: Reward | Sequence[Reward] | Rewards | None = None,
        *,
        max_completion_length: int = 0,
        seed: int = 0,
        eos: int | Sequence[int] | None = None,
        column: str = "prompt",
        held_out: Any = 0,
        n_prompts: int = 0,
        options: Mapping[str, Any] | None = None,
        reward_weights: Sequence[float] | None = None,
        reward_timeout: float = TIMEOUT,
    ) -> None:
        if options:
            source = with_options(source, options)
        self._source = find_source(source, seed=seed, column=column, held_out=held_out, n_prompts=n_prompts)
        self.name = self._source.name
        self.tokenizer = tokenizer if tokenizer is not None else character_tokenizer(self._source.alphabet)
        self.eos = _eos(self.tokenizer, eos)
        if max_completion_length < 0:
            raise UsageError(
                f"{self.name} needs a max_completion_length above 0 (--max-completion-length 256), got "
                f"{max_completion_length}"
            )
        self._open = not max_completion_length and not self._source.longest
        self.max_completion_length = max_completion_length or self._source.longest + 1
        if self._open:
            self.max_completion_length = usual_length(None)
        self.context = 0
        self.scored = Scored([], {}, [])
        self.rewards = _rewards(rewards, self._source.verifier, reward_weights, reward_timeout)
        if self.rewards is not None:
            self.rewards.require(self._source.columns)
        self._lengths = [len(self.encode(prompt)) for prompt in self._source.rows]

    def fit(self, context: int | None, eos: Sequence[int] = ()) -> None:
        """Take in how many tokens the model can read, None for any number: prompts must leave room; and which
        tokens end its texts too.

        Raises UsageError for one that is too long, with its row. The problems of a task, which has no end of
        them, are looked at when they are encoded.
        """
        self.eos = tuple(dict.fromkeys((*self.eos, *eos)))
        if self._open:
            self.max_completion_length = usual_length(context)
        if context is not None and context <= self.max_completion_length:
            raise UsageError(
                f"max_completion_length {self.max_completion_length} leaves no room for a prompt in a "
                f"context of {context} tokens"
            )
        self.context = context or 0
        for prompt, length in zip(self._source.rows, self._lengths, strict=True):
            self._require_room(prompt, length)

    def next(self, n: int) -> list[Prompt]:
        """The next n prompts. Without replacement until all were seen, then in a new order; of a task new
        ones each time, unless it has `n_prompts`."""
        return self._source.order.next(n)

    def held_out(self, n: int = 0, split: str = "held_out") -> list[Prompt]:
        """Prompts to evaluate on, the same ones each time: n, or all there are (of a task 256) for 0.

        split: "held_out", never trained on; "train"; of a task "larger" too, of sizes never trained.

        Raises UsageError where none were set aside, and for more than there are.
        """
        return self._source.held_out(n, split)

    def encode(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt. Raises UsageError for one that cannot be read or is too long."""
        ids = encode_prompt(self.tokenizer, prompt)
        self._require_room(prompt, len(ids))
        return ids

    def _require_room(self, prompt: Prompt, length: int) -> None:
        room = self.context - self.max_completion_length
        if self.context and length > room:
            raise UsageError(
                f"the prompt of row {prompt.index} has {length} tokens; a context of {self.context} and "
                f"max_completion_length {self.max_completion_length} leave {room}"
            )

    def solution(self, prompt: Prompt) -> list[int]:
        """The tokens of a demonstration, EOS at the end: the column "solution", "completion" or "answer".

        Raises UsageError where there is none, and where it is longer than max_completion_length; where that
        was left open, than what the prompt leaves of the context.
        """
        return self._solution(prompt, len(self.encode(prompt)) if self._open else 0)

    def require_solutions(self) -> None:
        """Raise as `solution` does for any prompt to train on; those without end are read as they come."""
        for prompt, length in zip(self._source.order.rows, self._lengths, strict=False):
            self._solution(prompt, length)

    def _solution(self, prompt: Prompt, length: int) -> list[int]:
        """Of a prompt of so many tokens."""
        room = self.max_completion_length
        if self._open:
            room = self.context - length if self.context else sys.maxsize
        for column in ("solution", "completion", "answer"):
            value = prompt.columns.get(column)
            if isinstance(value, list) and value and isinstance(value[-1], dict):
                value = value[-1].get("content")
            if isinstance(value, str):
                ids = encode_solution(self.tokenizer, value, self.eos[0], prompt.index)
                if len(ids) > room:
                    limit = "its prompt leaves of the context:" if self._open else "max_completion_length"
                    raise UsageError(
                        f"the {column} of row {prompt.index} has {len(ids)} tokens, more than {limit} {room}"
                    )
                return ids
        raise UsageError(
            f"row {prompt.index} has no demonstration: a column 'solution', 'completion' or 'answer'"
        )

    def require_rewards(self) -> Rewards:
        """What judges completions. Raises UsageError where there is nothing."""
        if self.rewards is None:
            raise UsageError(f"{self.name} has no reward of its own: {WANTED}")
        return self.rewards

    def score(
        self, prompts: Sequence[Prompt], completion_ids: Sequence[Sequence[int]], stop: Stop = go_on
    ) -> Tensor:
        """What N completions of N prompts are worth, float64 [N]: NaN where one could not be scored.

        What else there is to tell of them is in `scored`, until the next call.

        completion_ids: the sampled tokens of each, its EOS among them and no padding. Rewards read the text
            that these very tokens decode to, the EOS at the end left out (see `decode`).
        stop: called while rewards are waited for.

        Raises UsageError for another number of prompts and where there are no rewards, TrainingError where
        rewards fail (see `Rewards`).
        """
        if len(prompts) != len(completion_ids):
            raise UsageError(f"{len(completion_ids)} completions need as many prompts, got {len(prompts)}")
        ids = [[int(one) for one in completion] for completion in completion_ids]
        texts = [decode(self.tokenizer, completion, self.eos) for completion in ids]
        given: list[Any] = list(texts)
        if self._source.conversational:
            given = [[{"role": "assistant", "content": text}] for text in texts]
        columns = {name: [p.columns.get(name) for p in prompts] for name in self._source.columns}
        scores = self.require_rewards().score([p.content for p in prompts], given, ids, columns, stop)
        self.scored = Scored(texts, scores.metrics, scores.failures)
        return scores.total

    def state_dict(self) -> dict[str, Any]:
        """Where the order of prompts stands: plain values."""
        return {"name": self.name, **self._source.order.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there. Raises WorldError where it is of other prompts."""
        self._source.order.load_state_dict(state)

    def close(self) -> None:
        """Give back what rewards hold."""
        if self.rewards is not None:
            self.rewards.close()


def usual_length(context: int | None) -> int:
    """How long completions may be where nobody says: 256 tokens, or half of a smaller context."""
    return USUAL_LENGTH if context is None else max(1, min(USUAL_LENGTH, context // 2))


def _eos(tokenizer: Any, eos: int | Sequence[int] | None) -> tuple[int, ...]:
    """Every token that ends a text, those given first."""
    given = [eos] if isinstance(eos, int) else [*(eos or ())]
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids = tuple(dict.fromkeys(given + own))
    if not ids:
        raise UsageError(
            "the tokenizer has no EOS token: a completion could not end; give one with eos=[id] "
            "(--world-kwargs eos=ID)"
        )
    if bad := [one for one in ids if not 0 <= one < len(tokenizer)]:
        raise UsageError(f"eos {bad[0]} is no token of the tokenizer, which has {len(tokenizer)}")
    return ids


def _rewards(
    rewards: Any, verifier: Reward | None, weights: Sequence[float] | None, timeout: float
) -> Rewards | None:
    """What judges, with its settings; None where nothing does."""
    chosen = rewards if rewards is not None else verifier
    if isinstance(chosen, Rewards):
        if weights is not None:
            raise UsageError("Rewards have weights of their own: leave out reward_weights")
        return chosen
    if chosen is None:
        if weights is not None:
            raise UsageError(f"there are reward_weights and no reward: {WANTED}")
        return None
    return Rewards(chosen, weights, timeout=timeout)
