"""What every distribution owes; then Categorical: definition, scores, samples, masks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pgrad.data import map_tree
from pgrad.math.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Gaussian,
    MultiCategorical,
    Product,
    TanhGaussian,
)

F64 = torch.float64
SHAPES = pytest.mark.parametrize("shape", [(), (5,), (4, 3)], ids=["scalar", "B", "TB"])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=F64)


def examples(batch: tuple[int, ...], seed: int = 0) -> dict[str, Distribution]:
    """One distribution of every family, in float64."""
    box = {"low": torch.full((*batch, 2), -2.0, dtype=F64), "high": torch.full((*batch, 2), 1.0, dtype=F64)}
    choice, real = (
        Categorical(normal(*batch, 4, seed=seed)),
        Gaussian(normal(*batch, 2, seed=seed + 1), 0.3 * normal(*batch, 2, seed=seed + 2)),
    )
    return {
        "categorical": choice,
        "masked": Categorical.masked(
            choice.logits, torch.tensor([True, False, True, True]).expand(*batch, 4)
        ),
        "multi": MultiCategorical(normal(*batch, 9, seed=seed + 3), (2, 4, 3)),
        "equal": MultiCategorical(normal(*batch, 6, seed=seed + 4), (3, 3)),
        "bits": Bernoulli(normal(*batch, 3, seed=seed + 5)),
        "gaussian": real,
        "tanh": TanhGaussian(real.mean, real.log_std, **box),
        "dict": Product({"choice": choice, "real": real}),
        "nested": Product((choice, Product({"real": real}))),
    }


def chi_square(count: Tensor, probability: Tensor) -> None:
    """The sum of squared deviations lies within five standard deviations of its mean."""
    expected = count.sum() * probability
    df = probability.numel() - 1
    assert ((count - expected) ** 2 / expected).sum().item() < df + 5 * math.sqrt(2 * df)


# ---------------------------------------------------------------- what every family owes


@SHAPES
@pytest.mark.parametrize("name", list(examples(())))
def test_shapes_and_the_mode_is_an_action(name, shape):
    policy, other = examples(shape)[name], examples(shape, seed=9)[name]
    assert isinstance(policy, Distribution)
    action = policy.sample(rng())
    map_tree(
        lambda a, m: (a.shape, a.dtype) == (m.shape, m.dtype) or pytest.fail("mode"), action, policy.mode
    )
    for x in (policy.log_prob(action), policy.log_prob(policy.mode), policy.entropy(), policy.kl(other)):
        assert x.shape == shape
        assert x.dtype == F64
        assert x.isfinite().all()
    torch.testing.assert_close(policy.kl(policy), torch.zeros(shape, dtype=F64), atol=1e-14, rtol=0)
    assert (policy.kl(other) > 0).all()


@pytest.mark.parametrize("name", list(examples(())))
def test_a_batch_of_distributions_flattens_and_selects_like_its_numbers(name):
    policy = examples((4, 3))[name]
    action = policy.sample(rng())
    flat = map_tree(lambda x: x.flatten(0, 1), (policy, action))
    chosen = map_tree(lambda x: x[torch.tensor([7, 2])], flat)
    assert type(chosen[0]) is type(policy)
    torch.testing.assert_close(
        chosen[0].log_prob(chosen[1]), policy.log_prob(action).flatten()[[7, 2]], atol=1e-14, rtol=0
    )


@pytest.mark.parametrize("name", list(examples(())))
def test_sampling_depends_on_its_generator_alone(name):
    policy = map_tree(lambda x: x.requires_grad_() if x.is_floating_point() else x, examples((6,))[name])
    state = torch.get_rng_state()
    first, again, other = (policy.sample(rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert not policy.log_prob(first).equal(policy.log_prob(other))
    assert policy.log_prob(first).equal(policy.log_prob(again))
    map_tree(lambda x: x.requires_grad and pytest.fail("a sample carries a gradient"), first)


@pytest.mark.parametrize("name", list(examples(())))
def test_entropy_is_the_mean_of_minus_log_prob(name):
    policy = map_tree(lambda x: x.expand(40_000, *x.shape), examples(())[name])
    surprise = -policy.log_prob(policy.sample(rng(3)))
    error = (surprise.std() / math.sqrt(len(surprise))).item()
    assert surprise.mean().item() == pytest.approx(policy.entropy()[0].item(), abs=4 * error)


@pytest.mark.parametrize("name", list(examples(())))
def test_kl_is_the_mean_log_ratio(name):
    policy, other = (map_tree(lambda x: x.expand(40_000, *x.shape), examples((), s)[name]) for s in (0, 9))
    action = policy.sample(rng(4))
    ratio = policy.log_prob(action) - other.log_prob(action)
    error = (ratio.std() / math.sqrt(len(ratio))).item()
    assert ratio.mean().item() == pytest.approx(policy.kl(other)[0].item(), abs=4 * error)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", [x for x in examples(()) if x != "masked"])
def test_log_probabilities_are_float32_at_least(name, dtype):
    def cast(x: Tensor) -> Tensor:
        return x.to(dtype) if x.is_floating_point() else x

    half, other = map_tree(cast, examples((6,))[name]), map_tree(cast, examples((6,), 9)[name])
    full, full_other = (map_tree(lambda x: x.float(), d) for d in (half, other))
    action = half.sample(rng())
    results = [half.log_prob(action), half.entropy(), half.kl(other)]
    expected = [full.log_prob(action), full.entropy(), full.kl(full_other)]
    assert all(x.dtype == torch.float32 and x.isfinite().all() for x in results)
    torch.testing.assert_close(results, expected)


def test_compiles_whole(shipped):
    d = shipped.distributions

    def numbers(x: Tensor, y: Tensor, mask: Tensor, choice: Tensor, bits: Tensor) -> list[Tensor]:
        one, wide = torch.ones_like(x), x.repeat(1, 2)
        pairs = [
            (d.Categorical.masked(x, mask), d.Categorical.masked(y, mask), choice[:, 0]),
            (d.MultiCategorical(wide, (3, 5)), d.MultiCategorical(y.repeat(1, 2), (3, 5)), choice),
            (d.MultiCategorical(wide, (4, 4)), d.MultiCategorical(y.repeat(1, 2), (4, 4)), choice),
            (d.Bernoulli(x), d.Bernoulli(y), bits),
            (d.Gaussian(x, 0.1 * y), d.Gaussian(y, 0.1 * x), x + y),
            (d.TanhGaussian(x, 0.1 * y, -one, one), d.TanhGaussian(y, 0.1 * x, -one, one), 0.5 * y.tanh()),
        ]
        pairs.append((d.Product({"a": pairs[0][0]}), d.Product({"a": pairs[0][1]}), {"a": choice[:, 0]}))
        return [z for p, q, a in pairs for z in (p.log_prob(a), p.entropy(), p.kl(q))]

    inputs = (
        normal(6, 4),
        normal(6, 4, seed=1),
        torch.tensor([True, True, False, True]).repeat(6, 1),
        torch.tensor([[0, 1]]).repeat(6, 1),
        torch.tensor([[0, 1, 1, 0]]).repeat(6, 1),
    )
    torch.compiler.reset()
    compiled = torch.compile(numbers, fullgraph=True, backend="eager")(*inputs)
    torch.testing.assert_close(compiled, numbers(*inputs))


# ---------------------------------------------------------------- Categorical


@given(
    st.lists(st.floats(-40, 40), min_size=1, max_size=6), st.lists(st.floats(-40, 40), min_size=6, max_size=6)
)
def test_categorical_is_its_definition(logits, others):
    others = others[: len(logits)]
    p, q = ([math.exp(x) / sum(math.exp(y) for y in z) for x in z] for z in (logits, others))
    policy, other = (Categorical(torch.tensor(z, dtype=F64)) for z in (logits, others))
    logp = [policy.log_prob(torch.tensor(a)).item() for a in range(len(logits))]
    assert sum(map(math.exp, logp)) == pytest.approx(1, abs=1e-12)
    assert logp == pytest.approx([math.log(x) for x in p], abs=1e-9)
    assert policy.entropy().item() == pytest.approx(-sum(x * math.log(x) for x in p), abs=1e-9)
    assert -1e-12 <= policy.entropy().item() <= math.log(len(logits)) + 1e-12
    expected = sum(x * (math.log(x) - math.log(y)) for x, y in zip(p, q, strict=True))
    assert policy.kl(other).item() == pytest.approx(expected, abs=1e-9)
    assert policy.mode.item() == max(range(len(p)), key=lambda a: logits[a])


def test_categorical_score_is_onehot_minus_probability_and_has_mean_zero():
    logits = normal(5).requires_grad_()
    policy = Categorical(logits)
    probability = torch.softmax(logits.detach(), -1)
    mean = torch.zeros(5, dtype=F64)
    for a in range(5):
        (score,) = torch.autograd.grad(policy.log_prob(torch.tensor(a)), logits, retain_graph=True)
        torch.testing.assert_close(score, torch.eye(5, dtype=F64)[a] - probability, atol=1e-15, rtol=0)
        mean += probability[a] * score
    assert mean.abs().max() < 1e-15


def test_entropy_gradient_climbs_entropy():
    logits = normal(5).requires_grad_()
    (gradient,) = torch.autograd.grad(Categorical(logits).entropy(), logits)
    numeric = torch.stack(
        [
            (Categorical(logits + e).entropy() - Categorical(logits - e).entropy()) / 2e-6
            for e in 1e-6 * torch.eye(5, dtype=F64)
        ]
    )
    torch.testing.assert_close(gradient, numeric.detach(), atol=1e-9, rtol=0)
    assert Categorical(logits + 0.1 * gradient).entropy() > Categorical(logits).entropy() + 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_categorical_samples_have_their_probabilities(dtype):
    logits = torch.tensor([0.0, -3.0, 1.0, 2.0, -6.0], dtype=dtype)
    draws = Categorical(logits.expand(200_000, 5)).sample(rng(1))
    chi_square(draws.bincount(minlength=5).double(), torch.softmax(logits, -1).double())
    assert draws.dtype == torch.int64


def test_masked_actions_do_not_exist():
    """Same numbers as the smaller categorical, probability exactly 0, no gradient, never drawn."""
    logits = normal(7, 6).requires_grad_()
    mask = torch.rand(7, 6, generator=rng(2)) < 0.5
    mask[:, 3] = True
    policy = Categorical.masked(logits, mask)
    other = Categorical.masked(normal(7, 6, seed=5), mask)
    for i in range(7):
        keep = mask[i].nonzero()[:, 0]
        small, small_other = Categorical(logits[i, keep]), Categorical(other.logits[i, keep])
        torch.testing.assert_close(policy.entropy()[i], small.entropy())
        torch.testing.assert_close(policy.kl(other)[i], small.kl(small_other))
        for j, a in enumerate(keep):
            one = policy.log_prob(torch.full((7,), int(a)))[i]
            torch.testing.assert_close(one, small.log_prob(torch.tensor(j)))
        assert keep[small.mode] == policy.mode[i]
    for a in range(6):
        assert (policy.log_prob(torch.full((7,), a)).exp()[~mask[:, a]] == 0).all()
    (policy.entropy() + policy.kl(other) + policy.log_prob(policy.mode)).sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[~mask] == 0).all()
    draws = map_tree(lambda x: x.expand(5000, 7, 6), policy).sample(rng(3))
    assert mask.expand(5000, 7, 6).gather(-1, draws[..., None]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_masks_work_in_every_precision(dtype):
    logits, others = (x.to(dtype) for x in (normal(7, 4), normal(7, 4, seed=1)))
    mask = torch.tensor([True, False, True, False]).expand(7, 4)
    policy, other = Categorical.masked(logits, mask), Categorical.masked(others, mask)
    small, small_other = Categorical(logits[:, [0, 2]]), Categorical(others[:, [0, 2]])
    torch.testing.assert_close(policy.entropy(), small.entropy())
    torch.testing.assert_close(policy.kl(other), small.kl(small_other))
    assert (policy.log_prob(torch.full((7,), 3)).exp() == 0).all()
    everything = Categorical(logits)
    assert everything.kl(policy).isfinite().all()
    assert (everything.kl(policy) > 1e3).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_masks_hold_whatever_the_noise(monkeypatch, dtype):
    """An exponential draw of exactly 0, which torch may return, must not reach a forbidden action."""
    monkeypatch.setattr(Tensor, "exponential_", lambda self, generator: self.zero_())
    logits = torch.tensor([9.0, -3e4, -4e4], dtype=dtype)
    policy = Categorical.masked(logits, torch.tensor([False, True, True]))
    assert policy.sample(rng()).item() == 1
    assert policy.log_prob(torch.tensor(1)).item() == 0
    parts = MultiCategorical(torch.tensor([-50.0, -60.0, -70.0, 1.0, -10.0], dtype=dtype), (2, 3))
    assert parts.sample(rng()).tolist() == [0, 1]
