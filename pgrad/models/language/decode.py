"""One more token for every text: by the model itself, or faster where its layers are known."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from pgrad.models.language.adapters import merged_weight
from pgrad.models.language.body import takes_positions
from pgrad.models.language.cache import Store

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
ROTATIONS = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings that do not depend on how long the text has become."""


class Plain:
    """The model's own forward pass over the store."""

    def __init__(self, body: Any, store: Store, first: Tensor | None) -> None:
        self._body, self._store, self._first = body, store, first
        self._positions = takes_positions(body)

    def step(self, token: Tensor, position: Tensor) -> Tensor:
        """Hidden states [n, H] after the next token [n] at `position` [n]."""
        given: dict[str, Tensor] = {"position_ids": position.unsqueeze(1)} if self._positions else {}
        if self._first is not None:
            column = torch.arange(self._store.used + 1, device=token.device)
            given["attention_mask"] = (column >= self._first.unsqueeze(1)).long()
        ids = token.unsqueeze(1)
        out = self._body(input_ids=ids, past_key_values=self._store, use_cache=True, **given)
        self._store.used += 1
        hidden: Tensor = out.last_hidden_state[:, 0]
        return hidden

    def keep(self, rows: Tensor) -> None:
        """Go on with these texts only."""
        self._first = None if self._first is None else self._first[rows]
        self._store.keep(rows)


class Layer(NamedTuple):
    """The weights of a layer, transposed, those that read the same input beside one another."""

    norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor
    gate_up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


