"""Small language models with random weights, so that everything can be tried without a download."""

from typing import Any

import torch
from torch import Generator

from pgrad.extras import extra
from pgrad.models.language.sizes import CONTEXT, SCRATCH, SIZES


def scratch_model(name: str, tokenizer: Any, generator: Generator) -> Any:
    """A Llama of the size `scratch:…` for a tokenizer's vocabulary; weights from `generator`.

    The head has weights of its own: with a vocabulary of characters that costs nothing. Weights have variance
    1/hidden, under which so narrow a model learns several times faster than with the usual 0.02².
    """
    transformers = extra("transformers")
    size = SIZES[name.removeprefix(SCRATCH)]
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        initializer_range=size.hidden**-0.5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():  # transformers leaves the padding's row 0, where a norm's slope is 1/√ε: if a
            # policy samples it, its gradient is a thousand times everyone's, and clipping leaves no other
            model.get_input_embeddings().weight[tokenizer.pad_token_id].normal_(std=size.hidden**-0.5)
        return model
