"""KL estimators held against exact sums over a three-armed bandit: values, variances and gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cosine_similarity

from pgrad.math import kl
from pgrad.math.distributions import Bernoulli, Categorical, Gaussian

# The notes' laboratory: current policy, reference, and the older policy that sampled.
PI = torch.tensor([0.0, -0.7, 0.7], dtype=torch.float64)
REF = torch.log_softmax(torch.tensor([0.0, -0.5, -0.8], dtype=torch.float64), 0)
OLD = torch.log_softmax(torch.tensor([0.0, -0.1, 0.5], dtype=torch.float64), 0)

TRUE_KL = 0.297184
REVERSE = torch.tensor([-0.23707, -0.14602, 0.38309], dtype=torch.float64)  # ∇KL(π‖ref) in the logits
FORWARD = torch.tensor([-0.20154, -0.15356, 0.35510], dtype=torch.float64)  # ∇KL(ref‖π)


def expectation(estimator, samples_from: Tensor | None = None) -> tuple[float, float, Tensor]:
    """Mean, standard deviation and E[∇estimator] over actions of `samples_from` (π itself by default)."""
    logits = PI.clone().requires_grad_()
    logp = torch.log_softmax(logits, 0)
    weight = (logp if samples_from is None else samples_from).detach().exp()
    x = estimator(logp)
    (gradient,) = torch.autograd.grad((weight * x).sum(), logits)
    mean = (weight * x).sum().item()
    return mean, math.sqrt((weight * x**2).sum().item() - mean**2), gradient


def k1(logp: Tensor) -> Tensor:
    return kl.k1(logp, REF)


def k2(logp: Tensor) -> Tensor:
    return kl.k2(logp, REF)


def k3(logp: Tensor) -> Tensor:
    return kl.k3(logp, REF)


def corrected(logp: Tensor) -> Tensor:
    return kl.k3_corrected(logp, REF, OLD)


def exact_gradients() -> tuple[Tensor, Tensor]:
    logits = PI.clone().requires_grad_()
    pi, ref = Categorical(logits), Categorical(REF)
    (reverse,) = torch.autograd.grad(kl.exact(pi, ref), logits)
    (forward,) = torch.autograd.grad(kl.exact(ref, pi), logits)
    return reverse, forward


def test_exact_kl_is_its_definition():
    pi, ref = torch.softmax(PI, 0).tolist(), REF.exp().tolist()
    brute = sum(p * math.log(p / q) for p, q in zip(pi, ref, strict=True))
    assert kl.exact(Categorical(PI), Categorical(REF)).item() == pytest.approx(brute, abs=1e-14)
    assert brute == pytest.approx(TRUE_KL, abs=1e-6)


@pytest.mark.parametrize(
    ("estimator", "mean", "std"), [(k1, TRUE_KL, 0.777072), (k2, 0.346079, 0.144030), (k3, TRUE_KL, 0.078734)]
)
def test_value_and_spread_on_own_samples(estimator, mean, std):
    assert expectation(estimator)[:2] == pytest.approx((mean, std), abs=1e-6)


@pytest.mark.parametrize(
    ("estimator", "mean"), [(k1, 0.110001), (k2, 0.325077), (k3, 0.298298), (corrected, TRUE_KL)]
)
def test_on_old_samples_only_the_corrected_one_is_unbiased(estimator, mean):
    assert expectation(estimator, OLD)[0] == pytest.approx(mean, abs=1e-6)


def test_gradients_in_expectation():
    reverse, forward = exact_gradients()
    torch.testing.assert_close(reverse, REVERSE, atol=1e-5, rtol=0)
    torch.testing.assert_close(forward, FORWARD, atol=1e-5, rtol=0)
    torch.testing.assert_close(expectation(k1)[2], torch.zeros(3, dtype=torch.float64), atol=1e-15, rtol=0)
    torch.testing.assert_close(expectation(k2)[2], reverse, atol=1e-15, rtol=0)
    torch.testing.assert_close(expectation(k3)[2], forward, atol=1e-15, rtol=0)
    torch.testing.assert_close(expectation(corrected, OLD)[2], reverse, atol=1e-15, rtol=0)


def test_k3_on_old_samples_has_neither_gradient():
    cosine = cosine_similarity(expectation(k3, OLD)[2], exact_gradients()[0], dim=0)
    assert cosine.item() == pytest.approx(0.9589, abs=1e-4)


def test_correction_matters_at_ratio_one():
    """With π_old = π the ratio is 1 and the values agree, but not the gradients."""
    logp = torch.log_softmax(PI, 0)
    plain, weighted = expectation(k3), expectation(lambda x: kl.k3_corrected(x, REF, logp))
    assert weighted[0] == pytest.approx(plain[0], abs=1e-14)
    assert (weighted[2] - plain[2]).abs().max() > 0.02


def test_swapped_ratio_is_not_an_estimator():
    """exp(new − ref) instead of exp(ref − new), with samples from new: a common mistake."""
    logp = torch.log_softmax(PI, 0)
    wrong = (logp.exp() * ((logp - REF).exp() - 1 - (logp - REF))).sum().item()
    assert wrong > 1.2 * TRUE_KL
    assert expectation(k3)[0] == pytest.approx(TRUE_KL, abs=1e-6)


def test_k3_can_be_worse_than_k1():
    pi = torch.tensor([0.999, 0.001], dtype=torch.float64)
    logp, ref = pi.log(), torch.tensor([0.5, 0.5], dtype=torch.float64).log()

    def std(x: Tensor) -> float:
        return ((pi * x**2).sum() - (pi * x).sum() ** 2).sqrt().item()

    assert std(kl.k3(logp, ref)) == pytest.approx(15.57, abs=5e-3)
    assert std(kl.k1(logp, ref)) == pytest.approx(0.218, abs=5e-4)


def test_k3_needs_support():
    """π = (1, 0), ref = (½, ½): only the first action is ever sampled."""
    value = kl.k3(torch.zeros(1, dtype=torch.float64), torch.full((1,), 0.5, dtype=torch.float64).log())
    assert value.item() == pytest.approx(0.1931, abs=5e-5)
    assert math.log(2) == pytest.approx(0.6931, abs=5e-5)  # the true KL


@given(st.floats(-12, 0), st.floats(-12, 0))
def test_k3_is_not_negative_and_zero_only_at_equality(logp, logp_ref):
    x, y = torch.tensor([logp], dtype=torch.float64), torch.tensor([logp_ref], dtype=torch.float64)
    ratio = math.exp(logp_ref - logp)
    assert kl.k3(x, y).item() == pytest.approx(ratio - 1 - (logp_ref - logp), rel=1e-9, abs=1e-13)
    assert kl.k3(x, y).item() >= -1e-15
    if abs(logp - logp_ref) > 1e-3:
        assert kl.k3(x, y).item() > 1e-7


def test_penalty_is_flat_where_policy_is_the_reference():
    for estimator in (kl.k2, kl.k3):
        logp = REF.clone().requires_grad_()
        value = estimator(logp, REF)
        (gradient,) = torch.autograd.grad(value.sum(), logp)
        assert value.abs().max() == 0
        assert gradient.abs().max() == 0


@pytest.mark.parametrize("estimator", [k2, k3, corrected])
def test_one_step_down_the_penalty_brings_the_policies_nearer(estimator):
    gradient = expectation(estimator, OLD if estimator is corrected else None)[2]
    after = kl.exact(Categorical(PI - 0.1 * gradient), Categorical(REF)).item()
    assert after < TRUE_KL - 0.005


def test_approx_kl_is_the_metric_of_the_policy_that_acted():
    logits = PI.clone().requires_grad_()
    logp = torch.log_softmax(logits, 0)
    metric = kl.approx_kl(logp, OLD)
    ratio = (logp - OLD).exp()
    torch.testing.assert_close(metric, (ratio - 1) - ratio.log(), atol=1e-14, rtol=0)
    truth = kl.exact(Categorical(OLD), Categorical(logits))
    assert (OLD.exp() * metric).sum().item() == pytest.approx(truth.item(), abs=1e-14)
    assert truth.item() != pytest.approx(kl.exact(Categorical(PI), Categorical(OLD)).item(), abs=1e-3)
    (mine,) = torch.autograd.grad((OLD.exp() * metric).sum(), logits, retain_graph=True)
    (exact,) = torch.autograd.grad(truth, logits)
    torch.testing.assert_close(mine, exact, atol=1e-15, rtol=0)


def test_small_divergences_survive_float32():
    """(r − 1) − log r by exp loses everything at |log r| = 1e-4; by expm1 it does not."""
    logp, old = torch.tensor([-1.0]), torch.tensor([-1.0001])
    difference = (logp.double() - old.double()).item()
    assert kl.approx_kl(logp, old).item() == pytest.approx(difference**2 / 2, rel=5e-3)


def test_reference_and_old_policies_get_no_gradient():
    logp, ref, old = (x.clone().requires_grad_() for x in (REF, REF - 0.1, OLD))
    total = kl.k1(logp, ref) + kl.k2(logp, ref) + kl.k3(logp, ref) + kl.k3_corrected(logp, ref, old)
    (total + kl.approx_kl(logp, old)).sum().backward()
    assert logp.grad is not None
    assert ref.grad is None
    assert old.grad is None


def test_optimum_of_the_penalised_bandit():
    """argmax E_π[A] − β KL(π‖π_old) is π_old·exp(A/β)/Z."""
    advantage, beta = torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64), 0.5
    logits = (OLD + advantage / beta).requires_grad_()

    def objective(x: Tensor) -> Tensor:
        return (torch.softmax(x, 0) * advantage).sum() - beta * kl.exact(Categorical(x), Categorical(OLD))

    (gradient,) = torch.autograd.grad(objective(logits), logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-15, rtol=0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        other = logits.detach() + 0.3 * torch.randn(3, generator=generator, dtype=torch.float64)
        assert objective(other) < objective(logits)


@pytest.mark.parametrize("family", ["categorical", "bernoulli", "gaussian"])
def test_curvature_of_kl_is_fisher(family):
    """∇²_θ KL(old‖θ) at θ = old is E[score scoreᵀ], which needs the KL twice differentiable."""
    theta = torch.tensor([0.3, -0.4], dtype=torch.float64)
    build, actions = {
        "categorical": (lambda x: Categorical(torch.cat([x, x.new_zeros(1)])), torch.arange(3).unbind()),
        "bernoulli": (
            lambda x: Bernoulli(x),
            torch.cartesian_prod(torch.arange(2), torch.arange(2)).unbind(),
        ),
        "gaussian": (lambda x: Gaussian(x[:1], x[1:]), None),
    }[family]
    old = build(theta)
    hessian = torch.autograd.functional.hessian(lambda x: kl.exact(old, build(x)), theta)
    if actions is None:
        fisher = torch.diag(torch.stack([torch.exp(-2 * theta[1]), torch.tensor(2.0, dtype=torch.float64)]))
    else:
        fisher = torch.zeros(2, 2, dtype=torch.float64)
        for action in actions:
            x = theta.clone().requires_grad_()
            (score,) = torch.autograd.grad(build(x).log_prob(action), x)
            fisher += old.log_prob(action).exp() * torch.outer(score, score)
    torch.testing.assert_close(hessian, fisher, atol=1e-12, rtol=0)


def test_compiles_whole(shipped):
    def all_of(logp: Tensor, ref: Tensor, old: Tensor) -> Tensor:
        k = shipped.kl
        return k.k1(logp, ref) + k.k2(logp, ref) + k.k3_corrected(logp, ref, old) + k.approx_kl(logp, old)

    compiled = torch.compile(all_of, fullgraph=True, backend="eager")
    logp = torch.log_softmax(PI, 0)
    torch.testing.assert_close(compiled(logp, REF, OLD), all_of(logp, REF, OLD))


# far from the reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [50.0, -50.0, 1e4, -1e4])
def test_no_log_ratio_is_too_large(far: float, dtype: torch.dtype) -> None:
    """Value and gradient are finite, a decision of weight 0 stays 0, and the penalty still pulls back."""
    logp = torch.tensor([-3.0, -3.0], dtype=dtype, requires_grad=True)
    other = logp.detach() + far
    estimators = {
        "k3": lambda: kl.k3(logp, other),
        "k3_corrected": lambda: kl.k3_corrected(logp, other, logp.detach()),
        "k3_corrected, old": lambda: kl.k3_corrected(logp, logp.detach() - 1.0, other),
        "approx_kl": lambda: kl.approx_kl(logp, other),
    }
    for name, estimate in estimators.items():
        x = estimate()
        assert bool(x.isfinite().all()), name
        assert bool((x >= 0).all()), name
        (slope,) = torch.autograd.grad((torch.tensor([1.0, 0.0], dtype=dtype) * x).sum(), logp)
        assert bool(slope.isfinite().all()), name
        assert float(slope[1]) == 0.0, name
        if name == "k3":
            assert float(slope[0]) * far < 0.0, "towards the reference"


def test_up_to_the_bound_nothing_is_changed() -> None:
    """k3 = (r − 1) − log r exactly up to a quarter of what overflows, without a jump or a corner there."""
    assert kl.largest_exponent(torch.float32) == pytest.approx(22.18, abs=0.01)
    largest = kl.largest_exponent(torch.float64)
    log_ratio = torch.linspace(-40.0, largest, 1201, dtype=torch.float64)
    logp = torch.zeros_like(log_ratio, requires_grad=True)
    x = kl.k3(logp, log_ratio)
    assert torch.equal(x.detach(), torch.expm1(log_ratio) - log_ratio)
    (slope,) = torch.autograd.grad(x.sum(), logp)
    torch.testing.assert_close(slope, 1.0 - log_ratio.exp(), rtol=1e-12, atol=1e-12)
    beyond = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    at = torch.tensor([largest - 1e-9, largest + 1e-9], dtype=torch.float64)
    y = kl.k3(beyond, at)
    assert float(y.detach()[1] / y.detach()[0]) == pytest.approx(1.0, abs=1e-8)
    (slope,) = torch.autograd.grad(y.sum(), beyond)
    assert float(slope[1] / slope[0]) == pytest.approx(1.0, abs=1e-8)


def test_the_penalty_in_the_reward_is_a_constant_of_decisions_that_count() -> None:
    logp = torch.tensor([-1.0, -2.0, float("-inf")], requires_grad=True)
    paid = kl.in_reward(logp, torch.tensor([-1.5, -1.0, float("-inf")]), torch.tensor([1.0, 0.5, 0.0]), 0.2)
    torch.testing.assert_close(paid, torch.tensor([-0.1, 0.2, 0.0]))
    assert not paid.requires_grad
