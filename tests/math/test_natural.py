"""Fisher-vector products against dense matrices and differences; conjugate gradients; M-77's numbers."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from pgrad.data import leaves, map_tree
from pgrad.lab import exact
from pgrad.lab.problems import random_problems
from pgrad.math.distributions import Bernoulli, Categorical, Gaussian, MultiCategorical, Product
from pgrad.math.natural import (
    conjugate_gradient,
    fisher_vector_product,
    flat_gradient,
    pulled_back,
    trust_region_scale,
)
from pgrad.math.reduce import mean
from tests.math.oracles import DELTA, THETA_OLD, Lab
from tests.math.outcomes import outcomes

OBS = torch.randn(5, 3, generator=Generator().manual_seed(0), dtype=torch.float64)
MASK = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0], dtype=torch.float64)
ALLOWED = torch.tensor([[True, True, False, True]] * 5)


def gaussian(out: Tensor, log_std: Tensor) -> Gaussian:
    return Gaussian(out, log_std.expand_as(out))


def product(out: Tensor, extra: Tensor) -> Product:
    return Product({"turn": Categorical(out[:, :2]), "push": gaussian(out[:, 2:3], extra)})


# Outputs of the linear layer, numbers beside it, and the policy of both.
POLICIES: dict[str, tuple[int, int, Callable[[Tensor, Tensor], Any]]] = {
    "categorical": (4, 1, lambda out, extra: Categorical(out)),
    "masked categorical": (4, 1, lambda out, extra: Categorical.masked(out, ALLOWED)),
    "Gaussian": (2, 2, gaussian),
    "Gaussian with a σ of the state": (4, 1, lambda out, extra: Gaussian(out[:, :2], out[:, 2:])),
    "MultiCategorical": (5, 1, lambda out, extra: MultiCategorical(out, (2, 3))),
    "Bernoulli": (2, 1, lambda out, extra: Bernoulli(out)),
    "product": (3, 1, product),
}


class Policy:
    """π(·|s) with parameters θ [P]: a linear layer of tanh features, and a few numbers beside it."""

    def __init__(self, name: str) -> None:
        self.n_out, n_extra, self.make = POLICIES[name]
        draw = Generator().manual_seed(1)
        weight = torch.randn(3, self.n_out, generator=draw, dtype=torch.float64)
        extra = 0.3 * torch.randn(n_extra, generator=draw, dtype=torch.float64)
        self.parameters = [weight.requires_grad_(), extra.requires_grad_()]
        self.theta = torch.cat([p.detach().flatten() for p in self.parameters])

    def at(self, theta: Tensor) -> Any:
        """The policy at other parameters."""
        return self.of(theta[: 3 * self.n_out].view(3, -1), theta[3 * self.n_out :])

    def of(self, weight: Tensor, extra: Tensor) -> Any:
        return self.make(OBS.tanh() @ weight, extra)

    def divergence(self, theta: Tensor) -> Tensor:
        """E[KL(π_old‖π)] in the mean over the rows with weight."""
        return mean(self.at(self.theta).kl(self.at(theta)), MASK)

    def product(self, damping: float = 0.0) -> Callable[[Tensor], Tensor]:
        """From a divergence in the graph of separate parameters."""
        old = map_tree(lambda x: x.detach().clone(), self.of(*self.parameters))
        divergence = mean(old.kl(self.of(*self.parameters)), MASK)
        return fisher_vector_product(divergence, self.parameters, damping)

    def through(self, damping: float = 0.0) -> Callable[[Tensor], Tensor]:
        """As TRPO has it: the curvature in the outputs, pulled back to separate parameters."""
        made = self.of(*self.parameters)
        cut = map_tree(lambda x: x.detach().requires_grad_(), made)
        old = map_tree(lambda x: x.detach().clone(), made)
        inner = fisher_vector_product(mean(old.kl(cut), MASK), list(leaves(cut)))
        outer = pulled_back(inner, list(leaves(made)), self.parameters)
        return lambda v: outer(v) + damping * v


def dense_fisher(policy: Policy) -> Tensor:
    """Σ_s m(s)·E_a[∇log π ∇log πᵀ] / Σ m, from scores alone."""
    F = torch.zeros(len(policy.theta), len(policy.theta), dtype=torch.float64)
    for action, weight in outcomes(policy.at(policy.theta)):
        fixed = map_tree(Tensor.detach, action)
        scores = torch.func.jacrev(lambda theta, a=fixed: policy.at(theta).log_prob(a))(policy.theta)
        F += torch.einsum("s,si,sj->ij", MASK * weight.detach() / MASK.sum(), scores, scores)
    return F


def matrix(product: Callable[[Tensor], Tensor], n: int) -> Tensor:
    return torch.stack([product(unit) for unit in torch.eye(n, dtype=torch.float64)])


@pytest.mark.parametrize("name", POLICIES)
def test_products_are_those_of_the_fisher_matrix(name: str) -> None:
    """Five definitions: scores' second moment, a dense Hessian, differences, and both products."""
    policy = Policy(name)
    F = matrix(policy.product(), len(policy.theta))
    assert torch.allclose(F, dense_fisher(policy), atol=1e-9)
    assert torch.allclose(F, matrix(policy.through(), len(policy.theta)), atol=1e-9)
    assert torch.allclose(F, torch.autograd.functional.hessian(policy.divergence, policy.theta), atol=1e-9)
    v = torch.randn(len(policy.theta), generator=Generator().manual_seed(2), dtype=torch.float64)
    h, slope = 1e-5, torch.func.grad(policy.divergence)
    central = (slope(policy.theta + h * v) - slope(policy.theta - h * v)) / (2 * h)
    assert torch.allclose(policy.product()(v), central, atol=1e-7)
    assert torch.linalg.eigvalsh(F).min() > -1e-10
    assert F.norm() > 0.1, "the comparison can fail"
    assert slope(policy.theta).norm() < 1e-12, "the KL has its minimum at π_old"


