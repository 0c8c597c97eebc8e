"""Models from scratch and from folders, and every way in which there is none."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pgrad.errors import UsageError
from pgrad.models.language import LanguageNetwork, LanguageSpec, build_network, generate
from pgrad.models.language.checks import CHECKS
from tests.models.language.tiny import model, network, tokenizer

SIZES = {"tiny": 1e5, "small": 7e5, "medium": 4.5e6}


def build(spec: LanguageSpec, tok: Any = None, seed: int = 0, critic: bool = False) -> LanguageNetwork:
    return build_network(spec, tok, critic=critic, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model("qwen2").save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("size", sorted(SIZES))
def test_models_from_scratch(size: str) -> None:
    state = torch.random.get_rng_state()
    net, same, other = (build(LanguageSpec(f"scratch:{size}"), tokenizer(), seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    n = sum(p.numel() for p in net.parameters())
    assert 0.8 * SIZES[size] < n < 1.2 * SIZES[size]
    pairs = zip(net.parameters(), same.parameters(), strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)
    assert not torch.equal(net.model.lm_head.weight, other.model.lm_head.weight)
    assert net.eos == (1,)
    done = generate(net, [[2, 4]], seeds=torch.arange(3), max_completion_length=4, num_generations=3)
    assert done.tokens.shape[0] == 3


def test_adapters_are_drawn_from_the_generator() -> None:
    spec = LanguageSpec("scratch:tiny", lora=2)
    a, b, c = (build(spec, tokenizer(), seed).state_dict() for seed in (0, 0, 1))
    name = next(name for name in a if "lora_A" in name)
    assert torch.equal(a[name], b[name])
    assert not torch.equal(a[name], c[name])


def test_a_folder_is_read_with_its_tokenizer(folder: Path) -> None:
    net, made = build(LanguageSpec(str(folder))), network("qwen2")
    for x, y in zip(net.parameters(), made.parameters(), strict=True):
        assert torch.equal(x, y)
    assert net.tokenizer.convert_tokens_to_ids("a") == 4
    assert net.context == 128


def test_half_precision_on_disk_is_trained_in_full(folder: Path) -> None:
    model("qwen2").to(torch.bfloat16).save_pretrained(folder)
    assert {p.dtype for p in build(LanguageSpec(str(folder))).parameters()} == {torch.float32}


def refused(spec: LanguageSpec, tok: Any = None) -> str:
    with pytest.raises(UsageError) as caught:
        build(spec, tok)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_not_there_is_named(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "no such folder" in refused(LanguageSpec(str(tmp_path / "nothing")))
    (folder / "model.safetensors").unlink()
    assert "no model weights" in refused(LanguageSpec(str(folder)), tokenizer())
    (folder / "config.json").unlink()
    assert "no model" in refused(LanguageSpec(str(folder)), tokenizer())
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "no tokenizer" in refused(LanguageSpec(str(folder)))
    assert "needs a task's" in refused(LanguageSpec("scratch:tiny"))


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder: Path) -> None:
    larger = tokenizer()
    larger.add_tokens(["more"])
    assert "do not belong together" in refused(LanguageSpec(str(folder)), larger)


def test_a_tokenizer_without_an_end_is_refused() -> None:
    assert "end-of-text" in refused(LanguageSpec("scratch:tiny"), tokenizer(eos=None))


def test_a_recurrent_model_is_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shape = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    made = transformers.MambaConfig(**shape, bos_token_id=2, eos_token_id=1, pad_token_id=0)
    transformers.AutoModelForCausalLM.from_config(made).save_pretrained(tmp_path)
    assert "attention only" in refused(LanguageSpec(str(tmp_path)), tokenizer())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model": ""}, "folder"),
        ({"model": "scratch:smal"}, "did you mean scratch:small"),
        ({"lora": -1}, "rank"),
        ({"lora": 2, "lora_alpha": 0.0}, "lora_alpha"),
        ({"lora_targets": ("q_proj",)}, "lora is 0"),
        ({"dtype": "float16"}, "bfloat16"),
        ({"temperature": 0.0}, "greedily"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        LanguageSpec(**given)


def test_targets_that_are_not_there_are_told_what_is() -> None:
    assert "q_proj" in refused(LanguageSpec("scratch:tiny", lora=2, lora_targets=("query",)), tokenizer())
    assert "head" in refused(LanguageSpec("scratch:tiny", lora=2, lora_targets=("lm_head",)), tokenizer())


def test_nothing_is_imported_before_it_is_needed() -> None:
    heavy = "{'transformers', 'peft', 'tokenizers', 'datasets'} & set(sys.modules)"
    code = f"import sys, pgrad.models.language, pgrad.models.language.checks; assert not {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_transformers_one_line_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'pgrad[language]'" in refused(LanguageSpec("scratch:tiny"), tokenizer())


@pytest.mark.parametrize("kind", ["qwen2", "gpt2", "gemma2", "bloom"])
def test_a_sound_model_passes_every_check(kind: str) -> None:
    net = network(kind)
    found = {name: check(net) for name, check in CHECKS.items()}
    assert all(ok for ok, _ in found.values()), found
    assert all(text and "\n" not in text for _, text in found.values())


@pytest.mark.parametrize("context", [4, 24, 40])
def test_a_model_that_reads_little_passes_every_check(context: int) -> None:
    net = network()
    net.context = context
    found = {name: check(net) for name, check in CHECKS.items()}
    assert all(ok for ok, _ in found.values()), found


def test_checks_find_what_is_wrong(monkeypatch: Any) -> None:
    drops = network("gpt2")
    drops.model.transformer.drop.p = 0.2
    assert not CHECKS["dropout"](drops)[0]
    half = network()
    half.model.model.norm.to(torch.bfloat16)
    assert not CHECKS["precision"](half)[0]
    template = network()
    template.tokenizer.chat_template = "{{ nothing.at.all }}"
    assert not CHECKS["chat template"](template)[0]
    shifted = network("gpt2")
    body = shifted.model.transformer
    forward = type(body).forward

    def without_positions(*args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(body, *args, **kwargs)

    monkeypatch.setattr(body, "forward", without_positions)
    ok, text = CHECKS["sampler"](shifted)
    assert not ok
    assert "differ" in text


def test_chat_templates_are_shown() -> None:
    net = network()
    net.tokenizer.chat_template = "{{ messages[0].content }}{% if add_generation_prompt %}>{% endif %}"
    ok, text = CHECKS["chat template"](net)
    assert ok
    assert "Hello>" in text
