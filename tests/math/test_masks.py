"""Restricted policies against their definition, over every action there is."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from pgrad.math.distributions import Bernoulli, Categorical, Gaussian, MultiCategorical, Product
from pgrad.math.masks import restrict

BATCH = 5
SIZES = {"categorical": (4,), "multi": (3, 1, 4), "bits": (2, 2, 2), "product": (3, 2, 2, 2, 2)}


def policy(name: str, logits: Tensor) -> Any:
    """A policy whose choices have SIZES[name] values."""
    match name:
        case "categorical":
            return Categorical(logits)
        case "multi":
            return MultiCategorical(logits, SIZES[name])
        case "bits":
            return Bernoulli(logits[..., 1::2] - logits[..., ::2])
        case _:
            noise = torch.zeros(len(logits), 2, dtype=logits.dtype)
            parts = {"b": policy("bits", logits[..., 5:]), "x": Gaussian(noise, noise)}
            return Product({"a": MultiCategorical(logits[..., :5], (3, 2)), **parts})


def actions(name: str) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, SIZES[name])))


def as_action(name: str, action: tuple[int, ...]) -> Any:
    whole = torch.tensor(action).expand(BATCH, -1)
    if name == "product":
        return {"a": whole[:, :2], "b": whole[:, 2:], "x": torch.zeros(BATCH, 2, dtype=torch.float64)}
    return whole[:, 0] if name == "categorical" else whole


def some_masks(name: str, generator: torch.Generator) -> Tensor:
    parts = []
    for n in SIZES[name]:
        part = torch.rand(BATCH, n, generator=generator) < 0.5
        part[torch.arange(BATCH), torch.randint(n, (BATCH,), generator=generator)] = True
        parts.append(part)
    return torch.cat(parts, 1)


def joint(name: str, logits: Tensor, mask: Tensor) -> Tensor:
    """p·1[allowed]/Z of every action by the definition, [BATCH, actions]."""
    columns = []
    for action in actions(name):
        start, weight = 0, torch.ones(BATCH, dtype=logits.dtype)
        for n, a in zip(SIZES[name], action, strict=True):
            part = torch.softmax(logits[:, start : start + n], -1) * mask[:, start : start + n]
            weight = weight * part[:, a] / part.sum(-1)
            start += n
        columns.append(weight)
    return torch.stack(columns, 1)


def plogp(p: Tensor, q: Tensor) -> Tensor:
    return torch.where(p > 0, p * torch.where(q > 0, q, 1.0).log(), 0.0).sum(1)


@pytest.mark.parametrize("name", SIZES)
def test_probabilities_entropy_and_kl(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    shape = (BATCH, sum(SIZES[name]))
    x, y = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = some_masks(name, generator)
    assert not mask.all()
    p, q = joint(name, x, mask), joint(name, y, mask)
    mine, other = restrict(policy(name, x), mask), restrict(policy(name, y), mask)
    shift = policy("product", x).parts["x"] if name == "product" else None
    entropy, density = (shift.entropy(), shift.log_prob(torch.zeros(BATCH, 2))) if shift else (0.0, 0.0)
    for k, action in enumerate(actions(name)):
        logp = mine.log_prob(as_action(name, action)) - density
        torch.testing.assert_close(logp.exp(), p[:, k])
    torch.testing.assert_close(mine.entropy() - entropy, -plogp(p, p))
    torch.testing.assert_close(mine.kl(other), plogp(p, p) - plogp(p, q))


@pytest.mark.parametrize("name", SIZES)
def test_nothing_forbidden_is_ever_chosen_and_nothing_is_learned_about_it(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    mask = some_masks(name, generator)
    x = torch.randn(mask.shape, generator=generator) - 5.0 * mask  # what is forbidden would be preferred
    x.requires_grad_()
    whole = policy(name, x)
    part = restrict(whole, mask)
    index = {action: k for k, action in enumerate(actions(name))}
    possible = joint(name, x.detach().double(), mask) > 0
    for _ in range(50):
        for action in (part.sample(generator), part.mode):
            rows = (
                torch.cat([action["a"], action["b"]], 1) if name == "product" else action.reshape(BATCH, -1)
            )
            assert all(possible[b, index[tuple(row)]] for b, row in enumerate(rows.tolist()))
            logp = part.log_prob(action)
    (logp + part.entropy() + part.kl(restrict(policy(name, x.detach() + 1.0), mask))).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad.abs() > 1e-3).any()
    if name != "bits" and name != "product":  # a bit's logit is the difference of two
        assert (x.grad[~mask] == 0.0).all()


def test_allowing_everything_changes_nothing() -> None:
    x = torch.randn(BATCH, 8, generator=torch.Generator().manual_seed(3))
    whole = MultiCategorical(x, (3, 1, 4))
    assert torch.equal(restrict(whole, torch.ones(BATCH, 8, dtype=torch.bool)).logits, x)
    gaussian = Gaussian(x, x)
    assert restrict(gaussian, torch.ones(BATCH, 0, dtype=torch.bool)) is gaussian
