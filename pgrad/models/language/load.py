"""Language models and tokenizers from a folder or a hub id; nothing that they bring is executed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pgrad.errors import UsageError
from pgrad.extras import extra
from pgrad.models.language.body import context_in
from pgrad.models.language.sizes import CONTEXT, SCRATCH, SIZES
from pgrad.models.language.spec import LanguageSpec


def load_model(name: str) -> Any:
    """The causal model in the folder or of the hub id `name`, float32, without dropout.

    Raises UsageError where there is none, it has no weights, is of another kind, wants to run code of its
    own, or carries a state that is not keys and values (the sampler could not go back to it).
    """
    transformers, config = extra("transformers"), read_config(name)
    if getattr(config, "is_encoder_decoder", False):
        raise UsageError(f"model {name!r} is an encoder and a decoder; only decoders can be trained")
    drop_nothing(config)
    load = transformers.AutoModelForCausalLM.from_pretrained
    transformers.utils.logging.disable_progress_bar()
    model = _from(name, "model", load, config=config, dtype=torch.float32)
    remove_dropout(model)
    kinds = set(getattr(model.config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds or getattr(model, "_is_stateful", False):
        found = ", ".join(sorted(kinds)) or "a recurrent state"
        raise UsageError(f"model {name!r} has layers with {found}; pgrad trains models with attention only")
    return model


def load_tokenizer(name: str) -> Any:
    """The tokenizer in the folder or of the hub id `name`. Raises UsageError where there is none."""
    return _from(name, "tokenizer", extra("transformers").AutoTokenizer.from_pretrained)


def read_config(name: str) -> Any:
    """The configuration of the model in the folder or of the hub id `name`, without its weights.

    Raises UsageError where there is none.
    """
    return _from(name, "model", extra("transformers").AutoConfig.from_pretrained)


def read_context(spec: LanguageSpec) -> int | None:
    """How much the model of `spec` reads, without its weights; None where its configuration does not say."""
    return CONTEXT if spec.is_scratch else context_in(read_config(spec.model))


def read_width(spec: LanguageSpec) -> int:
    """The width of the hidden states of the model of `spec`, without its weights."""
    if spec.is_scratch:
        return SIZES[spec.model.removeprefix(SCRATCH)].hidden
    return int(read_config(spec.model).get_text_config().hidden_size)


def read_ends(name: str) -> tuple[int, ...]:
    """The tokens that end a text according to a model's settings for generating and its configuration."""
    try:
        settings = extra("transformers").GenerationConfig.from_pretrained(str(Path(name).expanduser()))
    except (OSError, ValueError, TypeError):  # not every model has any
        settings = None
    return tuple(dict.fromkeys(_ends(settings, read_config(name))))


def end_tokens(model: Any, tokenizer: Any, others: Sequence[int] = ()) -> tuple[int, ...]:
    """Every token that ends a text: of the generation settings, the model and the tokenizer, and others.

    Raises UsageError where there is none: no episode would ever end by itself.
    """
    settings = getattr(model, "generation_config", None)
    found = {*_ends(settings, model.config, tokenizer), *others}
    ends = tuple(sorted(i for i in found if 0 <= i < model.config.vocab_size))
    if not ends:
        raise UsageError(
            "neither the tokenizer nor the model has an end-of-text token (eos_token), so no answer would "
            "ever end: set tokenizer.eos_token and save it beside the model"
        )
    return ends


def _ends(*owners: Any) -> list[int]:
    found: list[int] = []
    for owner in owners:
        ids = getattr(owner, "eos_token_id", None)
        found += ids if isinstance(ids, list | tuple) else [] if ids is None else [ids]
    return found


def drop_nothing(config: Any) -> None:
    """Set every probability of dropping or jittering something to 0, in nested configurations too."""
    for key, value in vars(config).items():
        if hasattr(value, "to_dict"):
            drop_nothing(value)
        elif isinstance(value, float) and ("drop" in key or "jitter" in key):
            setattr(config, key, 0.0)


def remove_dropout(module: nn.Module) -> None:
    """The same for the modules of a model that is there: train() and eval() then compute the same."""
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0
        for key, value in vars(part).items():
            if isinstance(value, float) and "drop" in key:
                setattr(part, key, 0.0)


def _from(name: str, what: str, load: Any, **settings: Any) -> Any:
    folder = Path(name).expanduser()
    if not folder.is_dir() and (name.startswith(("/", "./", "../", "~")) or name.count("/") > 1):
        raise UsageError(f"model {name!r}: there is no such folder")
    try:
        return load(str(folder) if folder.is_dir() else name, trust_remote_code=False, **settings)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        hint = f" ({_line(error)})"
        if not folder.is_dir():
            raise UsageError(
                f"{what} {name!r} is no folder here and could not be had from the hub{hint}"
            ) from error
        if what == "model" and not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
            raise UsageError(f"the folder {name} has no model weights (model.safetensors){hint}") from error
        raise UsageError(f"the folder {name} has no {what} that can be read{hint}") from error


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0].strip()[:200] if text else type(error).__name__
