"""Texts to tokens and back, through whatever tokenizer there is."""

from collections.abc import Collection, Sequence
from typing import Any

from pgrad.errors import UsageError
from pgrad.worlds.language.prompts import Content, Prompt

SHOWN = 10
"""So many unknown characters are named."""


def encode_prompt(tokenizer: Any, prompt: Prompt) -> list[int]:
    """The tokens of a prompt: a text as it is, a conversation through the tokenizer's chat template with the
    beginning of the assistant's turn.

    Raises UsageError, with the row, where there is no template or it refuses the conversation, a character is
    unknown, nothing is left of the prompt, or the tokenizer ends it (then there is nothing to continue).
    """
    ids = _ids(tokenizer, prompt)
    where = f"the prompt of row {prompt.index}"
    if not ids:
        raise UsageError(f"{where} has no tokens: {_short(prompt.content)}")
    unknown, eos = tokenizer.unk_token_id, tokenizer.eos_token_id
    if unknown is not None and unknown != eos and unknown in ids:
        told = f"{_short(prompt.content)}{_unknown(tokenizer, prompt.content)}"
        raise UsageError(f"the tokenizer does not know a part of {where}: {told}")
    if isinstance(prompt.content, str) and ids[-1] == eos:
        raise UsageError(f"the tokenizer ends {where} with its EOS: set add_eos_token=False")
    return ids


def encode_solution(tokenizer: Any, text: str, eos: int, row: int = 0) -> list[int]:
    """The tokens of a completion as a demonstration has it, `eos` at its end.

    Raises UsageError for a character that the tokenizer does not know.
    """
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown != tokenizer.eos_token_id and unknown in ids:
        told = f"{_short(text)}{_unknown(tokenizer, text)}"
        raise UsageError(f"the tokenizer does not know a part of the solution of row {row}: {told}")
    return [*ids, eos]


def decode(tokenizer: Any, ids: Sequence[int], ends: Collection[int]) -> str:
    """The text of a completion from exactly the tokens that were sampled, without the end token at its end.

    Other special tokens stay as they are written ("<pad>"): an answer with one inside is not the answer
    without it, and whoever judges it must see it.
    """
    said = list(ids[:-1] if len(ids) and ids[-1] in ends else ids)
    return str(tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    if isinstance(prompt.content, str):
        return list(tokenizer(prompt.content)["input_ids"])
    if not tokenizer.chat_template:
        raise UsageError(
            "the prompts are conversations and the tokenizer has no chat template: give texts, "
            "or a tokenizer of a model that is made for conversations"
        )
    try:
        # The template writes every special token itself.
        return list(
            tokenizer.apply_chat_template(
                prompt.content, add_generation_prompt=True, tokenize=True, return_dict=False
            )
        )
    except Exception as error:  # templates are programs; they raise what they like
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        where = f"the conversation of row {prompt.index}"
        raise UsageError(f"the chat template refuses {where}: {line}") from error


def _unknown(tokenizer: Any, content: Content) -> str:
    """The characters that are unknown by themselves, to be said behind a text; empty where none is."""
    text = content if isinstance(content, str) else "".join(message["content"] for message in content)
    ids = {one: tokenizer(one, add_special_tokens=False)["input_ids"] for one in dict.fromkeys(text)}
    found = [repr(one) for one, its in ids.items() if tokenizer.unk_token_id in its]
    more = ", …" if len(found) > SHOWN else ""
    return f" (unknown: {', '.join(found[:SHOWN])}{more})" if found else ""


def _short(content: Content) -> str:
    text = content if isinstance(content, str) else str([message["content"] for message in content])
    return repr(text if len(text) <= 60 else text[:57] + "...")
