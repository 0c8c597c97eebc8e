"""Sampling: the log-probabilities are those of scoring, and a text depends on its prompt and seed only."""

import importlib
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pgrad.errors import TrainingError, UsageError
from pgrad.models.language import Completions, LanguageNetwork, generate
from pgrad.models.language.cache import prefill
from pgrad.models.language.decode import Fused, fusable
from tests.models.language.texts import PROMPTS, columns
from tests.models.language.tiny import EOS, PAD, V, network, tokenizer

MODULE = importlib.import_module("pgrad.models.language.generate")  # the package exports its function's name
KINDS = ["llama", "llama3-rope", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "gpt2", "bloom", "granite"]
FUSED = {"llama", "llama3-rope", "qwen2", "qwen3"}


def write(net: LanguageNetwork, prompts: list[list[int]] = PROMPTS, g: int = 5, **how: Any) -> Completions:
    settings = {"seeds": torch.arange(len(prompts) * g) + 100, "max_completion_length": 24} | how
    return generate(net, prompts, num_generations=g, **settings)


def gap(net: LanguageNetwork, done: Completions, g: int = 5, prompts: list[list[int]] = PROMPTS) -> float:
    tokens, action, logp = columns(prompts, done, g)
    return float((net.policy(tokens).log_prob(action).detach() - logp).abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_and_scored_log_probabilities_agree(kind: str) -> None:
    """Prompts of several lengths (left-padded in the cache), G > 1, rows compacted away."""
    net = network(kind)
    assert fusable(net.model, 40, torch.float32) == (kind in FUSED)
    done = write(net)
    assert bool(done.ended.any())
    assert not bool(done.ended.all())
    assert gap(net, done) <= 1e-5


@pytest.mark.parametrize("kind", sorted(FUSED))
def test_layers_written_out_sample_what_the_model_itself_samples(kind: str, monkeypatch: Any) -> None:
    net = network(kind)
    fast = write(net)
    monkeypatch.setattr(MODULE, "fusable", lambda *_: False)
    slow = write(net)
    assert torch.equal(fast.tokens, slow.tokens)
    torch.testing.assert_close(fast.logp, slow.logp, atol=1e-5, rtol=0)
    torch.testing.assert_close(fast.entropy, slow.entropy, atol=1e-5, rtol=0)


def test_entropy_is_that_of_the_step() -> None:
    net = network()
    done = write(net)
    tokens, action, _ = columns(PROMPTS, done, 5)
    entropy = net.policy(tokens).log_prob_and_entropy(action)[1]
    for i, n in enumerate(done.length.tolist()):
        own = entropy[tokens.decides[:, i], i]
        torch.testing.assert_close(own, done.entropy[i, :n], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
@pytest.mark.parametrize("dropped", [0.01, 0.25, 2.0])
def test_the_same_seeds_write_the_same_in_any_company(kind: str, dropped: float, monkeypatch: Any) -> None:
    """Alone, among longer prompts, and whenever finished rows are taken out."""
    net = network(kind)
    together = write(net)
    monkeypatch.setattr(MODULE, "DROPPED", dropped)
    for i, prompt in enumerate(PROMPTS):
        own = slice(i * 5, i * 5 + 5)
        alone = write(net, [prompt], seeds=torch.arange(20)[own] + 100)
        n = alone.tokens.shape[1]
        assert torch.equal(alone.tokens, together.tokens[own, :n])
        assert torch.equal(alone.length, together.length[own])
        assert torch.equal(alone.ended, together.ended[own])
        torch.testing.assert_close(alone.logp, together.logp[own, :n], atol=1e-5, rtol=0)
    backwards = write(net, PROMPTS[::-1], seeds=(torch.arange(20) + 100).view(4, 5).flip(0).flatten())
    assert torch.equal(backwards.tokens.view(4, 5, -1).flip(0).flatten(0, 1), together.tokens)
    shorter = write(net, max_completion_length=7)
    assert torch.equal(shorter.tokens, together.tokens[:, :7])
    assert torch.equal(shorter.ended, together.ended & (together.length <= 7))


def test_prompts_read_a_few_at_a_time_write_the_same(monkeypatch: Any) -> None:
    net = network()
    whole = write(net)
    monkeypatch.setattr(importlib.import_module("pgrad.models.language.cache"), "PREFILL", 8)
    assert torch.equal(write(net).tokens, whole.tokens)


def test_looking_for_the_end_only_now_and_then_changes_nothing(monkeypatch: Any) -> None:
    net = network()
    always = write(net)
    monkeypatch.setattr(MODULE, "LOOK_EVERY", {"cpu": 7})
    now_and_then = write(net)
    for name in ("tokens", "length", "ended"):
        assert torch.equal(getattr(always, name), getattr(now_and_then, name))


@pytest.mark.parametrize("ends", [[EOS], [EOS, 5], [6, 7, 8], []])
def test_a_text_ends_at_the_first_of_any_end_token(ends: list[int]) -> None:
    free, done = write(network(), eos=[]), write(network(), eos=ends)
    assert free.length.tolist() == [24] * 20
    for i in range(20):
        text = free.tokens[i].tolist()
        first = next((t for t, token in enumerate(text) if token in ends), None)
        n = 24 if first is None else first + 1
        assert int(done.length[i]) == n
        assert bool(done.ended[i]) == (first is not None)
        assert done.tokens[i, :n].tolist() == text[:n]
        assert not done.tokens[i, n:].any()
        assert not done.logp[i, n:].any()
        assert not done.entropy[i, n:].any()


def test_padding_and_beginning_tokens_do_not_end_a_text() -> None:
    done = write(network(), eos=[EOS])
    before_the_end = [
        token for i, n in enumerate(done.length.tolist()) for token in done.tokens[i, : n - 1].tolist()
    ]
    assert PAD in before_the_end
    assert 2 in before_the_end
    assert EOS not in before_the_end


def test_a_tokenizer_whose_padding_is_its_end() -> None:
    net = network(tok=tokenizer(pad="<eos>"))
    assert net.eos == (EOS,)
    done = write(net)
    assert bool((done.tokens[done.ended].gather(1, done.length[done.ended, None] - 1) == EOS).all())
    assert gap(net, done) <= 1e-5


def test_end_on_the_last_token_is_an_end_and_not_a_cut() -> None:
    net = network()
    n = int(write(net).length[0])
    assert bool(write(net, max_completion_length=n).ended[0])
    assert not bool(write(net, max_completion_length=n - 1).ended[0])


def expected(z: Tensor, **how: Any) -> Tensor:
    """Brute force: probabilities of the truncated policy."""
    p = z.softmax(-1).double()
    order = p.argsort(descending=True)
    keep = order[: how["top_k"]] if how.get("top_k") else order
    q = p[keep] / p[keep].sum()
    n = int((q.cumsum(0) - q < how.get("top_p", 1.0)).sum())
    out = torch.zeros_like(p)
    out[keep[:n]] = q[:n] / q[:n].sum()
    return out


@pytest.mark.parametrize(
    "how", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.6}, {"top_k": 8, "top_p": 0.7}]
)
@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
def test_tokens_are_as_frequent_as_they_are_probable(kind: str, how: dict[str, Any]) -> None:
    """χ² of the second token after the commonest first one; its log-probability is of what it came from."""
    net, n = network(kind), 4000
    done = generate(
        net, [[2, 5, 6]], num_generations=n, seeds=torch.arange(n), max_completion_length=2, eos=[], **how
    )
    first = int(done.tokens[:, 0].mode().values)
    rows = done.tokens[:, 0] == first
    ids = torch.tensor([[2, 5, 6, first]])
    with torch.no_grad():
        z = net.model(input_ids=ids).logits[0, -1] / how.get("temperature", 1.0)
    p = expected(z, **{key: how[key] for key in ("top_k", "top_p") if key in how})
    seen = torch.bincount(done.tokens[rows, 1], minlength=V).double()
    assert not seen[p == 0].any()
    mean = p * rows.sum()
    large = mean > 5
    chi2 = ((seen - mean).square() / mean)[large].sum()
    degrees = int(large.sum()) - 1
    assert chi2 < degrees + 4 * (2 * degrees) ** 0.5 + 6
    torch.testing.assert_close(done.logp[rows, 1].double(), p[done.tokens[rows, 1]].log(), atol=1e-5, rtol=0)
    entropy = -(p[p > 0] * p[p > 0].log()).sum()
    assert torch.allclose(done.entropy[rows, 1].double(), entropy, atol=1e-5)


