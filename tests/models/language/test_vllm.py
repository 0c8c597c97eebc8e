"""vLLM behind `generate`: by a stand-in of its signatures around the real model, and by vLLM where it is."""

import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pgrad.errors import TrainingError, UsageError
from pgrad.models.language import Completions, LanguageNetwork, LanguageSpec, build_network, generate
from pgrad.models.language.adapters import adapted
from pgrad.models.language.checks import check_sampler
from pgrad.models.language.vllm import require_vllm
from pgrad.models.language.weights import differing, fingerprints, pushed_weights
from pgrad.run.export import _merged
from pgrad.stopping import Stopped
from pgrad.worlds.language.tokenizer import character_tokenizer
from tests.models.language.standing_in import LLM, install
from tests.models.language.tiny import BOS, EOS, network

PROMPTS = [[2, 5, 9, 7], [2, 4], [8, 8, 6, 5, 4, 11, 10]]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    return install(monkeypatch)


def write(net: LanguageNetwork, prompts: list[list[int]] = PROMPTS, **given: Any) -> Completions:
    copies = given.get("num_generations", 4)
    usual = {"num_generations": copies, "max_completion_length": 9}
    return generate(net, prompts, **{"seeds": torch.arange(len(prompts) * copies) * 7919, **usual, **given})


def rows(found: Completions) -> list[list[int]]:
    return [row[:n] for row, n in zip(found.tokens.tolist(), found.length.tolist(), strict=True)]


@torch.no_grad()
def scores(net: LanguageNetwork, prompt: list[int], answer: list[int], temperature: float) -> list[float]:
    """log π of an answer, by the bare model."""
    z = net.model(input_ids=torch.tensor([prompt + answer])).logits[0].float() / temperature
    logp = z.log_softmax(-1)
    return [float(logp[len(prompt) - 1 + i, token]) for i, token in enumerate(answer)]


def disturb(net: LanguageNetwork) -> None:
    with torch.no_grad():
        for p in net.model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.1)