@pytest.mark.parametrize("name", POLICIES)
def test_the_quadratic_form_is_the_kl_to_second_order(name: str) -> None:
    policy = Policy(name)
    v = torch.randn(len(policy.theta), generator=Generator().manual_seed(3), dtype=torch.float64)
    half = 0.5 * v @ policy.product()(v)
    ratios = [float(policy.divergence(policy.theta + c * v) / (c**2 * half)) for c in (1e-2, 1e-3)]
    assert ratios[1] == pytest.approx(1.0, abs=0.01)
    assert abs(ratios[1] - 1) < 0.2 * abs(ratios[0] - 1) + 1e-6


def test_products_on_tabular_problems_are_the_laboratorys() -> None:
    """F of random finite problems, weighted by their exact visitation."""
    for case in random_problems(lambda case: True):
        problem, theta = case.problem, case.theta.clone().requires_grad_()
        weight = exact.visitation(problem, case.theta, case.gamma, case.steps)
        assert problem.observation is not None
        kl = Categorical(case.theta).kl(Categorical(theta))[problem.observation]
        F = matrix(fisher_vector_product(mean(kl, weight), [theta]), theta.numel())
        assert torch.allclose(F * weight.sum(), exact.fisher(problem, case.theta, weight), atol=1e-10)


def test_damping_and_parameters_that_play_no_part() -> None:
    """damping·v is added everywhere, also where the divergence does not look."""
    policy = Policy("categorical")  # the number beside the layer is not used
    v = torch.arange(1.0, len(policy.theta) + 1, dtype=torch.float64)
    for product in (policy.product, policy.through):
        plain, damped = product()(v), product(0.25)(v)
        assert torch.allclose(damped, plain + 0.25 * v)
        assert plain[-1] == 0.0
    gradient = flat_gradient(policy.parameters[0].sum(), policy.parameters)
    assert torch.equal(gradient, torch.cat([torch.ones(12), torch.zeros(1)]).double())


def test_outputs_may_share_and_hang_together() -> None:
    """One σ for two parts; a mean that is made of another part's mean: nothing is counted twice."""
    weight = torch.tensor([[0.3], [-0.5], [0.8]]).double().requires_grad_()
    log_std = torch.tensor([-0.2]).double().requires_grad_()
    parameters = [weight, log_std]

    def policy() -> Product:
        first = (OBS @ weight).tanh()
        sigma = log_std.expand_as(first)
        return Product((Gaussian(first, sigma), Gaussian(first.sin() + first, sigma)))

    made = policy()
    cut = map_tree(lambda x: x.detach().requires_grad_(), made)
    old = map_tree(Tensor.detach, made)
    inner = fisher_vector_product(mean(old.kl(cut), MASK), list(leaves(cut)))
    F = matrix(pulled_back(inner, list(leaves(made)), parameters), 4)
    direct = matrix(fisher_vector_product(mean(old.kl(policy()), MASK), parameters), 4)
    assert torch.allclose(F, direct, atol=1e-12)
    assert F[3, 3] == pytest.approx(4.0), "two numbers with one σ: 2 each"


