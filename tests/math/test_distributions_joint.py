"""Distributions made of several: MultiCategorical, Bernoulli bits, and products in dicts and tuples."""

import math

import pytest
import torch
from torch import Tensor

from pgrad.math.distributions import Bernoulli, Categorical, Gaussian, MultiCategorical, Product

F64 = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=F64)


def chi_square(count: Tensor, probability: Tensor) -> None:
    """The sum of squared deviations lies within five standard deviations of its mean."""
    expected = count.sum() * probability
    df = probability.numel() - 1
    assert ((count - expected) ** 2 / expected).sum().item() < df + 5 * math.sqrt(2 * df)


@pytest.mark.parametrize("nvec", [(3,), (2, 2), (2, 5, 1, 3)])
def test_multi_categorical_is_its_parts(nvec):
    logits, others = normal(6, sum(nvec)), normal(6, sum(nvec), seed=1)
    policy, other = MultiCategorical(logits, nvec), MultiCategorical(others, nvec)
    parts, other_parts = ([Categorical(x) for x in z.split(nvec, -1)] for z in (logits, others))
    action = torch.stack([torch.randint(n, (6,), generator=rng(n)) for n in nvec], -1)
    torch.testing.assert_close(
        policy.log_prob(action), sum(p.log_prob(a) for p, a in zip(parts, action.unbind(-1), strict=True))
    )
    torch.testing.assert_close(policy.entropy(), sum(p.entropy() for p in parts))
    torch.testing.assert_close(
        policy.kl(other), sum(p.kl(q) for p, q in zip(parts, other_parts, strict=True))
    )
    assert torch.equal(policy.mode, torch.stack([p.mode for p in parts], -1))


def test_multi_categorical_samples_parts_independently_and_in_range():
    nvec = (2, 3)
    policy = MultiCategorical(torch.tensor([0.4, 0.0, -1.0, 0.5, 1.0]).expand(200_000, 5), nvec)
    draws = policy.sample(rng(1))
    joint = (draws[:, 0] * 3 + draws[:, 1]).bincount(minlength=6).double()
    first, second = torch.softmax(policy.logits[0, :2], -1), torch.softmax(policy.logits[0, 2:], -1)
    chi_square(joint, torch.outer(first, second).flatten().double())
    assert (draws < torch.tensor(nvec)).all()


def test_multi_categorical_masks():
    mask = torch.tensor([True, False, False, True, True])
    policy = MultiCategorical.masked(normal(1000, 5), mask.expand(1000, 5), (2, 3))
    draws = policy.sample(rng())
    assert (draws[:, 0] == 0).all()
    assert set(draws[:, 1].tolist()) == {1, 2}
    small = Categorical(policy.logits[:, 3:])
    torch.testing.assert_close(policy.log_prob(draws), small.log_prob(draws[:, 1] - 1))
    torch.testing.assert_close(policy.entropy(), small.entropy())


def test_bernoulli_agrees_with_torch_and_normalises():
    logits, others = 4 * normal(6, 3), 4 * normal(6, 3, seed=1)
    policy, other = Bernoulli(logits), Bernoulli(others)
    oracle, oracle_other = (torch.distributions.Bernoulli(logits=x) for x in (logits, others))
    actions = torch.cartesian_prod(*[torch.arange(2)] * 3)
    total = sum(policy.log_prob(a.expand(6, 3)).exp() for a in actions)
    torch.testing.assert_close(total, torch.ones(6, dtype=F64))
    bits = policy.sample(rng())
    torch.testing.assert_close(policy.log_prob(bits), oracle.log_prob(bits.double()).sum(-1))
    torch.testing.assert_close(policy.log_prob(bits.to(torch.int8)), policy.log_prob(bits))
    torch.testing.assert_close(policy.entropy(), oracle.entropy().sum(-1))
    torch.testing.assert_close(
        policy.kl(other), torch.distributions.kl_divergence(oracle, oracle_other).sum(-1)
    )
    assert torch.equal(policy.mode, (torch.sigmoid(logits) > 0.5).long())


def test_bernoulli_at_extremes():
    policy = Bernoulli(torch.tensor([[200.0, -200.0], [25.0, -25.0]]))
    assert policy.log_prob(torch.tensor([[1, 0], [1, 0]])).abs().max() < 1e-10
    assert policy.log_prob(torch.tensor([[0, 1], [0, 1]])).tolist() == [-400.0, -50.0]
    tiny = 2 * 26 * math.exp(-25)
    assert policy.entropy().tolist() == pytest.approx([0.0, tiny], rel=1e-5)
    assert policy.kl(Bernoulli(-policy.logits))[0].item() == 400.0
    draws = Bernoulli(torch.tensor([200.0, -200.0]).expand(1000, 2)).sample(rng())
    assert torch.equal(draws, torch.tensor([1, 0]).expand(1000, 2))


def test_bernoulli_samples_have_their_probabilities():
    logits = torch.tensor([0.3, -2.0])
    draws = Bernoulli(logits.expand(100_000, 2)).sample(rng(1))
    p, q = torch.sigmoid(logits).double()
    expected = torch.stack([(1 - p) * (1 - q), (1 - p) * q, p * (1 - q), p * q])
    chi_square((2 * draws[:, 0] + draws[:, 1]).bincount(minlength=4).double(), expected)


# ---------------------------------------------------------------- Product


def test_product_is_the_sum_of_its_parts_in_their_structure():
    parts = {"b": Categorical(normal(5, 3)), "a": Gaussian(normal(5, 2), 0.1 * normal(5, 2, seed=1))}
    others = {"a": Gaussian(normal(5, 2, seed=3), 0 * normal(5, 2)), "b": Categorical(normal(5, 3, seed=2))}
    policy, other = Product(parts), Product(others)
    action = policy.sample(rng())
    assert list(action) == ["b", "a"]
    generator = rng()
    for name in ("b", "a"):
        assert torch.equal(action[name], parts[name].sample(generator))
        assert torch.equal(policy.mode[name], parts[name].mode)
    backwards = {"a": action["a"], "b": action["b"]}
    expected = parts["a"].log_prob(action["a"]) + parts["b"].log_prob(action["b"])
    torch.testing.assert_close(policy.log_prob(backwards), expected)
    torch.testing.assert_close(policy.entropy(), parts["a"].entropy() + parts["b"].entropy())
    torch.testing.assert_close(policy.kl(other), parts["a"].kl(others["a"]) + parts["b"].kl(others["b"]))


def test_product_of_products():
    a, b, c = Categorical(normal(4, 2)), Bernoulli(normal(4, 3)), Categorical(normal(4, 5))
    policy = Product((a, Product({"b": b, "c": c})))
    action = policy.sample(rng())
    assert isinstance(action, tuple)
    expected = a.log_prob(action[0]) + b.log_prob(action[1]["b"]) + c.log_prob(action[1]["c"])
    torch.testing.assert_close(policy.log_prob(action), expected)
