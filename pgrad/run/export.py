"""A trained language model as a folder that `from_pretrained` loads, without pgrad."""

import copy
from pathlib import Path
from typing import Any

import torch

from pgrad.errors import UsageError
from pgrad.extras import extra
from pgrad.models.language.adapters import adapted
from pgrad.models.language.spec import LanguageSpec
from pgrad.training.disk.packing import save_tensors


def export(network: Any, spec: LanguageSpec, folder: Path, *, adapter: bool = False) -> Path:
    """Write the model and its tokenizer, adapters merged into it; or, with `adapter`, the adapter alone.

    Raises UsageError where the folder holds something, cannot be written, or there is no adapter that
    belongs to a model elsewhere.
    """
    if adapter and (not adapted(network.model) or spec.is_scratch):
        why = "is whole" if not adapted(network.model) else f"is drawn from a seed ({spec.model})"
        raise UsageError(f"there is no adapter to export alone: the model {why}; leave out adapter")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already: export into a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if adapter:
            _save_adapter(network.model, spec, folder)
        else:
            extra("transformers").utils.logging.disable_progress_bar()
            model = _merged(network.model)
            eos = list(network.eos)
            model.generation_config.eos_token_id = eos if len(eos) > 1 else eos[0]
            model.save_pretrained(folder)
        network.tokenizer.save_pretrained(folder)
    except OSError as error:
        raise UsageError(f"cannot export into {folder}: {error}") from error
    return folder


def _merged(model: Any) -> Any:
    """A copy on the CPU in float32 without adapters, W + (α/r)·B·A in their place."""
    merged = copy.deepcopy(model).to("cpu", torch.float32)
    names = {id(part): name for name, part in merged.named_modules()}
    for part in adapted(merged):
        part.merge()
        merged.set_submodule(names[id(part)], part.get_base_layer())
    merged.peft_config = None
    del merged.peft_config
    return merged


def _save_adapter(model: Any, spec: LanguageSpec, folder: Path) -> None:
    """As peft writes it, so that `PeftModel.from_pretrained(model, folder)` reads it."""
    tuned = {name: p for name, p in model.named_parameters() if "lora_" in name}
    targets = sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in tuned})
    extra("peft").LoraConfig(
        r=spec.lora,
        lora_alpha=spec.lora_alpha,
        target_modules=list(spec.lora_targets) or targets,
        fan_in_fan_out=any(type(part).__name__ == "Conv1D" for part in model.modules()),
        base_model_name_or_path=spec.model,
        task_type="CAUSAL_LM",
        inference_mode=True,
    ).save_pretrained(folder)
    named = {f"base_model.model.{name.replace('.default.', '.')}": p for name, p in tuned.items()}
    tensors = {name: p.detach().cpu().contiguous().clone() for name, p in named.items()}
    save_tensors(folder / "adapter_model.safetensors", tensors)
