"""A graph in two answers as the whole, and computes once what its moving input cannot change."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

from pgrad.algorithms.trpo import policy_and_divergence
from pgrad.models.cells.loop import loop
from pgrad.training.compiled import package
from pgrad.training.compiled.divided import divided, unshared
from pgrad.training.compiled.graph import loops, trace
from tests.training.test_derivatives import SMALL, case

INPUTS = [torch.linspace(-1, 1, 12).view(3, 4), torch.linspace(0, 2, 12).view(3, 4), torch.rand(4, 5)]


def halves(function: Any, inputs: list[Tensor] = INPUTS) -> tuple[GraphModule, GraphModule, list[Tensor]]:
    """Both parts of a function's graph, of which the first input moves; and what the first part holds."""
    module = trace(function, inputs)
    first, rest = divided(module, 0)
    held = first(*inputs)
    for v in (inputs[0], 2 * inputs[0] - 1):
        for mine, theirs in zip(rest(v, *inputs[1:], *held), module(v, *inputs[1:]), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    (moving, *_) = [node for node in first.graph.nodes if node.op == "placeholder"]
    assert not moving.users
    return first, rest, held


def operations(module: GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]


def test_what_does_not_move_is_computed_once() -> None:
    """As late as it can be held: one tensor for a whole chain."""

    def function(v: Tensor, a: Tensor, W: Tensor) -> list[Tensor]:
        return [v @ (W.exp() + 1.0).cos() + a.sin() @ W, v.cosh()]

    first, rest, held = halves(function)
    assert [tuple(x.shape) for x in held] == [(4, 5), (3, 5)]
    assert {"aten.exp.default", "aten.cos.default", "aten.sin.default"} <= set(operations(first))
    assert operations(first).count("aten.mm.default") == 1
    assert sorted(operations(rest)) == ["aten.add.Tensor", "aten.cosh.default", "aten.mm.default"]


def test_views_and_new_numbers_are_made_again() -> None:
    """Another's memory, what is made of nothing, and what lies in another order; what they are made of is
    held.
    """

    def function(v: Tensor, a: Tensor, W: Tensor) -> list[Tensor]:
        turned = a.t().exp()  # its columns one after the other
        assert not turned.is_contiguous()
        return [v @ turned + torch.ones(3, 3) + a.sin().t()[:3, :3]]

    _, rest, held = halves(function)
    assert [tuple(x.shape) for x in held] == [(3, 4)]
    torch.testing.assert_close(held[0], INPUTS[1].sin())
    assert "aten.exp.default" in operations(rest)


def test_an_answer_may_not_move_at_all_or_all_of_it() -> None:
    fixed, rest, held = halves(lambda v, a, W: [a.exp(), a])
    assert operations(rest) == []
    assert len(held) == 1
    assert operations(fixed) == ["aten.exp.default"]
    assert halves(lambda v, a, W: [v.exp() * a])[2] == []


def test_a_loop_over_time_is_held_by_what_it_answers() -> None:
    def step(h: Tensor, x: Tensor, W: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        h = torch.tanh(torch.bmm(h, W) + x)
        return (h,), (h, h.cos())

    def function(v: Tensor, x: Tensor, W: Tensor) -> list[Tensor]:
        h, c = loop(step, (torch.zeros_like(x[:, 0]),), (x,), (W,))
        return loop(step, (v,), (h * c,), (W,))

    inputs = [torch.rand(1, 2, 3), torch.rand(1, 6, 2, 3), torch.rand(1, 3, 3)]
    first, rest, held = halves(function, inputs)
    assert [len(loops(part)) for part in (first, rest)] == [1, 1]
    assert [tuple(x.shape) for x in held] == [(1, 6, 2, 3)]


def test_what_is_held_shares_no_memory() -> None:
    """A compiler answers with one tensor for two that are equal; nothing is lost, empty ones neither."""
    x, y = torch.arange(3.0), torch.arange(4.0)
    none = torch.empty(0)
    found = unshared([x, y, x, x.view(1, 3), none, none])
    assert found[0] is x
    assert found[1] is y
    assert [part.shape for part in found] == [(3,), (4,), (3,), (1, 3), (0,), (0,)]
    places = [part.untyped_storage().data_ptr() for part in found[:4]]
    assert len(set(places)) == 4
    assert all(torch.equal(part.flatten(), x) for part in found if part.numel() == 3)


@pytest.mark.usefixtures("cache", "interpreted")
@pytest.mark.parametrize("memory", ["none", "gru", "lstm"])
def test_a_product_takes_no_step_of_the_policy(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy goes through its observations once for all products; each product then takes one loop with
    the changes forwards and one backwards.
    """
    _, learner, batch = case("Gaussian", replace(SMALL, memory=memory))
    learner.machine.compiles = True
    made: list[GraphModule] = []
    taken: list[int] = []
    build = package.build

    def noted(module: Any, inputs: Any, key: str, device: Any) -> package.Code:
        code, place = build(module, inputs, key, device), len(made)
        made.append(module)

        def run(tensors: list[Tensor]) -> list[Tensor]:
            taken.append(place)
            return code(tensors)

        return run

    monkeypatch.setattr(package, "build", noted)
    product = learner.derivatives("actor").curvature(policy_and_divergence, batch)
    taken_by = [[name for name in operations(part) if name.startswith("pgrad.")] for part in made]
    names = [f"pgrad.{memory}_{way}.default" for way in ("forward", "push", "pull")]
    assert taken_by == ([[], []] if memory == "none" else [names[:1], names[1:]])
    taken.clear()
    n = sum(p.numel() for name, p in learner.agent.named_parameters() if "critic" not in name)
    first, second = torch.randn(2, n, generator=torch.Generator().manual_seed(0))
    one, two, both = (product(v) for v in (first, second, first + 2 * second))
    assert taken == [1, 1, 1]
    torch.testing.assert_close(one + 2 * two, both, rtol=1e-4, atol=1e-5)
    assert both.norm() > 0.1
