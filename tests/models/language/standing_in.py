"""A stand-in for vLLM with its signatures: the weights in its shapes, a token of every request a step."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

PACKED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
PADDING = 64


class RequestOutputKind(Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class SamplingParams:
    """Those of vLLM's fields that are used, and its defaults."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    detokenize: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE


class Held(nn.Module):
    """A model's weights as vLLM holds them: joined, embeddings padded with zeros, in its precision."""

    packed_modules_mapping = PACKED

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype, self.names = model.to(dtype), dtype, {}
        self.deaf: set[str] = set()  # tensors that no push reaches
        for name, _ in model.named_parameters():
            module = name.split(".")[-2]
            whole = next((key for key, parts in PACKED.items() if module in parts), module)
            self.names.setdefault(name.replace(f".{module}.", f".{whole}."), []).append(name)

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, nn.Parameter]]:
        own = dict(self.model.named_parameters())
        for name, parts in self.names.items():
            whole = torch.cat([own[part].detach() for part in parts])
            if "embed" in name or "lm_head" in name:
                whole = torch.cat([whole, whole.new_zeros(-len(whole) % PADDING, whole.shape[1])])
            yield name, nn.Parameter(whole, requires_grad=False)

    @torch.no_grad()
    def load(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        own = dict(self.model.named_parameters())
        for name, x in weights:
            assert x.shape == own[name].shape
            if name not in self.deaf:
                own[name].copy_(x)


class Engine:
    """vLLM's LLMEngine: requests, and a step that gives each of them one token."""

    def __init__(self, held: Held) -> None:
        self.held, self.live, self.steps = held, {}, 0

    def add_request(self, request_id: str, prompt: dict[str, list[int]], params: SamplingParams) -> str:
        noise = torch.Generator()
        noise.manual_seed(params.seed or 0)
        self.live[request_id] = (list(prompt["prompt_token_ids"]), [], [], params, noise)
        return f"{request_id}-internal"

    def has_unfinished_requests(self) -> bool:
        return bool(self.live)

    def abort_request(self, request_ids: list[str], internal: bool = False) -> None:
        for name in request_ids:
            self.live.pop(name, None)

    @torch.no_grad()
    def step(self) -> list[Any]:
        self.steps += 1
        out = []
        for name, (prompt, tokens, told, params, noise) in list(self.live.items()):
            z = self.held.model(input_ids=torch.tensor([prompt + tokens])).logits[0, -1].float()
            if params.temperature:
                z = z / params.temperature
            logp = z.log_softmax(-1)
            drawn = torch.rand(z.shape, generator=noise).log().neg().log().neg()
            token = int((logp + drawn if params.temperature else logp).argmax())
            tokens.append(token)
            told.append({token: SimpleNamespace(logprob=float(logp[token]), rank=1, decoded_token=None)})
            ended = token in (params.stop_token_ids or ())
            if ended or len(tokens) == params.max_tokens:
                del self.live[name]
                one = SimpleNamespace(
                    token_ids=tokens, logprobs=told, finish_reason="stop" if ended else "length"
                )
                out.append(SimpleNamespace(request_id=name, finished=True, outputs=[one]))
        return out[::-1]  # in the order in which they finish, which is nobody's


class LLM:
    """vLLM's LLM, started with random weights (`load_format="dummy"`)."""

    made: list["LLM"]

    def __init__(
        self,
        model: str,
        *,
        skip_tokenizer_init: bool = False,
        dtype: str = "auto",
        seed: int = 0,
        gpu_memory_utilization: float = 0.92,
        **kwargs: Any,
    ) -> None:
        assert kwargs.pop("load_format") == "dummy"
        assert skip_tokenizer_init
        assert sorted(path.name for path in Path(model).iterdir()) == ["config.json"]
        assert kwargs.pop("logprobs_mode") == "processed_logprobs"
        assert kwargs.pop("generation_config") == "vllm"
        config = transformers.AutoConfig.from_pretrained(model)
        self.model_config = SimpleNamespace(max_model_len=kwargs.pop("max_model_len"))
        assert not kwargs
        kind = getattr(transformers, config.architectures[0])
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.held = Held(kind(config), getattr(torch, dtype))
        self.llm_engine = Engine(self.held)
        self.calls: list[str] = []
        self.busy = False  # the prefix cache cannot be emptied
        LLM.made.append(self)

    def collective_rpc(
        self,
        method: str,
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> list[Any]:
        assert method == "reload_weights"
        self.calls.append(method)
        self.held.load((kwargs or {})["weights_iterator"])
        return [None]

    def apply_model(self, func: Callable[[nn.Module], Any]) -> list[Any]:
        self.calls.append("apply_model")
        return [func(self.held)]

    def reset_prefix_cache(self, reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        self.calls.append("reset_prefix_cache")
        return not self.busy


def install(monkeypatch: pytest.MonkeyPatch, device_type: str = "cpu") -> type[LLM]:
    """Let `import vllm` find this, as a build for `device_type`."""
    LLM.made = []
    parts = {
        "vllm": {"LLM": LLM, "SamplingParams": SamplingParams},
        "vllm.sampling_params": {"SamplingParams": SamplingParams, "RequestOutputKind": RequestOutputKind},
        "vllm.platforms": {"current_platform": SimpleNamespace(device_type=device_type)},
    }
    for name, content in parts.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
    return LLM
