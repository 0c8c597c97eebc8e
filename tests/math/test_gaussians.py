"""Gaussian policies: the notes' numbers, integrals done numerically, and the Jacobian of the squashed one."""

import math

import pytest
import torch
from torch import Tensor

from pgrad.math.distributions import Gaussian, TanhGaussian

F64 = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=F64)


def gaussian(mean: float, std: float, d: int = 1) -> Gaussian:
    return Gaussian(torch.full((d,), mean, dtype=F64), torch.full((d,), math.log(std), dtype=F64))


def tanh(mean: float, std: float, low: float = -1.0, high: float = 1.0) -> TanhGaussian:
    return TanhGaussian(*(torch.tensor([x], dtype=F64) for x in (mean, math.log(std), low, high)))


def on(policy: Gaussian | TanhGaussian, action: Tensor) -> Tensor:
    """log_prob of many one-dimensional actions under one policy."""
    fields = {name: x.expand(len(action), 1) for name, x in vars(policy).items()}
    return type(policy)(**fields).log_prob(action[:, None])


# ---------------------------------------------------------------- Gaussian


def test_score_of_the_mean():
    """μ = .3, σ = .7, a = 1.1: (a − μ)/σ² = 1.632653."""
    mean = torch.tensor([0.3], dtype=F64, requires_grad=True)
    logp = Gaussian(mean, torch.tensor([math.log(0.7)], dtype=F64)).log_prob(torch.tensor([1.1], dtype=F64))
    assert torch.autograd.grad(logp, mean)[0].item() == pytest.approx(1.632653, abs=5e-7)


def test_score_of_a_learned_spread():
    """∂/∂log σ = (a − μ)²/σ² − 1 = .306122."""
    log_std = torch.tensor([math.log(0.7)], dtype=F64, requires_grad=True)
    logp = Gaussian(torch.tensor([0.3], dtype=F64), log_std).log_prob(torch.tensor([1.1], dtype=F64))
    assert torch.autograd.grad(logp, log_std)[0].item() == pytest.approx(0.306122, abs=5e-7)


@pytest.mark.parametrize(("d", "constant"), [(1, -0.5623), (2, -1.1245), (6, -3.3736)])
def test_constant_counts_every_dimension(d, constant):
    """log N(μ; μ, σ²I) with σ = .7: the notes' scalar constant is right only for d = 1."""
    at_mean = gaussian(0.3, 0.7, d).log_prob(torch.full((d,), 0.3, dtype=F64)).item()
    assert at_mean == pytest.approx(constant, abs=5e-5)


def test_gaussian_agrees_with_torch():
    mean, log_std, action = normal(7, 3), normal(7, 3, seed=1), normal(7, 3, seed=2)
    policy, other = Gaussian(mean, log_std), Gaussian(action, 0.5 * mean)
    oracle = torch.distributions.Normal(mean, log_std.exp())
    oracle_other = torch.distributions.Normal(action, (0.5 * mean).exp())
    torch.testing.assert_close(policy.log_prob(action), oracle.log_prob(action).sum(-1))
    torch.testing.assert_close(policy.entropy(), oracle.entropy().sum(-1))
    expected = torch.distributions.kl_divergence(oracle, oracle_other).sum(-1)
    torch.testing.assert_close(policy.kl(other), expected)


@pytest.mark.parametrize("std", [0.05, 0.7, 3.0])
def test_gaussian_integrals(std):
    """Mass 1, mean score 0, Fisher information 1/σ² and 2, entropy: by the trapezoidal rule."""
    a = torch.linspace(0.3 - 10 * std, 0.3 + 10 * std, 4001, dtype=F64)
    mean = torch.full((len(a), 1), 0.3, dtype=F64, requires_grad=True)
    log_std = torch.full((len(a), 1), math.log(std), dtype=F64, requires_grad=True)
    logp = Gaussian(mean, log_std).log_prob(a[:, None])
    scores = [x[:, 0] for x in torch.autograd.grad(logp.sum(), (mean, log_std))]
    density = logp.detach().exp()
    assert torch.trapezoid(density, a).item() == pytest.approx(1, abs=1e-12)
    for score, information in zip(scores, (std**-2, 2.0), strict=True):
        assert torch.trapezoid(density * score, a).item() == pytest.approx(0, abs=1e-10)
        assert torch.trapezoid(density * score**2, a).item() == pytest.approx(information, rel=1e-10)
    surprise = -torch.trapezoid(density * logp.detach(), a).item()
    assert surprise == pytest.approx(gaussian(0.3, std).entropy().item(), abs=1e-10)


