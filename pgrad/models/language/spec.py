"""What a language agent is built from."""

import math
from dataclasses import dataclass
from typing import Literal

from pgrad.errors import UsageError
from pgrad.extras import did_you_mean
from pgrad.models.language.sizes import SCRATCH, SIZES


@dataclass(frozen=True)
class LanguageSpec:
    """Which language model is trained, and how it is held."""

    model: str = "scratch:small"
    """a folder or a hub id of a causal transformers model, or scratch:tiny, scratch:small, scratch:medium"""
    lora: int = 0
    """rank of adapters that are trained in place of the model (--lora alone: 16); 0 trains the whole model"""
    lora_alpha: float = 32.0
    """adapters are scaled by lora_alpha / lora"""
    lora_targets: tuple[str, ...] = ()
    """names of the layers that get adapters, such as q_proj v_proj; none: every linear layer but the head"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """precision of the matrix products; what is trained stays float32, and so does everything after logits"""
    gradient_checkpointing: bool = False
    """compute every layer again in the backward pass: less memory, a third more time"""
    temperature: float = 1.0
    """divides the logits wherever the policy is sampled or scored"""
    engine: Literal["own", "vllm"] = "own"
    """what writes: pgrad's own loop, which repeats and resumes bit for bit, or vLLM on a GPU (pgrad[vllm]),
    which does so up to rounding; its gap to training is measured, and corrected where it is large"""
    vllm_gpu_memory_utilization: float = 0.3
    """the share of the GPU's memory that vLLM may use"""
    reference: bool = False
    """keep the first policy beside the trained one (with adapters it is the model without them, and free)"""

    @property
    def is_scratch(self) -> bool:
        """Whether the weights are drawn, not read."""
        return self.model.startswith(SCRATCH)

    @property
    def trained_as(self) -> Literal["scratch", "pretrained", "lora"]:
        """From random weights, whole as it was read, or by adapters: what a usual step size depends on."""
        if self.is_scratch:
            return "scratch"
        return "lora" if self.lora else "pretrained"

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model.strip():
            raise UsageError(f"model must be a folder, a hub id or {', '.join(names())}; got {self.model!r}")
        if self.is_scratch and self.model.removeprefix(SCRATCH) not in SIZES:
            raise UsageError(f"no model from scratch {self.model!r}{did_you_mean(self.model, names())}")
        if not isinstance(self.lora, int) or isinstance(self.lora, bool) or self.lora < 0:
            raise UsageError(f"lora must be a rank ≥ 0 (0 trains the whole model), got {self.lora!r}")
        if not (math.isfinite(self.lora_alpha) and self.lora_alpha > 0.0):
            raise UsageError(f"lora_alpha must be a finite number > 0, got {self.lora_alpha!r}")
        if self.lora_targets and not self.lora:
            raise UsageError("lora_targets are given but lora is 0: set the rank of the adapters, such as 16")
        if self.dtype not in ("float32", "bfloat16"):
            raise UsageError(f"dtype must be float32 or bfloat16, got {self.dtype!r}")
        if self.engine not in ("own", "vllm"):
            raise UsageError(f"engine must be own or vllm, got {self.engine!r}")
        if not 0.0 < self.vllm_gpu_memory_utilization <= 1.0:
            raise UsageError(
                f"vllm_gpu_memory_utilization must be in (0, 1], got {self.vllm_gpu_memory_utilization!r}"
            )
        if not (math.isfinite(self.temperature) and self.temperature > 0.0):
            raise UsageError(
                f"temperature must be a finite number > 0, got {self.temperature!r}; at 0 there is no policy "
                "to train: evaluate greedily instead"
            )


def names() -> list[str]:
    """The models from scratch."""
    return [SCRATCH + size for size in SIZES]
