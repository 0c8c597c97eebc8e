"""Natural gradients: products with the Fisher matrix, conjugate gradients, and the step to a trust region.

The matrix is never built: a product with it is a derivative of a derivative of the divergence. Through a
network it is cheaper by the derivative of the network's outputs, back and forth.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def flat_gradient(
    scalar: Float[Tensor, ""], parameters: Sequence[Tensor], create_graph: bool = False
) -> Float[Tensor, " P"]:
    """∇ of a scalar in all parameters as one vector, 0 for those it does not depend on."""
    return _flat([scalar], parameters, None, create_graph)


def fisher_vector_product(
    divergence: Float[Tensor, ""], parameters: Sequence[Tensor], damping: float = 0.0
) -> Callable[[Tensor], Tensor]:
    """v ↦ F·v + damping·v with F = ∇²θ E[KL(π_old‖π)] at π = π_old, where it is the Fisher matrix.

    `divergence` is that mean KL with π in the graph of `parameters`. The first derivative is taken once and
    its graph kept: F·v = ∇(∇KL · v), one backward pass for each v [P].
    Schulman et al. 2015, "Trust Region Policy Optimization", appendix C; Pearlmutter 1994.
    """
    gradient = flat_gradient(divergence, parameters, create_graph=True)

    def product(v: Tensor) -> Tensor:
        return flat_gradient((gradient * v).sum(), parameters) + damping * v

    return product


def pulled_back(
    product: Callable[[Tensor], Tensor], outputs: Sequence[Tensor], parameters: Sequence[Tensor]
) -> Callable[[Tensor], Tensor]:
    """v ↦ Jᵀ·M·J·v, J = ∂`outputs`/∂`parameters`, M known by its products with the outputs as one vector.

    Where M is the Hessian of E[KL(π_old‖π)] in the outputs of π, at π = π_old, this is the Hessian in the
    parameters, exactly: it lacks the second derivatives of the outputs, which ∇KL = 0 multiplies there.
    Jᵀw is linear in w, so that J·v = ∇_w(Jᵀw · v): its graph is kept, and each v [P] takes one backward pass
    through it and one through that of the outputs.
    Schraudolph 2002, "Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent".
    """
    seeds = [torch.zeros_like(x, requires_grad=True) for x in outputs]
    transposed = _flat(outputs, parameters, seeds, create_graph=True)
    sizes = [x.numel() for x in outputs]

    def pulled(v: Tensor) -> Tensor:
        moved = product(_flat([transposed], seeds, [v]))
        parts = [part.view(x.shape) for part, x in zip(torch.split(moved, sizes), outputs, strict=True)]
        return _flat(outputs, parameters, parts)

    return pulled


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Float[Tensor, " P"], max_steps: int, tolerance: float = 1e-10
) -> Float[Tensor, " P"]:
    """x ≈ A⁻¹b for a symmetric positive definite A known by its products; exact after P steps.

    x stays as it is once the residual is below √tolerance of |b|, or where a direction has no positive
    curvature pᵀAp, as in an A that is singular or known by rounding. No step waits for the device.
    Hestenes & Stiefel 1952.
    """
    x, r, p = torch.zeros_like(b), b, b
    square = r @ r
    least = tolerance * square
    for _ in range(max_steps):
        Ap = product(p)
        alpha = square / (p @ Ap)
        going = (square > least) & (alpha > 0) & alpha.isfinite()
        alpha = torch.where(going, alpha, 0.0)
        x, r = x + alpha * p, r - alpha * Ap
        after = r @ r
        beta = torch.where(going, after / square.clamp_min(torch.finfo(b.dtype).tiny), 0.0)
        p = torch.where(going, r + beta * p, p)
        square = torch.where(going, after, square)
    return x


def trust_region_scale(
    direction: Float[Tensor, " P"], curvature: Float[Tensor, " P"], max_kl: float
) -> Float[Tensor, ""]:
    """√(2δ / xᵀFx): the multiple of x = `direction` at which ½·xᵀFx, the KL to second order, is δ = `max_kl`.

    `curvature` is F·x. 0 where xᵀFx is not positive: there is nowhere to go. Schulman et al. 2015, appendix
    C.
    """
    square = direction @ curvature
    scale = (2 * max_kl / square.clamp_min(torch.finfo(square.dtype).tiny)).sqrt()
    return torch.where(square > 0, scale, 0.0)


def _flat(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor] | None,
    create_graph: bool = False,
) -> Tensor:
    """∇ of Σ weights·outputs in all inputs as one vector, 0 for those that play no part; the graph stays."""
    grads = torch.autograd.grad(
        outputs,
        inputs,
        weights,
        create_graph=create_graph,
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return torch.cat([g.flatten() for g in grads])
