"""A tokenizer of single characters, for models that are trained from nothing."""

from typing import Any

from pgrad.errors import UsageError
from pgrad.extras import extra

PAD, BOS, EOS, UNK = SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")


def character_tokenizer(alphabet: str) -> Any:
    """A `PreTrainedTokenizerFast` with one token for each character of `alphabet`, after four special ones.

    Ids: <pad> 0, <bos> 1, <eos> 2, <unk> 3, then the characters in the order given, doubles left out. A text
    is encoded with <bos> before it; what it decodes to is the same text. It is saved with `save_pretrained`
    and loaded with `from_pretrained`, and holds nothing but data.

    Raises UsageError for an empty alphabet and where the extra is missing.
    """
    if not alphabet:
        raise UsageError("an alphabet needs at least one character")
    tokenizers = extra("tokenizers")
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *dict.fromkeys(alphabet)))}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=UNK))
    # Not ".", which is no newline, and spaces are characters like any other.
    each = tokenizers.Regex(r"[\s\S]")
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(each, "isolated")
    backend.decoder = tokenizers.decoders.Fuse()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
    )
    return extra("transformers").PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )


def alphabet_of(tokenizer: Any) -> str:
    """The alphabet that `character_tokenizer` made this of."""
    ids: dict[str, int] = tokenizer.get_vocab()
    return "".join(sorted(ids.keys() - set(SPECIAL), key=ids.__getitem__))
