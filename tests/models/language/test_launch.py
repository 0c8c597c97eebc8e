"""Texts that are written by recordings, as on a GPU, are those that are written step by step."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from pgrad.models.language import launch
from pgrad.models.language.checks import check_sampler
from pgrad.models.language.decode import Fused
from pgrad.models.language.generate import Completions
from tests.models.language.test_generate import FUSED, MODULE, network, write
from tests.models.language.texts import PROMPTS
from tests.recorder import Recordings, recorded_here

LONG = 40


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recordings]:
    monkeypatch.setattr(launch, "WIDTH", 16)
    with recorded_here() as found:
        yield found


def both(
    net: Any, monkeypatch: pytest.MonkeyPatch, *args: Any, **more: Any
) -> tuple[Completions, Completions]:
    plain = write(net, *args, max_completion_length=LONG, **more)
    monkeypatch.setattr(launch, "GRAPHS", ("cpu",))
    return plain, write(net, *args, max_completion_length=LONG, **more)


def same(plain: Completions, quick: Completions, tolerance: float = 1e-5) -> None:
    for name in ("tokens", "length", "ended"):
        assert torch.equal(getattr(plain, name), getattr(quick, name)), name
    torch.testing.assert_close(quick.logp, plain.logp, atol=tolerance, rtol=0)
    torch.testing.assert_close(quick.entropy, plain.entropy, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", sorted(FUSED))
@pytest.mark.parametrize("how", [{}, {"top_k": 5, "top_p": 0.9}, {"greedy": True}])
def test_recorded_steps_write_the_same(
    kind: str, how: dict[str, Any], recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, quick = both(network(kind), monkeypatch, **how)
    same(plain, quick)
    assert recordings.tapes
    assert recordings.replayed == plain.tokens.shape[1] - 1


def test_a_step_is_recorded_for_halves_of_the_texts_and_some_widths(
    recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 texts of ever fewer, whose prompts and tokens fill up to 49 columns."""
    plain, quick = both(network(), monkeypatch, eos=[3, 4, 5, 6])
    same(plain, quick)
    longest = max(map(len, PROMPTS)) + plain.tokens.shape[1] - 1
    widths = -(-longest // 16)
    assert 1 < len(recordings.tapes) <= widths + 4  # 20, 10, 5, 3, 2


def test_prompts_of_one_length_need_no_mask_of_their_own(
    recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, quick = both(network(), monkeypatch, [PROMPTS[0]] * 2, seeds=torch.arange(10))
    same(plain, quick)
    assert recordings.tapes


def test_in_half_precision(recordings: Recordings, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, quick = both(network(dtype="bfloat16"), monkeypatch)
    same(plain, quick, 5e-2)  # of which attention rounds another number of columns otherwise
    assert recordings.tapes


@pytest.mark.parametrize("broken", [True, False])
def test_what_cannot_be_recorded_is_told_and_written_all_the_same(
    broken: bool, recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(*_: Any) -> Any:
        raise RuntimeError("CUDA error: operation not permitted")

    recordings.breaks = broken
    if not broken:
        monkeypatch.setattr("pgrad.cuda_graph.capture", unable)
    why = "its answers differ" if broken else "operation not permitted"
    plain = write(network(), max_completion_length=LONG)
    monkeypatch.setattr(launch, "GRAPHS", ("cpu",))
    with pytest.warns(UserWarning, match=f"the step of a token is not run as a CUDA graph .*{why}"):
        same(plain, write(network(), max_completion_length=LONG))


def test_few_tokens_and_other_models_are_written_step_by_step(
    recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "GRAPHS", ("cpu",))
    write(network(), max_completion_length=launch.LEAST - 1)
    write(network("gpt2"), max_completion_length=LONG)
    assert not recordings.tapes


@pytest.mark.parametrize("broken", [True, False])
def test_keys_and_values_go_with_the_last_token(
    broken: bool, recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and not when Python looks for cycles: GPUs are full of them."""
    made: list[Any] = []

    def watched(model: Any, store: Any, *rest: Any) -> Fused:
        reader = Fused(model, store, *rest)
        made.extend(map(weakref.ref, (reader, store)))
        return reader

    monkeypatch.setattr(MODULE, "Fused", watched)
    monkeypatch.setattr(launch, "GRAPHS", ("cpu",))
    recordings.breaks = broken
    net = network()
    gc.disable()
    try:
        if broken:
            with pytest.warns(UserWarning, match="the step of a token"):
                write(net, max_completion_length=LONG)
        else:
            write(net, max_completion_length=LONG)
        assert len(made) == 2
        assert [x() for x in made] == [None, None]
    finally:
        gc.enable()
    assert recordings.tapes


def test_a_model_is_checked_with_what_writes_its_texts(
    recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "GRAPHS", ("cpu",))
    well, text = check_sampler(network())
    assert well, text
    assert recordings.replayed