@pytest.mark.parametrize(
    ("std", "variance", "pathwise"), [(1.0, 22.1, 4.0), (0.5, 11.6, 1.0), (0.1, 31.0, 0.04)]
)
def test_score_function_explodes_as_the_policy_narrows(std, variance, pathwise):
    """Q(a) = (a − 1)², μ = .3: the variance of score·Q has a minimum in σ, the pathwise gradient's falls."""
    e = torch.linspace(-10, 10, 4001, dtype=F64)
    mean = torch.full((len(e), 1), 0.3, dtype=F64, requires_grad=True)
    action = 0.3 + std * e
    logp = Gaussian(mean, torch.full_like(mean, math.log(std))).log_prob(action[:, None])
    score = torch.autograd.grad(logp.sum(), mean)[0][:, 0]
    density = logp.detach().exp() * std

    def moments(x: Tensor) -> tuple[float, float]:
        first = torch.trapezoid(density * x, e)
        return first.item(), (torch.trapezoid(density * x**2, e) - first**2).item()

    q = (action - 1) ** 2
    assert moments(score * q) == pytest.approx((-1.4, variance), abs=0.05)
    assert moments(2 * (action - 1)) == pytest.approx((-1.4, pathwise), abs=1e-6)


def test_gaussian_samples_have_their_moments():
    policy = Gaussian(
        torch.tensor([1.0, -2.0]).expand(100_000, 2), torch.tensor([0.0, -1.0]).expand(100_000, 2)
    )
    z = (policy.sample(rng(1)) - policy.mean) / policy.log_std.exp()
    assert z.mean(0).abs().max() < 4 / math.sqrt(100_000)
    assert (z.square().mean(0) - 1).abs().max() < 4 * math.sqrt(2 / 100_000)
    assert (z[:, 0] * z[:, 1]).mean().abs() < 4 / math.sqrt(100_000)
    assert (z.abs() < 1).float().mean().item() == pytest.approx(0.6827, abs=0.005)


# ---------------------------------------------------------------- TanhGaussian


SQUASHED = pytest.mark.parametrize(
    ("mean", "std", "low", "high"),
    [(0.3, 0.7, -1, 1), (-0.5, 0.4, 2, 2.5), (0.1, 1.0, -20, 60), (1.5, 0.3, -3, 1)],
)


def grid(low: float, high: float) -> tuple[Tensor, Tensor]:
    """Actions that crowd towards the bounds, and their weights in an integral over (low, high)."""
    u = torch.linspace(-7.5, 7.5, 20_001, dtype=F64)
    action = low + (high - low) * torch.sigmoid(2 * u)
    weight = (u[1] - u[0]) * 2 * (high - low) * torch.sigmoid(2 * u) * torch.sigmoid(-2 * u)
    return action, weight


@SQUASHED
def test_squashed_density_integrates_to_one(mean, std, low, high):
    action, weight = grid(low, high)
    policy = tanh(mean, std, low, high)
    density = on(policy, action).exp()
    assert (density * weight).sum().item() == pytest.approx(1, abs=1e-6)
    inside = torch.linspace(low, high, 200_001, dtype=F64)[1:-1]  # and on a plain grid
    assert torch.trapezoid(on(policy, inside).exp(), inside).item() == pytest.approx(1, abs=1e-4)
    uniform = -(density * density.log() * weight)[density > 0].sum().item()
    assert policy.entropy().item() == pytest.approx(uniform, abs=1e-6)
    assert policy.entropy().item() <= math.log(high - low) + 1e-9


def test_density_without_its_jacobian_loses_mass():
    """∫ N(atanh a) da = E[1 − tanh²u] = .70 at μ = .3, σ = .7; leaving out the interval is wrong again."""
    action, weight = grid(-1, 1)
    naive = on(gaussian(0.3, 0.7), torch.atanh(action)).exp()
    assert (naive * weight).sum().item() == pytest.approx(0.7006, abs=1e-4)
    action, weight = grid(-2, 2)
    half_right = on(tanh(0.3, 0.7), action / 2).exp()
    assert (half_right * weight).sum().item() == pytest.approx(2, abs=1e-5)


