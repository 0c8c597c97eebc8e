"""What a trained language model writes, and the folder that it becomes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

import pgrad as pg
from pgrad.errors import UsageError
from pgrad.models.language.spec import LanguageSpec
from tests.run.texts import GRPO, SETTING, TINY, pretrained

pytestmark = pytest.mark.usefixtures("no_plots")
TAUGHT = pg.Imitate(batch_size=16, learning_rate=1e-2)
IDS = torch.tensor([[1, 4, 5, 6, 4, 4]])


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(input_ids=IDS, use_cache=False).logits


def trained(path: Path, agent: LanguageSpec) -> pg.Run:
    return pg.train(TAUGHT, "copy", agent=agent, total_timesteps=200, run_dir=path / "run", **SETTING)


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("scratch", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_exported_model_is_the_runs(lora: int, scratch: bool, dtype: Any, tmp_path: Path) -> None:
    name = "scratch:tiny" if scratch else str(pretrained(tmp_path / "model"))
    run = trained(tmp_path, LanguageSpec(name, lora=lora, dtype=dtype))
    own = run.agent.network.model
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        ours = logits(own).float()
    for number, one in enumerate((run, pg.load(tmp_path / "run"))):
        folder = one.export(tmp_path / f"out{number}")
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        assert model.dtype == torch.float32
        assert (logits(model) - ours).abs().max() < (1e-5 if dtype == "float32" else 0.05) * ours.abs().max()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        assert tokenizer("ab=")["input_ids"] == run.agent.network.tokenizer("ab=")["input_ids"]
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2
    assert type(own) is type(model)
    if not scratch:
        start = transformers.AutoModelForCausalLM.from_pretrained(name)
        assert (logits(start) - ours).abs().max() > 0.1
    still, spec = replace(GRPO, learning_rate=0.0), LanguageSpec(str(folder))
    begun = pg.train(still, "copy", agent=spec, total_timesteps=20, **SETTING)
    assert torch.equal(logits(begun.agent.network.model), logits(model)), "and can be trained on"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft
def test_the_adapter_alone(tmp_path: Path) -> None:
    folder = pretrained(tmp_path / "model")
    run = trained(tmp_path, LanguageSpec(str(folder), lora=2))
    out = run.export(tmp_path / "out", adapter=True)
    assert not (out / "model.safetensors").exists()
    base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    plain, ours = logits(base), logits(run.agent.network.model)
    model = peft.PeftModel.from_pretrained(base, out)
    assert (logits(model) - ours).abs().max() < 1e-5 * ours.abs().max()
    assert (plain - ours).abs().max() > 0.1


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    run = trained(tmp_path, TINY)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("years")
    with pytest.raises(UsageError, match="is there already: export into a new folder"):
        run.export(tmp_path / "thesis")
    with pytest.raises(UsageError, match="no adapter to export alone: the model is whole; leave out adapter"):
        run.export(tmp_path / "out", adapter=True)
    assert not (tmp_path / "out").exists()
    control = pg.train(pg.A2C(), "cartpole", total_timesteps=20)
    with pytest.raises(UsageError, match="cartpole is no world of language"):
        control.export(tmp_path / "out")


def test_completions(tmp_path: Path) -> None:
    """The same seed gives the same texts; greedy ones are all alike; they are what `evaluate` sees."""
    run = trained(tmp_path, TINY)
    first = run.complete(["ab=", "b="], 3, seed=1)
    assert [len(texts) for texts in first] == [3, 3]
    assert first == run.complete(["ab=", "b="], 3, seed=1)
    assert first != run.complete(["ab=", "b="], 3, seed=2)
    (greedy,) = run.complete("ab=", 4, greedy=True)
    assert len(set(greedy)) == 1
    one = {"", *run.agent.network.tokenizer.get_vocab()}
    assert one.issuperset(run.complete("ab=", 5, max_completion_length=1)[0])
    shown = run.answers(12)
    assert [one["reward"] for one in shown] == list(run.evaluate(12).returns)
    said = run.complete([one["prompt"] for one in shown], greedy=True)
    assert [one["completion"] for one in shown] == [texts[0] for texts in said]


@pytest.mark.parametrize(
    ("prompts", "given", "message"),
    [
        ("xyz=", {}, "does not know a part of the prompt of row 0: 'xyz='"),
        ([], {}, "there must be a prompt"),
        ("ab=", {"n": 0}, "n ≥ 1"),
        ("ab=", {"temperature": 0.0}, "temperature must be a finite number > 0"),
        ("ab=", {"max_completion_length": 5000}, "more than the 2048 that the model reads"),
        ([[{"role": "user", "content": "ab"}]], {}, "no chat template"),
    ],
)
def test_completions_that_cannot_be(prompts: Any, given: Any, message: str) -> None:
    run = pg.train(GRPO, "copy", agent=TINY, total_timesteps=20, **SETTING)
    with pytest.raises(UsageError, match=message):
        run.complete(prompts, **given)


def test_texts_have_no_pictures_and_are_not_recorded(tmp_path: Path) -> None:
    run = pg.train(GRPO, "copy", agent=TINY, total_timesteps=20, **SETTING)
    with pytest.raises(UsageError, match="no picture to show"):
        run.record(tmp_path / "a.mp4")
    with pytest.raises(UsageError, match="column 'solution'"):
        run.demonstrate(tmp_path / "a")
