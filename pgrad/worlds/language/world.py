"""Prompts, how they are read, and what an answer is worth."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from pgrad.errors import UsageError
from pgrad.worlds.language.encoding import decode, encode_prompt, encode_solution
from pgrad.worlds.language.prompts import Prompt
from pgrad.worlds.language.rewards import Failure, Reward, Rewards
from pgrad.worlds.language.source import find_source, with_options
from pgrad.worlds.language.task import Task
from pgrad.worlds.language.tokenizer import character_tokenizer


class Scored(NamedTuple):
    """More about completions than what they were worth."""

    texts: list[str]  # as the rewards read them
    metrics: dict[str, float]  # rewards/NAME/mean, std, unscored, failed, retried
    failures: list[Failure]


class LanguageWorld:
    """A world of one step to a reader and of many to a model: a prompt, a completion, a reward.

    source: a Task or the name of one (see `make_task`), or prompts (see `load_prompts`).
    tokenizer: of `transformers`; None for one of characters, those of the task or of the prompts.
    rewards: functions, or `Rewards` for their weights and limits; a task has its own verifier.
    max_completion_length: tokens of a completion, its EOS among them; 0 for the longest solution of a task.
    seed: of the order of prompts, or of a task's problems.
    eos: ids that end a completion; None for the tokenizer's one.
    column: where the prompts are in a source with columns.
    held_out: other prompts to evaluate on, or how many to set aside; a task has its own.
    n_prompts: train on the first so many problems of a task, again and again; 0 for ever new ones.
    options: of a task that is given by name, such as {"sizes": (2, 4)}.

    Raises UsageError, naming the row where there is one, for every prompt that cannot be read,
    a tokenizer without an end, no reward, and a reward that needs a column that is not there.
    """

    def __init__(
        self,
        source: Task | str | Any,
        tokenizer: Any = None,
        rewards: Reward | Sequence[Reward] | Rewards | None = None,
        *,
        max_completion_length: int = 0,
        seed: int = 0,
        eos: Sequence[int] | None = None,
        column: str = "prompt",
        held_out: Any = 0,
        n_prompts: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if options:
            source = with_options(source, options)
        self._source = find_source(source, seed=seed, column=column, held_out=held_out, n_prompts=n_prompts)
        self.name = self._source.name
        self.tokenizer = tokenizer if tokenizer is not None else character_tokenizer(self._source.alphabet)
        self.eos = _eos(self.tokenizer, eos)
        self.max_completion_length = max_completion_length or self._source.longest + 1
        if self.max_completion_length < 1 or (not max_completion_length and not self._source.longest):
            raise UsageError(
                f"{self.name} needs a max_completion_length above 0 (--max-completion-length 256), got "
                f"{max_completion_length}"
            )
        self.context = 0
        self.scored = Scored([], {}, [])
        chosen = rewards if rewards is not None else self._source.verifier
        if chosen is None:
            raise UsageError(f"{self.name} has no reward of its own: give one, such as file.py:function")
        self.rewards = chosen if isinstance(chosen, Rewards) else Rewards(chosen)
        self.rewards.require(self._source.columns)
        for prompt in self._source.rows:
            self.encode(prompt)

    def fit(self, context: int | None) -> None:
        """Take in how many tokens the model can read, None for any number: prompts must leave room.

        Raises UsageError for one that is too long, with its row. The problems of a task, which has no end of
        them, are looked at when they are encoded.
        """
        if context is not None and context <= self.max_completion_length:
            raise UsageError(
                f"max_completion_length {self.max_completion_length} leaves no room for a prompt in a "
                f"context of {context} tokens"
            )
        self.context = context or 0
        for prompt in self._source.rows:
            self.encode(prompt)

    def next(self, n: int) -> list[Prompt]:
        """The next n prompts. Without replacement until all were seen, then in a new order; of a task new
        ones each time, unless it has `n_prompts`."""
        return self._source.order.next(n)

    def held_out(self, n: int = 0, split: str = "held_out") -> list[Prompt]:
        """Prompts never trained on, the same ones each time: n, or all there are (of a task 256) for 0.

        split: of a task also "larger", problems of sizes never trained.

        Raises UsageError where none were set aside, and for more than there are.
        """
        return self._source.held_out(n, split)

    def encode(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt. Raises UsageError for one that cannot be read or is too long."""
        ids = encode_prompt(self.tokenizer, prompt)
        room = self.context - self.max_completion_length
        if self.context and len(ids) > room:
            raise UsageError(
                f"the prompt of row {prompt.index} has {len(ids)} tokens; a context of {self.context} and "
                f"max_completion_length {self.max_completion_length} leave {room}"
            )
        return ids

    def solution(self, prompt: Prompt) -> list[int]:
        """The tokens of a demonstration, EOS at the end: the column "solution", "completion" or "answer".

        Raises UsageError where there is none, and where it is longer than max_completion_length.
        """
        for column in ("solution", "completion", "answer"):
            value = prompt.columns.get(column)
            if isinstance(value, list) and value and isinstance(value[-1], dict):
                value = value[-1].get("content")
            if isinstance(value, str):
                ids = encode_solution(self.tokenizer, value, self.eos[0], prompt.index)
                if len(ids) > self.max_completion_length:
                    raise UsageError(
                        f"the {column} of row {prompt.index} has {len(ids)} tokens, more than "
                        f"max_completion_length {self.max_completion_length}"
                    )
                return ids
        raise UsageError(
            f"row {prompt.index} has no demonstration: a column 'solution', 'completion' or 'answer'"
        )

    def score(self, prompts: Sequence[Prompt], completion_ids: Sequence[Sequence[int]]) -> Tensor:
        """What N completions of N prompts are worth, float64 [N]: NaN where one could not be scored.

        What else there is to tell of them is in `scored`, until the next call.

        completion_ids: the sampled tokens of each, its EOS among them and no padding. Rewards read the text
            that these very tokens decode to, special tokens left out.

        Raises UsageError for another number of prompts, TrainingError where rewards fail (see `Rewards`).
        """
        if len(prompts) != len(completion_ids):
            raise UsageError(f"{len(completion_ids)} completions need as many prompts, got {len(prompts)}")
        ids = [[int(one) for one in completion] for completion in completion_ids]
        texts = [decode(self.tokenizer, completion) for completion in ids]
        given: list[Any] = list(texts)
        if self._source.conversational:
            given = [[{"role": "assistant", "content": text}] for text in texts]
        columns = {name: [p.columns.get(name) for p in prompts] for name in self._source.columns}
        scores = self.rewards.score([p.content for p in prompts], given, ids, columns)
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
        self.rewards.close()


def _eos(tokenizer: Any, eos: Sequence[int] | None) -> tuple[int, ...]:
    ids = tuple(eos) if eos is not None else (tokenizer.eos_token_id,)
    if not ids or None in ids:
        raise UsageError("the tokenizer has no EOS token: a completion could not end; give one with eos=[id]")
    if bad := [one for one in ids if not 0 <= one < len(tokenizer)]:
        raise UsageError(f"eos {bad[0]} is no token of the tokenizer, which has {len(tokenizer)}")
    return ids
