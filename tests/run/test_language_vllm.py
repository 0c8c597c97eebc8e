"""Whole runs whose completions another engine writes: what is measured, corrected, told and refused."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pgrad as pg
from pgrad.cli import main
from pgrad.errors import TrainingError, UsageError
from pgrad.models.language.checks import CHECKS
from pgrad.run.config import RunOptions
from pgrad.run.language import opening
from pgrad.run.start import configured
from pgrad.training.sampling import CORRECTED, GAP
from tests.models.language.standing_in import LLM, Engine, install
from tests.run.texts import GRPO, SETTING, TINY, length, made

ENGINE = replace(TINY, engine="vllm")
COPY: dict[str, Any] = {"sizes": [1, 3], "letters": "ab"}


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    return install(monkeypatch)


def off_by(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    """Let the engine tell log-probabilities that are off, as another rounding would make them."""
    step: Callable[[Engine], list[Any]] = Engine.step

    def other(engine: Engine) -> list[Any]:
        out = step(engine)
        for output in out:
            for told in output.outputs[0].logprobs:
                for one in told.values():
                    one.logprob += size
        return out

    monkeypatch.setattr(Engine, "step", other)


@pytest.mark.parametrize("algorithm", [GRPO, pg.PPO(n_steps=16, batch_size=8, n_epochs=1)])
def test_every_update_is_of_the_present_weights_and_tells_the_gap(vllm: type[LLM], algorithm: Any) -> None:
    training = made(algorithm, "copy", ENGINE, length, **COPY)
    network: Any = training.agent.network
    for version in (1, 2, 3):
        metrics = training.iterate()
        assert network.vllm.version == version
        assert 0.0 <= metrics[GAP] < 1e-4
        assert metrics[CORRECTED] == 0.0
        written = training.collector.episodes.metrics()
        assert "entropy" not in written
        assert math.isfinite(written["completions/mean_length"])
    (llm,) = LLM.made
    assert llm.calls == ["reload_weights", "reset_prefix_cache", "apply_model"] * 3


def test_a_gap_of_the_engine_is_corrected_in_float32_too(
    vllm: type[LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = made(GRPO, "copy", ENGINE, length, **COPY)
    off_by(monkeypatch, 0.2)
    metrics = training.iterate()
    assert metrics[CORRECTED] == 1.0
    assert metrics[GAP] == pytest.approx(0.2, abs=1e-3)
    ratio = "sampling/importance_sampling_ratio/mean"
    assert metrics[ratio] == pytest.approx(math.exp(-0.2), abs=1e-3)
    training = made(GRPO, "copy", ENGINE, length, **COPY)
    off_by(monkeypatch, -0.15)
    assert training.iterate()[CORRECTED] == 0.0  # 0.2 − 0.15: less than what is corrected


def test_a_gap_that_no_rounding_explains_stops_the_run(
    vllm: type[LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = made(GRPO, "copy", ENGINE, length, **COPY)
    off_by(monkeypatch, 3.0)
    with pytest.raises(TrainingError, match="not the policy that wrote"):
        training.iterate()


def test_an_engine_that_is_stale_stops_the_run(vllm: type[LLM]) -> None:
    training = made(GRPO, "copy", ENGINE, length, **COPY)
    training.iterate()
    LLM.made[-1].held.deaf = {name for name, _ in LLM.made[-1].held.model.named_parameters()}
    with pytest.raises(TrainingError, match=r"does not hold the weights that are trained \(version 2\)"):
        training.iterate()


def test_a_run_trains_evaluates_and_goes_on_and_is_read_without_the_engine(
    vllm: type[LLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**SETTING, "agent": ENGINE, "total_timesteps": 150, "eval_every": 60, "eval_episodes": 4}
    run = pg.train(GRPO, "copy", run_dir=tmp_path / "run", **given)
    assert len(LLM.made) == 1  # the evaluations are written by it too
    rest = pg.resume(tmp_path / "run", total_timesteps=250)
    assert rest.timesteps > run.timesteps
    assert len(LLM.made) == 2
    install(monkeypatch, "")
    loaded = pg.load(tmp_path / "run")
    assert math.isfinite(loaded.evaluate(episodes=4, seed=0).mean)
    begun = pg.train(GRPO, "copy", **{**given, "agent": TINY, "init_from": str(tmp_path / "run")})
    assert begun.timesteps > 0
    assert LLM.made == []


def test_what_repeats_up_to_rounding_only_is_told() -> None:
    for agent, told in ((ENGINE, 1), (TINY, 0)):
        lines = opening(configured(GRPO, "copy", agent, RunOptions()))
        assert sum("bit for bit" in line for line in lines) == told


def test_before_a_run_begins_it_is_known_whether_the_engine_can_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, "cuda")
    with pytest.raises(UsageError, match="take a CUDA device"):
        made(GRPO, "copy", ENGINE, length, **COPY)
    order = ["train", "grpo", "copy", "--model", "scratch:tiny", "--engine", "vllm", "--device", "cpu"]
    assert main(order) == 2
    told = capsys.readouterr().err
    assert "this vLLM runs on cuda" in told
    assert len(told.strip().splitlines()) == 1
    assert main(["doctor", "--engine", "vllm"]) == 2
    assert "add --model" in capsys.readouterr().err


def test_doctor_compares_the_engine_with_training(
    vllm: type[LLM], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--model", "scratch:tiny", "--engine", "vllm"]) == 0
    assert "vLLM and training" in capsys.readouterr().out
    off_by(monkeypatch, 0.3)
    assert main(["doctor", "--model", "scratch:tiny", "--engine", "vllm"]) == 1
    assert "PROBLEM: vLLM and training" in capsys.readouterr().out


def test_doctor_without_vllm_makes_the_other_checks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert main(["doctor", "--model", "scratch:tiny", "--engine", "vllm"]) == 1
    out, err = capsys.readouterr()
    found = {line[2:20].strip(): line[20:] for line in out.splitlines()[1:]}
    assert found["sampler"] == "PROBLEM: vllm is not installed: pip install 'pgrad[vllm]'"
    assert (list(found), out.count("PROBLEM"), err) == (list(CHECKS), 1, "")
