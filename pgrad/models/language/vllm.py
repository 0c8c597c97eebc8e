"""vLLM as the engine that writes completions, with weights that are read back before it writes any.

Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with PagedAttention". It lives
in this process, on the same device. Entropies it does not tell, and runs repeat up to its rounding, which may
depend on what is written side by side; bit for bit is a promise of pgrad's own loop only.
"""

import copy
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from pgrad.errors import TrainingError, UsageError
from pgrad.extras import extra
from pgrad.models.language.weights import differing, fingerprints, pushed_weights
from pgrad.stopping import Stop

LEAST_TEMPERATURE = 0.01
"""vLLM raises lower ones to this."""

ENDINGS = ("stop", "length")
NOTHING_KNOWN = "its tensors have other names, so that nobody can tell"

Written = tuple[list[list[int]], list[list[float]]]
"""Of every text the tokens, and the log-probability of each where it was sampled."""


class VLLM:
    """vLLM around copies of a network's weights; it is started when it first writes.

    memory: the share of the GPU that it may use. `version` counts the weights that were pushed.
    """

    def __init__(self, dtype: torch.dtype, memory: float) -> None:
        self._dtype, self._memory = dtype, memory
        self._llm: Any = None
        self._pushed: dict[str, int] = {}
        self.version = 0

    def write(
        self,
        model: Any,
        prompts: Sequence[list[int]],
        *,
        seeds: Tensor,
        max_completion_length: int,
        ends: Sequence[int],
        temperature: float,
        top_k: int,
        top_p: float,
        greedy: bool,
        context: int | None,
        stop: Stop,
    ) -> Written:
        """A completion of every prompt by its own seed, with the weights that `model` has now.

        Of a greedy one log-probabilities are NaN: vLLM's are not at the temperature. `stop` is called before
        every step of the engine, in which each text gets a token; where it raises, nothing stays behind.
        Raises UsageError where vLLM is missing, cannot use the device, or cannot run this model,
        TrainingError where its weights are not those of `model`.
        """
        stop()
        if not greedy and temperature < LEAST_TEMPERATURE:
            raise UsageError(
                f"engine vllm samples at a temperature of at least {LEAST_TEMPERATURE:g}, got {temperature:g}"
            )
        if self._llm is None:
            self._llm = self._start(model, context)
        self._require_room(prompts, max_completion_length)
        self._synchronize(model)
        sampling = extra("vllm.sampling_params", "vllm")
        requests = [
            sampling.SamplingParams(
                temperature=0.0 if greedy else temperature,
                top_k=top_k,
                top_p=top_p,
                seed=seed,
                max_tokens=max_completion_length,
                logprobs=0,  # of the sampled token alone
                ignore_eos=True,  # the ends are ours, all of them and no others
                stop_token_ids=list(ends),
                detokenize=False,
                output_kind=sampling.RequestOutputKind.FINAL_ONLY,
            )
            for seed in seeds.tolist()
        ]
        done = self._run(prompts, requests, stop)
        tokens = [list(one.token_ids) for one in done]
        if greedy:
            return tokens, [[float("nan")] * len(text) for text in tokens]
        pairs = [zip(text, one.logprobs, strict=True) for text, one in zip(tokens, done, strict=True)]
        return tokens, [[told[token].logprob for token, told in text] for text in pairs]

    def _run(self, prompts: Sequence[list[int]], requests: list[Any], stop: Stop) -> list[Any]:
        """What became of every request, in their order."""
        engine, names = self._llm.llm_engine, [str(i) for i in range(len(prompts))]
        done: dict[str, Any] = {}
        try:
            for name, prompt, request in zip(names, prompts, requests, strict=True):
                engine.add_request(name, {"prompt_token_ids": prompt}, request)
            while engine.has_unfinished_requests():
                stop()
                for output in engine.step():
                    done[output.request_id] = output.outputs[0]
        except BaseException:
            engine.abort_request(names)
            raise
        broken = [name for name in names if name not in done or done[name].finish_reason not in ENDINGS]
        if broken:
            raise TrainingError(f"vLLM gave up {len(broken)} of {len(names)} completions, {broken[0]} first")
        return [done[name] for name in names]

    def _synchronize(self, model: Any) -> None:
        """Push the weights if they have changed, and read back what is there now, in any case."""
        wanted = fingerprints(pushed_weights(model, self._dtype))
        if wanted != self._pushed:
            weights = pushed_weights(model, self._dtype)
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            if not self._llm.reset_prefix_cache():
                raise TrainingError("vLLM keeps what former weights have read: its prefix cache is in use")
            self._pushed, self.version = wanted, self.version + 1
        held, packed = self._llm.apply_model(_read_back)[0]
        other, compared = differing(held, wanted, packed)
        if other or not compared:
            found = f"{len(other)} of {compared} tensors differ, {other[0]} first" if other else NOTHING_KNOWN
            raise TrainingError(
                f"vLLM does not hold the weights that are trained (version {self.version}): {found}; "
                "take engine own"
            )

    def _require_room(self, prompts: Sequence[list[int]], n: int) -> None:
        longest, context = max(map(len, prompts)), self._llm.model_config.max_model_len
        if longest + n > context:
            raise UsageError(
                f"a prompt has {longest} tokens; with max_completion_length {n} that is more than the "
                f"{context} that vLLM reads of this model"
            )

    def _start(self, model: Any, context: int | None) -> Any:
        """Without weights, which are pushed, and without a tokenizer, which is not needed."""
        vllm = require_vllm(model.device)
        tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
        if tied and model.device.type == "cpu":  # which packs the head once, apart from the embedding
            raise UsageError(
                "vLLM on a CPU never sees the new weights of a head that is the embedding too: take a CUDA "
                "device, or engine own"
            )
        config = copy.deepcopy(model.config)
        config.architectures = [type(model).__name__]
        with TemporaryDirectory(prefix="pgrad-") as folder, _in_this_process():
            config.save_pretrained(folder)
            try:
                return vllm.LLM(
                    model=folder,
                    load_format="dummy",
                    skip_tokenizer_init=True,
                    generation_config="vllm",  # nobody's defaults
                    dtype=str(self._dtype).removeprefix("torch."),
                    max_model_len=context,
                    gpu_memory_utilization=self._memory,
                    logprobs_mode="processed_logprobs",  # of what is sampled from: at the temperature
                    seed=0,
                )
            except (ValueError, RuntimeError, NotImplementedError) as error:
                words = str(error).strip().splitlines() or [type(error).__name__]
                raise UsageError(f"vLLM cannot run this model here: {words[0]}; take engine own") from error


def require_vllm(device: torch.device) -> Any:
    """The package. Raises UsageError where it is missing or cannot use `device`."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        with _quiet():
            vllm, platforms = extra("vllm", "vllm"), extra("vllm.platforms", "vllm")
            known = platforms.current_platform.device_type
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(f"vllm is installed but cannot be imported: {error}") from error
    if known != device.type:
        only = f"this vLLM runs on {known}" if known else "vLLM finds no GPU here"
        raise UsageError(
            f"engine vllm: the model is on {device.type} and {only}: take a CUDA device (device cuda), or "
            "engine own"
        )
    if device.index:
        raise UsageError(
            f"engine vllm runs on the first GPU that is visible, not on {device}: set "
            f"CUDA_VISIBLE_DEVICES={device.index} and take device cuda"
        )
    return vllm


def _read_back(model: Any) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Fingerprints of what the engine computes with, and which modules are joined in it."""
    return fingerprints(iter(model.named_parameters())), getattr(model, "packed_modules_mapping", {})


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what its dependencies have to say about each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _in_this_process() -> Iterator[None]:
    """vLLM's engine here and not in a process of its own, which could not see the weights."""
    name = "VLLM_ENABLE_V1_MULTIPROCESSING"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        with _quiet():
            yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
