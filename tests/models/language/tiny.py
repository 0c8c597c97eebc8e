"""Tiny models with random weights of every kind that matters, and a tokenizer of characters."""

from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models

from pgrad.models.language import LanguageNetwork, LanguageSpec

LETTERS = "abcdefghijklmnop"
PAD, EOS, BOS, UNK = 0, 1, 2, 3
V = 4 + len(LETTERS)


def tokenizer(pad: str = "<pad>", eos: str | None = "<eos>") -> Any:
    names = ["<pad>", "<eos>", "<bos>", "<unk>", *LETTERS]
    made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, "<unk>"))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=pad, eos_token=eos, bos_token="<bos>", unk_token="<unk>"
    )


def config(kind: str) -> Any:
    shape: dict[str, Any] = {
        "vocab_size": V,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
    }
    match kind:
        case "llama":
            return transformers.LlamaConfig(**shape, attention_bias=True, mlp_bias=True)
        case "llama3-rope":
            rope = {
                "rope_type": "llama3",
                "rope_theta": 100.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
            return transformers.LlamaConfig(**shape, rope_parameters=rope)
        case "qwen2":
            return transformers.Qwen2Config(**shape, tie_word_embeddings=True)
        case "qwen3":
            return transformers.Qwen3Config(**shape, head_dim=8)
        case "mistral":
            return transformers.MistralConfig(**shape, sliding_window=6, head_dim=6)
        case "gemma2":
            return transformers.Gemma2Config(
                **shape, head_dim=8, sliding_window=6, query_pre_attn_scalar=8, final_logit_softcapping=3.0
            )
        case "gemma3":
            return transformers.Gemma3TextConfig(
                **shape, head_dim=8, sliding_window=6, query_pre_attn_scalar=8, layer_types=None
            )
        case "gpt2":
            return transformers.GPT2Config(
                vocab_size=V,
                n_embd=24,
                n_layer=2,
                n_head=4,
                n_positions=128,
                initializer_range=0.3,
                bos_token_id=BOS,
                eos_token_id=EOS,
            )
        case "bloom":
            return transformers.BloomConfig(
                vocab_size=V,
                hidden_size=24,
                n_layer=2,
                n_head=4,
                initializer_range=0.3,
                bos_token_id=BOS,
                eos_token_id=EOS,
                pad_token_id=PAD,
            )
        case "granite":
            return transformers.GraniteConfig(**shape, logits_scaling=2.0)
        case _:
            raise ValueError(kind)


def model(kind: str, seed: int = 0, **settings: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return transformers.AutoModelForCausalLM.from_config(config(kind), **settings)


def network(
    kind: str = "qwen2", *, critic: bool = False, seed: int = 0, tok: Any = None, **spec: Any
) -> LanguageNetwork:
    return LanguageNetwork(
        model(kind, seed),
        tokenizer() if tok is None else tok,
        LanguageSpec("scratch:tiny", **spec),
        critic=critic,
        generator=torch.Generator().manual_seed(seed),
    )