def broken(net: LanguageNetwork) -> LLM:
    """The engine that has the network's weights."""
    write(net)
    return LLM.made[-1]


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_log_probabilities_are_of_the_policy_at_its_temperature(vllm: type[LLM], kind: str) -> None:
    net = network(kind, engine="vllm", temperature=0.6)
    found = write(net)
    for i, row in enumerate(rows(found)):
        assert found.logp[i, : len(row)].tolist() == pytest.approx(
            scores(net, PROMPTS[i // 4], row, 0.6), abs=1e-4
        )
        assert not found.logp[i, len(row) :].any()
        assert not found.tokens[i, len(row) :].any()
    assert found.logp.dtype == torch.float32
    well, text = check_sampler(net)
    assert well
    assert "vLLM" in text


def test_an_answer_depends_on_its_own_seed_and_not_on_its_neighbours(vllm: type[LLM]) -> None:
    net, seeds = network("llama", engine="vllm"), torch.tensor([3, 2**62 + 5, 9, 11])
    together = rows(write(net, PROMPTS[:2], num_generations=2, seeds=seeds))
    for i in range(4):
        alone = rows(write(net, [PROMPTS[i // 2]], num_generations=1, seeds=seeds[i : i + 1]))
        assert alone == [together[i]]
    assert together == rows(write(net, PROMPTS[:2], num_generations=2, seeds=seeds))
    assert together != rows(write(net, PROMPTS[:2], num_generations=2, seeds=seeds + 1))


def test_every_end_ends_a_text_and_nothing_else_does(vllm: type[LLM]) -> None:
    net = network("llama", engine="vllm")
    found = write(net, num_generations=24, eos=[EOS, BOS], max_completion_length=12)
    texts = rows(found)
    assert {text[-1] for text in texts if len(text) < 12} == {EOS, BOS}
    for text, ended in zip(texts, found.ended.tolist(), strict=True):
        assert ended == (text[-1] in (EOS, BOS))
        assert not {EOS, BOS} & set(text[:-1])
        assert ended or len(text) == 12
    one = write(net, num_generations=24, eos=[BOS], max_completion_length=12)
    assert any(EOS in text[:-1] for text in rows(one))


def test_entropies_and_greedy_log_probabilities_are_not_made_up(vllm: type[LLM]) -> None:
    net = network("llama", engine="vllm", temperature=0.6)
    found = write(net)
    inside = torch.arange(found.tokens.shape[1]) < found.length.unsqueeze(1)
    assert found.entropy.isnan().equal(inside)
    greedy = write(net, greedy=True)
    assert greedy.logp.isnan().equal(torch.arange(greedy.tokens.shape[1]) < greedy.length.unsqueeze(1))
    own = write(network("llama", temperature=0.6), greedy=True)
    assert rows(greedy) == rows(own)


def test_weights_are_pushed_when_they_have_changed_and_read_back_every_time(vllm: type[LLM]) -> None:
    net = network("llama", engine="vllm")
    first = write(net)
    llm = LLM.made[-1]
    assert net.vllm is not None
    assert (net.vllm.version, llm.calls) == (1, ["reload_weights", "reset_prefix_cache", "apply_model"])
    write(net)
    assert (net.vllm.version, llm.calls[3:]) == (1, ["apply_model"])
    disturb(net)
    later = write(net)
    assert net.vllm.version == 2
    assert llm.calls[4:] == ["reload_weights", "reset_prefix_cache", "apply_model"]
    assert rows(later) != rows(first)
    fresh = network("llama", engine="vllm")
    disturb(fresh)
    assert rows(write(fresh)) == rows(later)
    assert len(LLM.made) == 2


@pytest.mark.parametrize(
    "deaf", ["model.layers.1.self_attn.k_proj.weight", "lm_head.weight", "model.norm.weight"]
)
def test_an_engine_that_misses_one_tensor_stops_the_run(vllm: type[LLM], deaf: str) -> None:
    net = network("llama", engine="vllm")
    llm = broken(net)
    llm.held.deaf = {deaf}
    disturb(net)
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"weights that are trained \(version 2\): 1 of 23"):
            write(net)
    llm.held.deaf = set()
    disturb(net)
    write(net)


def test_an_engine_whose_weights_are_overwritten_stops_the_run(vllm: type[LLM]) -> None:
    net = network("llama", engine="vllm")
    llm = broken(net)
    with torch.no_grad():
        llm.held.model.model.layers[0].mlp.up_proj.weight[3, 4] += 1e-6
    with pytest.raises(TrainingError, match=r"1 of 23 tensors differ, model\.layers\.0\.mlp\.gate_up"):
        write(net)


def test_an_engine_that_cannot_be_compared_or_remembers_stops_the_run(vllm: type[LLM]) -> None:
    net = network("llama", engine="vllm")
    llm = broken(net)
    llm.held.names = {f"other.{name}": parts for name, parts in llm.held.names.items()}
    with pytest.raises(TrainingError, match="nobody can tell"):
        write(net)
    net = network("llama", engine="vllm")
    broken(net).busy = True
    disturb(net)
    with pytest.raises(TrainingError, match="prefix cache"):
        write(net)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_are_merged_into_what_is_pushed(vllm: type[LLM], dtype: str) -> None:
    net = network("llama", engine="vllm", lora=2, dtype=dtype)
    disturb(net)  # B too
    assert adapted(net.model)
    llm = broken(net)
    merged = dict(_merged(net.model).named_parameters())
    held = dict(llm.held.model.named_parameters())
    assert merged.keys() == held.keys()
    half = getattr(torch, dtype)
    for name, x in merged.items():
        assert held[name].dtype == half
        torch.testing.assert_close(held[name], x.to(half))
    before = rows(write(net))
    disturb(net)
    assert rows(write(net)) != before


def test_where_it_stops_nothing_stays_behind(vllm: type[LLM]) -> None:
    net = network("llama", engine="vllm")
    whole, llm = rows(write(net, max_completion_length=20)), LLM.made[-1]
    for last in (0, 1, 5):
        left = [last]

        def stop(left: list[int] = left) -> None:
            if left[0] == 0:
                raise Stopped
            left[0] -= 1

        with pytest.raises(Stopped):
            write(net, max_completion_length=20, stop=stop)
        assert not llm.llm_engine.has_unfinished_requests()
        assert rows(write(net, max_completion_length=20)) == whole


def test_what_does_not_fit_is_refused(vllm: type[LLM]) -> None:
    net = network("llama", engine="vllm")
    with pytest.raises(UsageError, match="prompt 0 has 125 tokens"):
        write(net, [[5] * 125])
    llm = broken(net)
    llm.model_config.max_model_len = 20
    with pytest.raises(UsageError, match=r"a prompt has 12 tokens; .* 9 .* more than the 20 that vLLM reads"):
        write(net, [[5, 6], [5] * 12])
    with pytest.raises(UsageError, match="samples at a temperature of at least"):
        write(net, temperature=0.001)
    assert write(net, temperature=0.001, greedy=True).length.sum() > 0


def test_a_tied_head_is_refused_where_it_would_stay_as_it_was(vllm: type[LLM]) -> None:
    with pytest.raises(UsageError, match="a head that is the embedding too"):
        write(network("qwen2", engine="vllm"))
    assert LLM.made == []


def test_a_request_that_the_engine_gives_up_is_told(vllm: type[LLM], monkeypatch: pytest.MonkeyPatch) -> None:
    net = network("llama", engine="vllm")
    engine = broken(net).llm_engine
    step = engine.step

    def failing() -> list[Any]:
        out = step()
        for output in out:
            if output.request_id == "3":
                output.outputs[0].finish_reason = "error"
        return out

    monkeypatch.setattr(engine, "step", failing)
    with pytest.raises(TrainingError, match="gave up 1 of 12 completions, 3 first"):
        write(net)


def test_what_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UsageError, match="vllm"):
        write(network("llama", engine="vllm"))
    install(monkeypatch, "cuda")
    with pytest.raises(UsageError, match="is on cpu and this vLLM runs on cuda: take a CUDA device"):
        write(network("llama", engine="vllm"))
    install(monkeypatch, "")
    with pytest.raises(UsageError, match="vLLM finds no GPU here"):
        write(network("llama", engine="vllm"))
    install(monkeypatch, "cuda")
    with pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES=1 and take device cuda"):
        require_vllm(torch.device("cuda:1"))
    assert require_vllm(torch.device("cuda:0")) is sys.modules["vllm"]


def test_a_model_that_the_engine_refuses_is_a_mistake_of_usage(
    vllm: type[LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("Model architectures ['X'] are not supported\nand more")

    monkeypatch.setattr(sys.modules["vllm"], "LLM", refuse)
    with pytest.raises(UsageError, match=r"vLLM cannot run this model here: .*; take engine own"):
        write(network("llama", engine="vllm"))


@pytest.mark.parametrize(
    "given",
    [{"engine": "sglang"}, {"vllm_gpu_memory_utilization": 0.0}, {"vllm_gpu_memory_utilization": 1.5}],
)
def test_settings_that_mean_nothing_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(given))):
        LanguageSpec("scratch:tiny", **given)


def test_a_fingerprint_sees_every_bit_and_no_order() -> None:
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))

    def of(y: torch.Tensor) -> int:
        return fingerprints(iter([("y", y)]))["y"]

    padded = torch.cat([x, torch.zeros(3, 5)])
    assert of(x) == of(x.T) == of(padded) == of(x.flatten().flip(0))
    assert (of(x[:2]) + of(x[2:]) - of(x)) % 2**64 == 0
    for bit in range(32):
        y = x.clone()
        y.view(torch.int32)[3, 2] ^= 1 << bit if bit < 31 else -(2**31)
        assert of(y) != of(x)
    assert of(x.bfloat16()) == of(x.bfloat16().T)
    assert fingerprints(iter([("none", torch.zeros(0)), ("ids", torch.arange(3))])) == {}


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str
)
def test_numbers_of_any_size_have_fingerprints(dtype: torch.dtype) -> None:
    """Those that an engine computes with are its own affair: scales, quantised weights."""
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = set()
    for bit in range(8 * x.element_size()):
        y = x.clone()
        y.view(torch.uint8)[2, x.element_size() + bit // 8] ^= 1 << bit % 8
        found |= set(fingerprints(iter([("y", y)])).values())
    assert len(found | set(fingerprints(iter([("x", x), ("x", x.T)])).values())) == 1 + 8 * x.element_size()


def test_joined_tensors_are_compared_with_their_parts() -> None:
    wanted = {"a.q.weight": 2**63 - 1, "a.k.weight": 5, "a.o.weight": 3}
    packed = {"qk": ["q", "k"]}
    assert differing({"a.qk.weight": 4 - 2**63, "a.o.weight": 3, "b.x": 1}, wanted, packed) == ([], 2)
    both = {"a.qk.weight": 6, "a.o.weight": 4}
    assert differing(both, wanted, packed) == (list(both), 2)
    assert differing({"a.qk.weight": 6}, wanted, {"qk": ["q", "v"]}) == ([], 0)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "gemma2", "bloom"])