def test_greedy_takes_the_most_probable() -> None:
    net = network()
    done = write(net, g=1, greedy=True)
    tokens, action, _ = columns(PROMPTS, done, 1)
    assert torch.equal(net.policy(tokens).mode[tokens.decides], action[tokens.decides])


def test_temperature_divides_the_logits_where_texts_are_sampled_and_scored() -> None:
    net = network(temperature=0.6)
    done = write(net)
    assert gap(net, done) <= 1e-5
    plain = network()
    assert not torch.equal(write(plain).tokens, done.tokens)
    assert torch.equal(write(plain, temperature=0.6).tokens, done.tokens)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "gpt2"])
def test_half_precision(kind: str) -> None:
    net = network(kind, dtype="bfloat16")
    assert gap(net, write(net)) < 0.1
    assert {p.dtype for p in net.parameters()} == {torch.float32}


class Halves(TorchDispatchMode):
    """Watches every tensor that is rounded to half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and out.dtype == torch.bfloat16:
            self.made.append(weakref.ref(out))
        return out

    def alive(self) -> int:
        return sum(x.numel() for ref in self.made if (x := ref()) is not None)


def test_weights_are_held_in_half_precision_once_while_texts_are_written() -> None:
    """Autocast keeps what it rounds to read the prompts, which would be a second time."""
    net = network("llama", dtype="bfloat16")
    counts: list[int] = []
    with Halves() as halves:
        write(net, [[2, 5]], g=1, eos=[], max_completion_length=6, stop=lambda: counts.append(halves.alive()))
    body = sum(p.numel() for p in net.model.model.layers.parameters())
    whole = sum(p.numel() for p in net.model.parameters())
    assert len(counts) == 6
    assert all(0.9 * body <= n <= whole for n in counts)


@pytest.mark.parametrize("how", [{}, {"greedy": True}, {"top_k": 5, "top_p": 0.9}])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("factor", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_told(kind: str, how: dict[str, Any], factor: float) -> None:
    net = network(kind)
    with torch.no_grad():
        net.model.get_output_embeddings().weight[5] *= factor
    with pytest.raises(TrainingError, match=r"20 of 20 completions .* not finite"):
        write(net, max_completion_length=4, **how)


def test_gradient_checkpointing_does_not_keep_the_sampler_from_its_cache() -> None:
    net = network(gradient_checkpointing=True)
    assert net.model.training
    assert torch.equal(write(net).tokens, write(network()).tokens)
    assert net.model.training


def test_steps_of_one_size_as_a_graph_needs_them() -> None:
    """Writing to a column that a tensor names, attending to all columns behind a mask."""
    net, n = network(), 5
    prompts = [[2, 5, 6], [2, 7, 8, 9, 10]]
    with torch.no_grad():
        made = [prefill(net.model.model, prompts, 1, n, torch.float32, torch.device("cpu")) for _ in range(2)]
        first = torch.tensor([2, 0])
        readers = [Fused(net.model, store, first, torch.float32) for _, store in made]
        column, every = torch.tensor([5]), torch.arange(5 + n)
        token, position = torch.tensor([4, 6]), torch.tensor([3, 5])
        for _ in range(n):
            mask = (every >= first[:, None]) & (every <= column)
            same = readers[0].forward(token, position, column, 5 + n, mask.view(2, 1, 1, -1))
            torch.testing.assert_close(readers[1].step(token, position), same, atol=1e-5, rtol=1e-5)
            token, position = token + 1, position + 1
            column += 1


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(UsageError) as caught:
        call()
    return str(caught.value)


def test_what_is_refused() -> None:
    net = network()
    assert "prompt 1 is empty" in refused(lambda: write(net, [[2], []]))
    assert "prompt 0 has 120 tokens" in refused(lambda: write(net, [[2] * 120]))
    assert "seeds" in refused(lambda: write(net, seeds=torch.arange(3)))
    assert "seeds" in refused(lambda: write(net, seeds=torch.zeros(20)))
    assert "temperature" in refused(lambda: write(net, temperature=0.0))
    assert "top_p" in refused(lambda: write(net, top_p=0.0))
    assert "max_completion_length" in refused(lambda: write(net, max_completion_length=0))
