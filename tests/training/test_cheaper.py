"""What stands for torch's operations in machine code is equal to them up to rounding."""

import math

import pytest
import torch
from torch import Generator

from pgrad.training.compiled import cheaper
from pgrad.training.compiled.graph import trace


def test_the_hyperbolic_tangent() -> None:
    """Against float64: to four parts in 10⁷ everywhere, odd, never beyond 1; what is no number stays none."""
    magnitude = torch.cat([torch.logspace(-30, 1, 200_001), torch.linspace(0, 12, 200_001)])
    for x in (magnitude, -magnitude):
        exact, found = x.double().tanh(), cheaper.tanh(x)
        assert ((found - exact).abs() <= 4e-7 * exact.abs()).all()
        assert found.abs().max() <= 1.0
    assert torch.equal(cheaper.tanh(-magnitude), -cheaper.tanh(magnitude))
    assert cheaper.tanh(torch.tensor([math.inf, -math.inf])).tolist() == pytest.approx([1.0, -1.0], abs=4e-7)
    assert cheaper.tanh(torch.tensor([math.nan])).isnan()
    assert cheaper.tanh(torch.zeros(1).double()) is NotImplemented, "the fit is not for more digits"


@pytest.mark.parametrize(
    "shape", [(64, 256, 4), (4, 256, 64), (256, 64, 2), (6, 3, 1), (5, 7, 5), (64, 8, 17)]
)
def test_layers_and_their_gradients(shape: tuple[int, int, int]) -> None:
    """A layer, traced with its backward pass, has the values and gradients of torch, in their shapes."""
    m, k, n = shape
    generator = Generator().manual_seed(1)
    x, w, b, g = (torch.randn(s, generator=generator) for s in ((m, k), (n, k), (n,), (m, n)))

    def layer(*tensors: torch.Tensor) -> list[torch.Tensor]:
        with torch.enable_grad():
            x, w, b = (one.detach().requires_grad_() for one in tensors[:3])
            y = torch.nn.functional.linear(x, w, b).tanh()
            return [y.detach(), *torch.autograd.grad(y, (x, w, b), tensors[3])]

    graph = trace(layer, [x, w, b, g])
    for found, wanted in zip(graph(x, w, b, g), layer(x, w, b, g), strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)
    products = [
        node.meta["val"].shape for node in graph.graph.nodes if node.target is torch.ops.aten.mm.default
    ]
    assert len(products) == 3
    assert all(rows <= columns or columns % cheaper.VECTOR == 0 for rows, columns in products)
    targets = {str(node.target) for node in graph.graph.nodes}
    assert not targets & {"aten.tanh.default", "aten.addmm.default"}