def test_away_from_the_minimum_the_second_derivatives_of_the_outputs_are_left_out() -> None:
    """JᵀMJ of ½(w² − 3)² is 4w²·1, and its second derivative 4w² + 2(w² − 3): the same at w² = 3."""
    for square, apart in ((3.0, 0.0), (4.0, 2.0)):
        w = torch.tensor([math.sqrt(square)], dtype=torch.float64, requires_grad=True)
        output, one = w.square(), torch.ones(1, dtype=torch.float64)
        cut = output.detach().requires_grad_()
        inner = fisher_vector_product(0.5 * (cut - 3.0).square().sum(), [cut])
        assert float(pulled_back(inner, [output], [w])(one)) == pytest.approx(4 * square)
        whole = fisher_vector_product(0.5 * (w.square() - 3.0).square().sum(), [w])
        assert float(whole(one)) == pytest.approx(4 * square + apart, abs=1e-12)


def test_products_in_single_precision_are_close() -> None:
    policy, single = Policy("product"), Policy("product")
    v = torch.randn(len(policy.theta), generator=Generator().manual_seed(4), dtype=torch.float64)
    weight, extra = (p.detach().float().requires_grad_() for p in single.parameters)
    old = product((OBS.float().tanh() @ weight).detach(), extra.detach())
    kl = mean(old.kl(product(OBS.float().tanh() @ weight, extra)), MASK.float())
    assert torch.allclose(
        fisher_vector_product(kl, [weight, extra])(v.float()).double(), policy.product()(v), atol=1e-5
    )