class Fused:
    """The decoder layers of Llama, Mistral, Qwen 2 and Qwen 3 for one token, written out.

    The same numbers with a third of the operations. Weights are taken when it is made, rounded to `dtype` as
    autocast rounds them, with adapters merged; the sum over layers stays float32. `first` is the first column
    of each text.
    """

    def __init__(self, model: Any, store: Store, first: Tensor | None, dtype: torch.dtype) -> None:
        body, attention = model.model, model.model.layers[0].self_attn
        config, device = model.config, model.device
        self._store, self._dtype = store, dtype
        self._embedding, self._norm, self._eps = (
            body.embed_tokens.weight,
            body.norm.weight,
            config.rms_norm_eps,
        )
        self._act = body.layers[0].mlp.act_fn
        self._heads, self._kv = config.num_attention_heads, config.num_key_value_heads
        self._width, self._scale = attention.head_dim, attention.scaling
        self._layers = [_layer(layer, dtype) for layer in body.layers]
        self.first, self.columns, self.device = first, store.get_max_length(), device
        every = torch.arange(self.columns, device=device)
        cos, sin = body.rotary_emb(self._embedding.float(), every.unsqueeze(0))
        half = self._width // 2
        # rotate_half(x)·sin = roll(x)·sin with the sign in sin
        self._cos, self._sin = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)
        self._mask = None if first is None else (every >= first.unsqueeze(1)).view(-1, 1, 1, self.columns)

    @property
    def used(self) -> int:
        """How many of the `columns` of keys and values are filled."""
        return self._store.used

    @used.setter
    def used(self, n: int) -> None:
        self._store.used = n

    def step(self, token: Tensor, position: Tensor) -> Tensor:
        """Hidden states [n, H] after the next token [n] at `position` [n]."""
        mask = None if self._mask is None else self._mask[..., : self.used + 1]
        hidden = self.forward(token, position, self.used, self.used + 1, mask)
        self.used += 1
        return hidden

    def forward(
        self, token: Tensor, position: Tensor, column: Tensor | int, width: int, mask: Tensor | None
    ) -> Tensor:
        """The same, writing keys and values to `column` ([1] or a number) and attending to `width` columns.

        With a tensor for `column`, a constant `width`, and a `mask` [n, 1, 1, width] that hides what is not
        written yet, every step runs the same kernels on the same memory: it can be recorded as a CUDA graph.
        """
        n, heads, kv, d = len(token), self._heads, self._kv, self._width
        cos = self._cos.index_select(0, position).unsqueeze(1)
        sin = self._sin.index_select(0, position).unsqueeze(1)
        x = self._embedding.index_select(0, token)
        for layer, keys, values in zip(self._layers, self._store.keys, self._store.values, strict=True):
            h = self._normed(x, layer.norm)
            made = _linear(h, layer.qkv, layer.qkv_bias).view(n, heads + 2 * kv, d)
            qk = made[:, : heads + kv]
            if layer.q_norm is not None and layer.k_norm is not None:
                q = rms_norm(qk[:, :heads].float(), (d,), None, self._eps).to(self._dtype) * layer.q_norm
                k = rms_norm(qk[:, heads:].float(), (d,), None, self._eps).to(self._dtype) * layer.k_norm
                qk = torch.cat([q, k], 1)
            qk = (qk * cos + qk.roll(d // 2, -1) * sin).to(self._dtype)
            _put(keys, column, qk[:, heads:])
            _put(values, column, made[:, heads + kv :])
            q = qk[:, :heads].reshape(n, kv, heads // kv, d)  # those that share keys, as rows of one query
            seen = keys[:, :, :width], values[:, :, :width]
            a = scaled_dot_product_attention(q, *seen, attn_mask=mask, scale=self._scale)
            x = _plus(x, a.reshape(n, heads * d), layer.out, layer.out_bias)
            h = self._normed(x, layer.mlp_norm)
            gate, up = _linear(h, layer.gate_up, layer.gate_up_bias).chunk(2, -1)
            x = _plus(x, self._act(gate) * up, layer.down, layer.down_bias)
        return rms_norm(x, x.shape[1:], self._norm, self._eps)

    def keep(self, rows: Tensor) -> None:
        """Go on with these texts only."""
        self._mask = None if self._mask is None else self._mask[rows]
        self.first = None if self.first is None else self.first[rows]
        self._store.keep(rows)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, x.shape[1:], weight, self._eps).to(self._dtype)


def fusable(model: Any, columns: int, dtype: torch.dtype) -> bool:
    """Whether `Fused` computes what `model` does, for texts of up to `columns` tokens."""
    config = model.config
    if config.model_type not in FAMILIES or not hasattr(model.model, "rotary_emb"):
        return False
    if getattr(model.model.rotary_emb, "rope_type", "") not in ROTATIONS:
        return False
    kinds = set(getattr(config, "layer_types", None) or ("full_attention",))
    window = getattr(config, "sliding_window", None)
    if kinds != {"full_attention"} or (config.model_type == "mistral" and window and window < columns):
        return False
    linear = [m for m in model.model.layers.modules() if isinstance(m, nn.Linear) or hasattr(m, "lora_A")]
    plain = all(type(m) is nn.Linear or hasattr(m, "get_delta_weight") for m in linear)
    # merged adapters would be rounded together with what they change
    return plain and (dtype == torch.float32 or not any(hasattr(m, "lora_A") for m in linear))


def _layer(layer: Any, dtype: torch.dtype) -> Layer:
    a, mlp = layer.self_attn, layer.mlp
    qkv, qkv_bias = _joined([a.q_proj, a.k_proj, a.v_proj], dtype)
    out, out_bias = _joined([a.o_proj], dtype)
    gate_up, gate_up_bias = _joined([mlp.gate_proj, mlp.up_proj], dtype)
    down, down_bias = _joined([mlp.down_proj], dtype)
    return Layer(
        norm=layer.input_layernorm.weight,
        qkv=qkv,
        qkv_bias=qkv_bias,
        q_norm=a.q_norm.weight if hasattr(a, "q_norm") else None,
        k_norm=a.k_norm.weight if hasattr(a, "k_norm") else None,
        out=out,
        out_bias=out_bias,
        mlp_norm=layer.post_attention_layernorm.weight,
        gate_up=gate_up,
        gate_up_bias=gate_up_bias,
        down=down,
        down_bias=down_bias,
    )


def _joined(parts: list[Any], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    weights = [merged_weight(part) for part in parts]
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts]).to(dtype)
    return weight.to(dtype).t(), bias


def _put(x: Tensor, column: Tensor | int, part: Tensor) -> None:
    if isinstance(column, int):
        x[:, :, column] = part
    else:
        x.index_copy_(2, column, part.unsqueeze(2).to(x.dtype))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x @ weight if bias is None else torch.addmm(bias, x, weight)


def _plus(x: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x + h·weight + bias, in x's precision."""
    if h.dtype != x.dtype:
        return x + _linear(h, weight, bias)
    x = torch.addmm(x, h, weight)
    return x if bias is None else x + bias