@SQUASHED
def test_squashed_log_prob_is_the_change_of_variables(mean, std, low, high):
    u = torch.linspace(-3, 3, 13, dtype=F64)
    action = low + (high - low) * (torch.tanh(u) + 1) / 2
    slope = (high - low) / 2 * (1 - torch.tanh(u) ** 2)
    expected = on(gaussian(mean, std), u) - slope.log()
    torch.testing.assert_close(on(tanh(mean, std, low, high), action), expected, atol=1e-9, rtol=1e-9)


def example(dtype: torch.dtype = F64, requires_grad: bool = False) -> TanhGaussian:
    mean, log_std = normal(500, 3).to(dtype), (0.3 * normal(500, 3, seed=1)).to(dtype)
    low = torch.tensor([-1.0, 0.0, -3.0], dtype=dtype).expand(500, 3)
    high = torch.tensor([1.0, 5.0, -2.0], dtype=dtype).expand(500, 3)
    return TanhGaussian(mean.requires_grad_(requires_grad), log_std.requires_grad_(requires_grad), low, high)


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-8), (torch.float32, 5e-2)])
def test_rsample_gives_the_density_of_its_action(dtype, tolerance):
    policy = example(dtype)
    action, logp = policy.rsample(rng())
    assert torch.equal(action, policy.sample(rng()))
    torch.testing.assert_close(policy.log_prob(action), logp, atol=tolerance, rtol=tolerance)
    assert torch.equal(policy.mode, policy._squash(policy.mean))


def test_rsample_gradients_are_those_of_the_path():
    policy = example(requires_grad=True)
    weight = normal(500, 3, seed=4)

    def loss(mean: Tensor, log_std: Tensor) -> Tensor:
        action, logp = TanhGaussian(mean, log_std, policy.low, policy.high).rsample(rng())
        return (action * weight).sum() + 0.7 * logp.sum()

    gradients = torch.autograd.grad(loss(policy.mean, policy.log_std), (policy.mean, policy.log_std))
    direction = [normal(500, 3, seed=s) for s in (5, 6)]
    ends = [
        loss(*(x.detach() + h * d for x, d in zip((policy.mean, policy.log_std), direction, strict=True)))
        for h in (1e-6, -1e-6)
    ]
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
    assert slope.item() == pytest.approx(((ends[0] - ends[1]) / 2e-6).item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("mean", [-60.0, -6.0, 6.0, 60.0])
def test_saturated_actions_stay_in_bounds_and_finite(dtype, mean):
    low = torch.tensor([-3.2, -0.3], dtype=dtype).expand(999, 2)
    high = torch.tensor([1.6, 5.1], dtype=dtype).expand(999, 2)  # -3.2 + (1.6 - -3.2) > 1.6 in float32
    at = torch.full((999, 2), mean, dtype=dtype, requires_grad=True)
    policy = TanhGaussian(at, torch.zeros_like(at), low, high)
    action, logp = policy.rsample(rng())
    assert (action >= low).all()
    assert (action <= high).all()
    assert logp.isfinite().all()
    assert policy.log_prob(action.detach()).isfinite().all()
    assert policy.entropy().isfinite().all()
    (gradient,) = torch.autograd.grad(logp.sum() + action.sum(), at)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("std", "tolerance"), [(0.05, 1e-9), (1.0, 1e-9), (3.0, 1e-6), (8.0, 1e-3)])
@pytest.mark.parametrize("mean", [0.0, 1.3, -4.0])
def test_entropy_quadrature(mean, std, tolerance):
    """Against a hundred times finer grid."""
    e = torch.linspace(-10, 10, 160_001, dtype=F64)
    weight = torch.exp(-e.square() / 2) / math.sqrt(2 * math.pi) * (e[1] - e[0])
    u = mean + std * e
    slope = math.log(3.0) + 2 * (math.log(2) - u.abs() - torch.log1p(torch.exp(-2 * u.abs())))
    expected = 0.5 * math.log(2 * math.pi * math.e) + math.log(std) + (weight * slope).sum().item()
    assert tanh(mean, std, 0.0, 6.0).entropy().item() == pytest.approx(expected, abs=tolerance)


def test_squashing_keeps_divergences():
    action, weight = grid(-2, 4)
    p, q = tanh(0.3, 0.7, -2, 4), tanh(-0.2, 0.9, -2, 4)
    logp, logq = on(p, action), on(q, action)
    numeric = (logp.exp() * (logp - logq) * weight)[logp > -700].sum().item()
    assert p.kl(q).item() == pytest.approx(numeric, abs=1e-6)
    assert p.kl(q).item() == pytest.approx(gaussian(0.3, 0.7).kl(gaussian(-0.2, 0.9)).item(), abs=1e-14)