@st.composite
def systems(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """A symmetric positive definite matrix with a condition number up to 1e4, and a right-hand side."""
    n = draw(st.integers(1, 12))
    noise = Generator().manual_seed(draw(st.integers(0, 10_000)))
    basis = torch.linalg.qr(torch.randn(n, n, generator=noise, dtype=torch.float64)).Q
    spread = draw(st.floats(0, 4))
    values = 10 ** (spread * torch.rand(n, generator=noise, dtype=torch.float64) - spread / 2)
    return basis @ torch.diag(values) @ basis.T, torch.randn(n, generator=noise, dtype=torch.float64)


@given(systems())
def test_conjugate_gradients_solve_the_system(system: tuple[Tensor, Tensor]) -> None:
    """After P steps (at most as many again for rounding); fewer get nearer with each."""
    A, b = system
    solution, n = torch.linalg.solve(A, b), len(b)
    found = conjugate_gradient(lambda v: A @ v, b, 2 * n + 2, 1e-28)
    assert torch.allclose(found, solution, rtol=1e-6, atol=1e-6 * float(solution.norm()))
    errors = []
    for k in range(n + 1):
        x = conjugate_gradient(lambda v: A @ v, b, k, 1e-28) - solution
        errors.append(float(x @ A @ x))
    assert all(later <= earlier * (1 + 1e-9) + 1e-18 for earlier, later in itertools.pairwise(errors))


def test_conjugate_gradients_take_exactly_as_many_steps_as_eigenvalues() -> None:
    """Two different eigenvalues: two steps do, one does not."""
    A, b = torch.diag(torch.tensor([1.0, 1.0, 5.0, 5.0]).double()), torch.ones(4).double()
    one, two = (conjugate_gradient(lambda v: A @ v, b, k) for k in (1, 2))
    assert torch.allclose(two, b / A.diag(), atol=1e-12)
    assert (one - b / A.diag()).norm() > 0.1


def test_conjugate_gradients_rest_when_done() -> None:
    """No step after the residual is small: 0/0 cannot come of it; nothing moves for a gradient of zero."""
    A, b = torch.diag(torch.tensor([2.0, 3.0])), torch.tensor([1.0, 1.0])
    assert torch.equal(conjugate_gradient(lambda v: A @ v, b, 4), conjugate_gradient(lambda v: A @ v, b, 400))
    assert torch.equal(conjugate_gradient(lambda v: A @ v, torch.zeros(2), 10), torch.zeros(2))


@given(systems(), st.sampled_from([2.0**-40, 2.0**-8, 2.0**20]))
def test_conjugate_gradients_do_not_depend_on_the_scale(system: tuple[Tensor, Tensor], c: float) -> None:
    """x(c·b) = c·x(b), bit for bit for powers of two: the residual is small relative to b, not in itself."""
    A, b = system
    one, other = (conjugate_gradient(lambda v: A @ v, x, 15) for x in (b, c * b))
    assert torch.equal(other, c * one)
    assert (A @ one - b).norm() < 0.9 * b.norm()


def test_conjugate_gradients_stop_without_curvature() -> None:
    """A direction with pᵀAp ≤ 0 adds nothing: what was found before it is kept, and is finite."""
    A, b = torch.diag(torch.tensor([2.0, 0.0, -1.0])).double(), torch.tensor([2.0, 0.0, 0.0]).double()
    assert conjugate_gradient(lambda v: A @ v, b, 20).tolist() == [1.0, 0.0, 0.0]
    for lost in ([0.0, 1.0, 0.0], [0.0, 0.0, 1.0]):
        assert conjugate_gradient(lambda v: A @ v, torch.tensor(lost).double(), 20).tolist() == [0.0] * 3
    A = torch.diag(torch.tensor([4.0, 1.0, -3.0])).double()  # after one step pᵀAp < 0
    b = torch.tensor([1.0, 1.0, 0.5]).double()
    one, many = (conjugate_gradient(lambda v: A @ v, b, k) for k in (1, 20))
    assert one.norm() > 0
    assert torch.equal(one, many)


def test_singular_matrices_in_single_precision_stay_finite() -> None:
    """Known by rounding, of rank 3, a little indefinite, all 0: never NaN or infinite."""
    for seed in range(20):
        noise = Generator().manual_seed(seed)
        J, b = torch.randn(3, 50, generator=noise), torch.randn(50, generator=noise)
        F = J.T @ J
        for A in (F, F - 1e-4 * torch.eye(50), 0 * F):
            for c in (1.0, 1e-7):
                x = conjugate_gradient(lambda v, A=A: A @ v, c * b, 15)  # type: ignore[misc]
                assert x.isfinite().all()


def test_the_scale_ends_on_the_border_of_the_region() -> None:
    x, Fx = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.5])
    scale = trust_region_scale(x, Fx, 0.01)
    assert float(0.5 * scale**2 * (x @ Fx)) == pytest.approx(0.01, rel=1e-6)
    assert trust_region_scale(x, -Fx, 0.01) == 0.0, "no curvature, no step"
    assert trust_region_scale(torch.zeros(2), torch.zeros(2), 0.01) == 0.0


def test_the_numbers_of_m77() -> None:
    """δ = .01 on the reference problem: KL .01052, ΔJ .42316 (.38244 along ∇J at equal ½·xᵀFx); the first
    of the fractions .8ᵏ with KL ≤ δ keeps the bound."""
    lab, gamma, delta = Lab(), 0.9, 0.01
    discounts = gamma ** torch.arange(4, dtype=torch.float64)
    share = discounts @ lab.marginal(THETA_OLD)
    share = share / share.sum()

    def divergence(theta: Tensor) -> Tensor:
        return mean(Categorical(THETA_OLD).kl(Categorical(theta)), share)

    leaf = THETA_OLD.clone().requires_grad_()
    fisher = fisher_vector_product(divergence(leaf), [leaf])
    slope = lab.gradient(THETA_OLD, gamma)
    natural = conjugate_gradient(fisher, slope, 6, 1e-26)
    gains, kls = [], []
    for direction in (natural, slope):
        step = trust_region_scale(direction, fisher(direction), delta) * direction
        there = THETA_OLD + step.view(3, 2)
        kls.append(float(divergence(there)))
        gains.append(float(lab.objective(there, gamma) - lab.objective(THETA_OLD, gamma)))
    assert kls[0] == pytest.approx(0.01052, abs=5e-6)
    assert gains == pytest.approx([0.42316, 0.38244], abs=5e-6)
    step = (trust_region_scale(natural, fisher(natural), delta) * natural).view(3, 2)
    kept = next(k for k in (float(divergence(THETA_OLD + 0.8**i * step)) for i in range(10)) if k <= delta)
    assert kls[0] > delta >= kept > 0.5 * delta
    assert float(divergence(THETA_OLD + DELTA)) > 0.1, "another policy is far away"
