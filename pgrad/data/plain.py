"""Trees as what can be written down: dicts with string keys, lists, tensors and plain values; and back."""

from typing import Any

from torch import Tensor

from pgrad.data.masked import Masked
from pgrad.data.sequence import Sequence
from pgrad.data.tokens import Tokens
from pgrad.data.trajectory import Trajectory
from pgrad.data.tree import Tree

RECORDS: dict[str, type] = {made.__name__: made for made in (Trajectory, Tokens, Masked, Sequence)}
"""The only dataclasses that trajectories are made of, so that reading one runs nothing but these."""


def as_plain(tree: Tree) -> Any:
    """A tree with its structure; tensors stay as they are. Raises TypeError for other dataclasses."""
    if isinstance(tree, dict):
        return {"keys": list(tree), "values": [as_plain(part) for part in tree.values()]}
    if isinstance(tree, tuple):
        return {"tuple": [as_plain(part) for part in tree]}
    if isinstance(tree, Tensor) or not hasattr(tree, "__dataclass_fields__"):
        return tree
    name = type(tree).__name__
    if RECORDS.get(name) is not type(tree):
        raise TypeError(f"a {name} cannot be written down; records are {', '.join(RECORDS)}")
    return {"record": name, "fields": {field: as_plain(getattr(tree, field)) for field in vars(tree)}}


def from_plain(plain: Any) -> Tree:
    """The tree that `as_plain` wrote down."""
    if not isinstance(plain, dict):
        return plain
    if "tuple" in plain:
        return tuple(from_plain(part) for part in plain["tuple"])
    if "keys" in plain:
        values = [from_plain(part) for part in plain["values"]]
        return dict(zip(plain["keys"], values, strict=True))
    return RECORDS[plain["record"]](**{name: from_plain(part) for name, part in plain["fields"].items()})
