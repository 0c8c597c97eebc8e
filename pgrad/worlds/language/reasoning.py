"""Tasks of reasoning-gym (Stojanovski et al. 2025), by "reasoning-gym:NAME"."""

import string
from collections.abc import Mapping
from random import Random
from typing import Any

from pgrad.errors import UsageError
from pgrad.extras import did_you_mean, extra
from pgrad.worlds.language.task import Instance, Task

PREFIX = "reasoning-gym:"
_HOW_MANY = 100_000  # problems in its list; some of its generators prepare every one of them
_SHOWN = 32  # of them are searched for characters
_LONGEST = 1000  # characters that its verifiers are given, some of which read expressions with sympy

PAYLOAD = {
    "basic_arithmetic": "expression",
    "chain_sum": "expression",
    "count_bits": "number",
    "count_primes": ("start", "end"),
    "gcd": "numbers",
    "lcm": "numbers",
    "prime_factorization": "number",
    "products": "expression",
    "simple_equations": "equation",
    "spell_backward": "word",
}
"""Where the metadata keep what is asked, without the English around it."""


def reasoning_task(name: str, payload: bool = False, **config: Any) -> Task:
    """A task of reasoning-gym behind the interface of ours.

    payload: ask with what is asked alone ("8 - 3 - 1=" and no English), for small models of characters.
    config: options of its generator.

    Its problems have no sizes: the splits "train" and "held_out" are disjoint by the whole question, and
    "larger" is refused. The alphabet is printable ASCII and what else
    the first problems show. A completion is right where its verifier gives full
    marks; part marks are none. The longest solution is not known, so say max_completion_length.

    Raises UsageError where the extra is missing, for another name, and for options it does not take.
    """
    gym = extra("reasoning_gym", "reasoning-gym")
    names = extra("reasoning_gym.factory", "reasoning-gym").DATASETS
    if name not in names:
        raise UsageError(f"reasoning-gym has no task {name!r}{did_you_mean(name, sorted(names))}")
    if payload and name not in PAYLOAD:
        raise UsageError(f"payload is not known for {name!r}: it is for {', '.join(PAYLOAD)}")
    try:
        dataset = gym.create_dataset(name, size=_HOW_MANY, seed=0, **config)
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"{PREFIX}{name} cannot take {config}: {error}") from error

    def draw(rng: Random, size: int) -> Instance:
        if size > 1:
            raise UsageError(f"{PREFIX}{name} has no sizes: ask for a task with other options instead")
        number = rng.randrange(_HOW_MANY)
        entry = dataset[number]
        asked = _payload(name, entry["metadata"]) if payload else entry["question"]
        answer = "" if entry["answer"] is None else str(entry["answer"])
        return Instance(asked, answer, answer, 1, entry["question"], {"number": number})

    def check(completion: str, instance: Instance) -> bool:
        entry = dataset[instance.metadata["number"]]
        try:
            return float(dataset.score_answer(completion[:_LONGEST], entry)) >= 1.0
        except Exception:  # its verifiers are many, and what they are given is whatever a model wrote
            return False

    # Some write signs that are not ASCII; those that use them do so at once.
    shown = "".join(f"{dataset[i]['question']}{dataset[i]['answer']}" for i in range(_SHOWN))
    ascii = [c for c in string.printable if c.isprintable()]
    alphabet = "".join([*ascii, "\n", *sorted(set(shown) - {*ascii, "\n"})])
    return Task(PREFIX + name, alphabet, (1, 1), (2, 2), draw, check, 0)


def _payload(name: str, metadata: Mapping[str, Any]) -> str:
    keys = PAYLOAD[name]
    values = [metadata[key] for key in ((keys,) if isinstance(keys, str) else keys)]
    flat = [part for value in values for part in (value if isinstance(value, list | tuple) else (value,))]
    return " ".join(map(str, flat)) + "="
