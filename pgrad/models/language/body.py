"""A causal transformers model as two parts: what reads a text, and the head that names the next token."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from pgrad.data import Tokens
from pgrad.errors import UsageError
from pgrad.math.vocabulary import Shape, logits


def body_of(model: Any) -> Any:
    """The part that makes hidden states of tokens."""
    return getattr(model, model.base_model_prefix)


def shape_of(model: Any, temperature: float = 1.0) -> Shape:
    """What the model does to W·h + b before its logits: Gemma's cap, Cohere's and Granite's scales."""
    config = model.config
    scale = getattr(config, "logit_scale", None) or 1.0
    divisor = getattr(config, "logits_scaling", None) or 1.0
    return Shape(temperature, scale / divisor, getattr(config, "final_logit_softcapping", None))


def context_of(model: Any) -> int | None:
    """The longest text that the model reads; None where its configuration does not say."""
    return context_in(model.config)


def context_in(config: Any) -> int | None:
    """The same of a configuration alone."""
    found = getattr(config, "max_position_embeddings", None)
    return None if found is None else int(found)


def takes_positions(body: nn.Module) -> bool:
    """Whether the model is told where in its text a token stands, and does not count by itself."""
    return "position_ids" in inspect.signature(body.forward).parameters


def read(body: Any, tokens: Tokens, dtype: torch.dtype) -> Tensor:
    """Hidden states [T, B, H] of every row, matrices multiplied in `dtype`.

    No mask is passed: a text sees only itself, for what comes later is hidden by causality and what came
    before by its positions, which begin anew (transformers masks packed texts by that). Raises UsageError for
    several texts in a column where the model counts positions by itself.
    """
    position = places(tokens, context_of(body))
    given: dict[str, Any] = {"position_ids": position.t()}
    if not takes_positions(body):
        row = torch.arange(len(position), device=position.device).unsqueeze(1)
        if bool((position != row).any()):
            raise UsageError(
                f"{type(body).__name__} takes no positions, so that several texts in one column would see "
                "one another: give each a column of its own"
            )
        given = {}
    with torch.autocast(tokens.id.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        hidden: Tensor = body(input_ids=tokens.id.t(), use_cache=False, **given).last_hidden_state
    return hidden.transpose(0, 1)


def places(tokens: Tokens, context: int | None) -> Tensor:
    """`position`, counted on after the last decision of each column, [T, B], within the model's `context`.

    So that a column of one text is seen to be one, whatever stands in its padding, and needs no mask.
    """
    position, n = tokens.position, len(tokens.position)
    row = torch.arange(n, device=position.device).unsqueeze(1)
    last = torch.where(tokens.decides, row, 0).amax(0)
    counted = position.gather(0, last.unsqueeze(0)) + row - last
    if context is not None:
        counted = counted.clamp(max=context - 1)
    return torch.where(row <= last, position, counted)


def shrink(model: Any, dtype: torch.dtype) -> None:
    """Hold frozen linear layers in the precision they are multiplied in: less memory, the same results."""
    embedding = model.get_input_embeddings().weight
    for part in model.modules():
        if isinstance(part, nn.Linear) and part.weight is not embedding and not part.weight.requires_grad:
            part.to(dtype)


@torch.no_grad()
def check_head(model: Any) -> None:
    """Raises UsageError unless hidden states and head give the model's own logits."""
    head = model.get_output_embeddings()
    ids = torch.arange(4, device=model.device).remainder(model.config.vocab_size).unsqueeze(0)
    told = model(input_ids=ids, use_cache=False).logits[0].float()
    hidden = body_of(model)(input_ids=ids, use_cache=False).last_hidden_state[0]
    ours = None if head is None else logits(hidden.float(), head.weight.float(), head.bias, shape_of(model))
    if ours is None or not torch.allclose(told, ours, atol=1e-3, rtol=1e-3):
        raise UsageError(
            f"{type(model).__name__} does something to its logits that pgrad does not know; it can score "
            "plain, scaled and soft-capped linear heads"
        )