def test_what_is_pushed_is_every_weight_of_a_checkpoint_once(kind: str) -> None:
    net = network(kind)
    pushed = dict(pushed_weights(net.model, torch.float32))
    named = dict(net.model.named_parameters())
    assert set(named) <= set(pushed)
    assert all(pushed[name].equal(x) for name, x in named.items())
    assert sum(x.numel() for x in pushed.values()) == sum(x.numel() for x in named.values())


def test_the_stand_in_has_the_signatures_of_vllm() -> None:
    real = pytest.importorskip("vllm", reason="vLLM is not installed", exc_type=Exception)
    sampling = pytest.importorskip("vllm.sampling_params")
    engine = pytest.importorskip("vllm.v1.engine.llm_engine")
    from tests.models.language import standing_in

    def names(function: Callable[..., Any]) -> set[str]:
        return set(inspect.signature(function).parameters)

    for name in ("collective_rpc", "apply_model", "reset_prefix_cache"):
        assert names(getattr(LLM, name)) == names(getattr(real.LLM, name))
    for name in ("abort_request", "step", "has_unfinished_requests"):
        assert names(getattr(standing_in.Engine, name)) == names(getattr(engine.LLMEngine, name))
    assert names(standing_in.Engine.add_request) <= names(engine.LLMEngine.add_request)
    assert names(standing_in.SamplingParams) <= names(sampling.SamplingParams)
    kinds = (standing_in.RequestOutputKind, sampling.RequestOutputKind)
    assert [one.name for one in kinds[0]] == [one.name for one in kinds[1]]
    args = names(pytest.importorskip("vllm.engine.arg_utils").EngineArgs)
    assert args >= {"load_format", "generation_config", "max_model_len", "logprobs_mode"}
    assert names(real.LLM) >= {"dtype", "seed", "gpu_memory_utilization", "skip_tokenizer_init"}


@pytest.mark.filterwarnings("ignore")  # vLLM's own
def test_vllm_itself_writes_what_training_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed", exc_type=Exception)
    from vllm.platforms import current_platform

    if not current_platform.device_type:
        pytest.skip("vLLM finds no device")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    spec = LanguageSpec("scratch:small", engine="vllm", temperature=0.7)
    net = build_network(
        spec, character_tokenizer("abcdefgh="), critic=False, generator=torch.Generator().manual_seed(0)
    ).to(current_platform.device_type)
    for version in (1, 2, 3):
        found = write(net, PROMPTS, max_completion_length=16)
        assert net.vllm is not None
        assert net.vllm.version == version
        for i, row in enumerate(rows(found)):
            exact = scores(net, PROMPTS[i // 4], row, 0.7)
            assert found.logp[i, : len(row)].tolist() == pytest.approx(exact, abs=1e-2)
        assert rows(found) == rows(write(net, PROMPTS, max_completion_length=16))
        assert math.isnan(float(found.entropy[0, 0]))
        disturb(net)
