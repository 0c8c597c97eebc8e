"""Low-rank adapters (Hu et al. 2021): W·x + (α/r)·B·A·x with W frozen, B zero at first."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor, nn

from pgrad.errors import UsageError
from pgrad.extras import extra
from pgrad.models.language.spec import LanguageSpec


def add_adapters(model: nn.Module, spec: LanguageSpec, generator: Generator) -> None:
    """Freeze `model` and give its layers adapters in float32, in place."""
    peft = extra("peft")
    config = peft.LoraConfig(
        r=spec.lora,
        lora_alpha=spec.lora_alpha,
        lora_dropout=0.0,
        target_modules=list(spec.lora_targets) or "all-linear",
        fan_in_fan_out=any(type(part).__name__ == "Conv1D" for part in model.modules()),
    )
    head = model.get_output_embeddings()  # type: ignore[operator]
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        try:
            peft.inject_adapter_in_model(config, model)
        except ValueError as error:
            linear = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if _is_linear(m)})
            raise UsageError(
                f"lora_targets {' '.join(spec.lora_targets)}: no such layers; there are {', '.join(linear)}"
            ) from error
    if model.get_output_embeddings() is not head:  # type: ignore[operator]
        raise UsageError("lora_targets: the head (lm_head) cannot have an adapter; name other layers")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.float()


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """The model as it was before it had adapters."""
    layers = adapted(model)
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


class KeptAdapters(nn.Module):
    """A copy of a model's adapters, which does not train and is saved like any other part."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for i, x in enumerate(_trained(model)):
            self.register_buffer(f"x{i}", x.detach().clone())


@contextmanager
def with_adapters(model: nn.Module, kept: KeptAdapters) -> Iterator[None]:
    """The model with the adapters that were kept, for forward passes without a gradient."""
    trained = _trained(model)
    present = [x.data for x in trained]
    for x, other in zip(trained, kept.buffers(), strict=True):
        x.data = other
    try:
        yield
    finally:
        for x, own in zip(trained, present, strict=True):
            x.data = own


def _trained(model: nn.Module) -> list[Tensor]:
    """The adapters' matrices, in the order of their names."""
    return [x for name, x in sorted(model.named_parameters()) if "lora_" in name]


def adapted(model: nn.Module) -> list[Any]:
    """The layers of `model` that have an adapter; none, and peft not imported, if it was never used."""
    named = [part for part in model.modules() if hasattr(part, "lora_A")]
    return [part for part in named if hasattr(part, "enable_adapters")]


def merged_weight(layer: Any) -> Tensor:
    """The weight of a layer with what its adapters add: W + (α/r)·B·A."""
    weight: Tensor = layer.weight
    for name in getattr(layer, "active_adapters", ()):
        weight = weight + layer.get_delta_weight(name)
    return weight


def _is_linear(module: nn.Module) -> bool:
    return type(module).__name__ in ("Linear", "Conv1D")
