"""A graph in two: what one of its inputs cannot change, computed once, and the rest."""

import operator
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node


def divided(module: GraphModule, moving: int) -> tuple[GraphModule, GraphModule]:
    """Two graphs that together answer as `module` does.

    The first takes the same inputs and answers with what the second takes beside them; none of it depends on
    input number `moving`, so that it stays the same while only that one changes. Views are taken anew by the
    second.
    """
    nodes = list(module.graph.nodes)
    given = [node for node in nodes if node.op == "placeholder"]
    depends = {given[moving]}
    for node in nodes:
        if not depends.isdisjoint(node.all_input_nodes):
            depends.add(node)
    kept = {node for node in nodes if node not in depends and _can_be_kept(node)}
    (end,) = (node for node in nodes if node.op == "output")
    second = _reached(end.all_input_nodes, kept)
    kept &= {one for node in (*second, end) for one in node.all_input_nodes}
    held = [node for node in nodes if node in kept]
    first = _reached(held, set())
    fixed = _part(module, [*given, *(node for node in nodes if node in first)], (), held)
    answers: Any = end.args[0]
    return fixed, _part(module, [*given, *(node for node in nodes if node in second)], held, answers)


def unshared(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Tensors with memory of their own each: what is computed twice a compiler answers with once."""
    seen: set[int] = set()
    found = []
    for x in tensors:
        own = x.clone() if x.untyped_storage().data_ptr() in seen else x
        seen.add(own.untyped_storage().data_ptr())
        found.append(own)
    return found


def _can_be_kept(node: Node) -> bool:
    """Whether a node is an operation that makes numbers of others, in the usual order."""
    value = node.meta.get("val")
    if node.op != "call_function" or not node.all_input_nodes or _is_view(node):
        return False
    return isinstance(value, Tensor) and value.is_contiguous()


def _is_view(node: Node) -> bool:
    """Whether it is memory of another node's."""
    if node.target is operator.getitem:
        return _is_view(node.all_input_nodes[0])
    made = node.target._schema.returns if isinstance(node.target, OpOverload) else []
    return any(one.alias_info is not None for one in made)


def _reached(ends: Iterable[Node], given: set[Node]) -> set[Node]:
    """What is computed on the way to some nodes, from inputs and from nodes that are given."""
    found: set[Node] = set()
    left = list(ends)
    while left:
        node = left.pop()
        if node not in found and node not in given and node.op != "placeholder":
            found.add(node)
            left += node.all_input_nodes
    return found


def _part(
    module: GraphModule, nodes: Iterable[Node], given: Iterable[Node], ends: Iterable[Node]
) -> GraphModule:
    """A graph of some of the nodes, with others given as inputs, that answers with `ends`."""
    graph, copies = Graph(), dict[Node, Node]()
    listed = list(nodes)
    for node in listed:
        if node.op == "placeholder":
            copies[node] = graph.node_copy(node)
    for node in given:
        copies[node] = graph.placeholder(f"held_{node.name}")
    for node in listed:
        if node.op != "placeholder":
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output([copies[node] for node in ends])
    return GraphModule(module, graph)
