"""`TokenPolicy` against the categorical over full logits: values, gradients, memory of chunks."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from pgrad.math import tokens, vocabulary
from pgrad.math.distributions import Categorical, Distribution
from pgrad.math.tokens import TokenPolicy

T, B, H, V = 7, 3, 5, 11
SHAPES = [(1.0, 1.0, None), (0.7, 1.0, None), (1.3, 0.5, 2.0)]


def tensors(bias: bool = True, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    made = [torch.randn(T, B, H, generator=g), torch.randn(V, H, generator=g), torch.randn(V, generator=g)]
    leaves = [x.to(dtype).requires_grad_() for x in made[: 3 if bias else 2]]
    decides = torch.rand(T, B, generator=g) < 0.6
    return leaves, decides, torch.randint(V, (T, B), generator=g)


def full(leaves: list[Tensor], shape: tuple[float, float, float | None]) -> Categorical:
    temperature, scale, cap = shape
    z = leaves[0] @ leaves[1].t()
    z = (z + leaves[2] if len(leaves) == 3 else z) * scale
    return Categorical((z if cap is None else cap * torch.tanh(z / cap)) / temperature)


def policy(leaves: list[Tensor], decides: Tensor, shape: tuple[float, float, float | None]) -> TokenPolicy:
    bias = leaves[2] if len(leaves) == 3 else None
    return TokenPolicy(leaves[0], leaves[1], bias, decides, *shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk", [1, 3 * V, 10**6])
def test_equal_to_the_categorical_over_full_logits(shape, bias, chunk, monkeypatch) -> None:
    monkeypatch.setattr(vocabulary, "CHUNK", chunk)
    leaves, decides, action = tensors(bias)
    mine, theirs = policy(leaves, decides, shape), full(leaves, shape)
    weight = torch.randn(2, T, B, generator=torch.Generator().manual_seed(1))

    logp, entropy = mine.log_prob_and_entropy(action)
    expected = [torch.where(decides, x, 0.0) for x in (theirs.log_prob(action), theirs.entropy())]
    torch.testing.assert_close(logp, expected[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(entropy, expected[1], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(mine.log_prob(action), logp, atol=0, rtol=0)
    torch.testing.assert_close(mine.entropy(), entropy, atol=0, rtol=0)
    got = torch.autograd.grad((weight[0] * logp + weight[1] * entropy).sum(), leaves)
    want = torch.autograd.grad((weight[0] * expected[0] + weight[1] * expected[1]).sum(), leaves)
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", [2 * V, 10**6])
def test_divergence_and_its_gradients(chunk, monkeypatch) -> None:
    monkeypatch.setattr(vocabulary, "CHUNK", chunk)
    leaves, decides, _ = tensors()
    others = [(x.detach() + 0.3).requires_grad_() for x in leaves]
    mine = policy(leaves, decides, SHAPES[2]).kl(policy(others, decides, SHAPES[1]))
    theirs = torch.where(decides, full(leaves, SHAPES[2]).kl(full(others, SHAPES[1])), 0.0)
    torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)
    got = torch.autograd.grad(mine.square().sum(), [*leaves, *others])
    want = torch.autograd.grad(theirs.square().sum(), [*leaves, *others])
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


def test_a_reference_without_gradient_gets_none() -> None:
    leaves, decides, _ = tensors()
    frozen = [x.detach() + 0.3 for x in leaves]
    policy(leaves, decides, SHAPES[0]).kl(policy(frozen, decides, SHAPES[0])).sum().backward()
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in leaves)


def test_a_frozen_head_is_not_differentiated() -> None:
    leaves, decides, action = tensors()
    for x in leaves[1:]:
        x.requires_grad_(False)
    policy(leaves, decides, SHAPES[0]).log_prob(action).sum().backward()
    assert leaves[0].grad is not None
    assert leaves[1].grad is None


def test_nothing_decided() -> None:
    leaves, decides, action = tensors()
    nothing = policy(leaves, torch.zeros_like(decides), SHAPES[0])
    logp, entropy = nothing.log_prob_and_entropy(action)
    assert not logp.any()
    assert not entropy.any()
    logp.sum().backward()
    assert not leaves[0].grad.any()  # type: ignore[union-attr]
    assert not nothing.mode.any()


def test_mode_and_sample_are_those_of_the_categorical() -> None:
    leaves, decides, _ = tensors()
    mine, theirs = policy(leaves, decides, SHAPES[1]), full(leaves, SHAPES[1])
    assert isinstance(mine, Distribution)
    assert torch.equal(mine.mode, torch.where(decides, theirs.mode, 0))
    g = torch.Generator().manual_seed(0)
    drawn = torch.stack([mine.sample(g) for _ in range(4000)])
    assert not drawn[:, ~decides].any()
    t, b = (int(x) for x in decides.nonzero()[0])
    share = torch.bincount(drawn[:, t, b], minlength=V) / 4000
    p = theirs.logits[t, b].softmax(-1).detach()
    assert bool(((share - p).abs() < 4 * (p * (1 - p) / 4000).sqrt() + 1e-3).all())


def test_half_precision_rounds_the_factors_and_nothing_after() -> None:
    leaves, decides, action = tensors(dtype=torch.bfloat16)
    exact = [x.detach().float().requires_grad_() for x in leaves]
    mine, theirs = policy(leaves, decides, SHAPES[1]), policy(exact, decides, SHAPES[1])
    assert mine.log_prob(action).dtype == torch.float32
    torch.testing.assert_close(mine.log_prob(action), theirs.log_prob(action), atol=1e-6, rtol=1e-6)
    master = TokenPolicy(leaves[0].detach(), exact[1], exact[2], decides, 0.7)
    master.log_prob(action).sum().backward()
    theirs.log_prob(action).sum().backward()
    assert exact[1].grad is not None
    assert exact[1].grad.dtype == torch.float32


def test_scores_of_columns_at_once_as_the_optimal_baseline_takes_them() -> None:
    leaves, decides, action = tensors()
    total = policy(leaves, decides, SHAPES[1]).log_prob(action).sum(0)

    def gradient(weight: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(total, leaves, weight)

    batched = torch.func.vmap(gradient)(torch.eye(B))
    expected = torch.where(decides, full(leaves, SHAPES[1]).log_prob(action), 0.0).sum(0)
    for b in range(B):
        want = torch.autograd.grad(expected[b], leaves, retain_graph=True)
        for x, y in zip(batched, want, strict=True):
            torch.testing.assert_close(x[b], y, atol=1e-5, rtol=1e-5)


def test_full_logits_are_never_alive(monkeypatch) -> None:
    seen: list[int] = []
    real = vocabulary.product

    def watched(a: Tensor, b: Tensor) -> Tensor:
        out = real(a, b)
        seen.append(out.numel())
        return out

    monkeypatch.setattr(vocabulary, "product", watched)
    monkeypatch.setattr(vocabulary, "CHUNK", 4 * V)
    leaves, _, action = tensors()
    everywhere = torch.ones(T, B, dtype=torch.bool)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):  # type: ignore
        logp, entropy = policy(leaves, everywhere, SHAPES[0]).log_prob_and_entropy(action)
    (logp + entropy).sum().backward()
    assert max(seen) <= max(4 * V, V * H)
    assert max(kept) <= T * B * H


@pytest.mark.parametrize(
    "choose", [lambda p: p.mode, lambda p: p.sample(Generator().manual_seed(0))], ids=["mode", "sample"]
)
def test_a_choice_holds_the_logits_of_one_chunk(choose: Callable[[TokenPolicy], Tensor], monkeypatch) -> None:
    alive, most = 0, 0

    def watched(*args: Any) -> Tensor:
        nonlocal alive, most
        z = vocabulary.logits(*args)
        alive += (n := z.numel())
        most = max(most, alive)

        def gone() -> None:
            nonlocal alive
            alive -= n

        weakref.finalize(z, gone)
        return z

    monkeypatch.setattr(tokens, "logits", watched)
    monkeypatch.setattr(vocabulary, "CHUNK", 4 * V)
    leaves, _, _ = tensors()
    choose(policy(leaves, torch.ones(T, B, dtype=torch.bool), SHAPES[0]))
    assert most == 4 * V
    assert alive == 0


def test_the_mode_is_found_chunk_by_chunk(monkeypatch) -> None:
    leaves, decides, _ = tensors()
    whole = policy(leaves, decides, SHAPES[2]).mode
    monkeypatch.setattr(vocabulary, "CHUNK", 2 * V)
    assert torch.equal(policy(leaves, decides, SHAPES[2]).mode, whole)
