"""Large products that the compiler writes itself are torch's up to rounding, and no clock chooses them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from torch import Generator, Tensor

from pgrad.training.compiled import package, products
from pgrad.training.compiled.graph import trace

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler's own


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the processor is."""
    monkeypatch.setattr(products, "own", lambda: True)


def layers(*tensors: Tensor) -> list[Tensor]:
    """Two layers, of which the second is of twins, and their gradients."""
    with torch.enable_grad():
        x, w, b, twins = (one.detach().requires_grad_() for one in tensors)
        hidden = torch.nn.functional.linear(x, w, b).relu()
        y = torch.baddbmm(b, hidden.expand(2, *hidden.shape), twins).tanh()
        return [y.detach(), *torch.autograd.grad(y.square().sum(), (x, w, b, twins))]


def tensors(rows: int, terms: int, width: int) -> list[Tensor]:
    generator = Generator().manual_seed(1)
    shapes = (rows, terms), (width, terms), (width,), (2, width, width)
    return [torch.randn(shape, generator=generator) / 8 for shape in shapes]


@pytest.mark.usefixtures("own")
def test_large_products_are_the_compilers_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwards and backwards, of transposed matrices and of sizes that no block divides, and only those."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("choices were timed")

    from torch._inductor.select_algorithm import AlgorithmSelectorCache

    monkeypatch.setattr(AlgorithmSelectorCache, "do_autotuning", never)
    given = tensors(203, 17, 144)
    graph = trace(layers, given)
    code = package.build(graph, given, "layers", torch.device("cpu"))
    for found, wanted in zip(code(list(given)), layers(*given), strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
    with ZipFile(cache / "layers.pt2") as packed:
        sources = [packed.read(name).decode() for name in packed.namelist() if name.endswith(".wrapper.cpp")]
    body = "".join(sources).split("::run_impl(")[-1]
    of_the_library = body.count("aoti_torch_cpu_mm_out(") + body.count("aoti_torch_cpu_bmm_out(")
    assert of_the_library == 3, "the three with 17 rows, columns or terms"


def test_a_choice_of_other_compilations_stays_theirs() -> None:
    """What chooses is gone afterwards."""
    from torch._inductor.select_algorithm import get_algorithm_selector_cache

    functions = get_algorithm_selector_cache().preprocessing_fns
    before = list(functions)
    with products.chosen_by_size():
        assert len(functions) == len(before) + 1
    assert functions == before


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("product", [torch.mm, lambda a, b: torch.bmm(a[None], b[None])[0]])
def test_the_first_matrix_of_a_large_product_lies_in_rows(product: Callable[..., Tensor]) -> None:
    """The compiler's own is of no others."""
    a, b = torch.ones(160, 128), torch.ones(160, 128)
    graph = trace(lambda a, b: [product(a.t(), b)], [a, b])
    (node,) = (node for node in graph.graph.nodes if node.target is torch.ops.aten.bmm.default)
    assert node.args[0].meta["val"].stride(-1) == 1
    assert torch.equal(graph(a, b)[0], a.t() @ b)


def test_where_products_are_the_compilers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one core, of a processor that the library is slow on."""
    for slow in (True, False):
        monkeypatch.setattr(products, "_library_is_slow", lambda slow=slow: slow)
        for threads in (1, 2):
            monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
            assert products.own() == (slow and threads == 1)
