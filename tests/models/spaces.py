"""Every space that is supported, and observations of it as a world hands them out."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from pgrad.data import Tree

OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-1.0, 1.0, (3,)),
    "scalar": spaces.Box(-1.0, 1.0, ()),
    "matrix": spaces.Box(-1.0, 1.0, (2, 3)),
    "float64": spaces.Box(-1.0, 1.0, (2,), np.float64),
    "integers": spaces.Box(-5, 5, (2,), np.int32),
    "bytes": spaces.Box(0, 255, (6,), np.uint8),
    "image": spaces.Box(0, 255, (84, 84, 4), np.uint8),
    "small image": spaces.Box(0, 255, (10, 10, 3), np.uint8),
    "discrete": spaces.Discrete(4, start=-1),
    "multidiscrete": spaces.MultiDiscrete([3, 2], start=[5, -1]),
    "multidiscrete matrix": spaces.MultiDiscrete([[3, 2], [2, 4]]),
    "multibinary": spaces.MultiBinary(3),
    "dict": spaces.Dict(
        {
            "values": spaces.Box(-1.0, 1.0, (2,)),
            "a.b": spaces.Discrete(3, start=2),
            "": spaces.Tuple((spaces.MultiDiscrete([2, 2]), spaces.Box(0, 255, (8, 8, 1), np.uint8))),
        }
    ),
    "tuple": spaces.Tuple((spaces.Box(-1.0, 1.0, ()), spaces.Dict({"forward": spaces.Discrete(2)}))),
}

ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3),
    "discrete start": spaces.Discrete(3, start=4),
    "box": spaces.Box(-1.0, 0.5, (2,)),
    "box scalar": spaces.Box(-1.0, 1.0, ()),
    "box matrix": spaces.Box(-1.0, 1.0, (2, 3)),
    "box float64": spaces.Box(-1.0, 1.0, (1,), np.float64),
    "box integers": spaces.Box(-2, 3, (2,), np.int64),
    "box unbounded": spaces.Box(-np.inf, np.inf, (2,)),
    "multidiscrete": spaces.MultiDiscrete([3, 2]),
    "multidiscrete start": spaces.MultiDiscrete([3, 2], start=[1, -1]),
    "multidiscrete matrix": spaces.MultiDiscrete([[3, 2], [2, 4]]),
    "multibinary": spaces.MultiBinary(3),
    "multibinary matrix": spaces.MultiBinary([2, 2]),
    "dict": spaces.Dict(
        {"keys": spaces.Discrete(2, start=1), "x.y": spaces.Box(-1.0, 1.0, (1,)), "": spaces.MultiBinary(2)}
    ),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.Dict({"items": spaces.MultiDiscrete([2, 3])}))),
}


def observations(space: spaces.Space[Any], batch: tuple[int, ...]) -> Tree:
    """Random observations [*batch, *space] with the dtypes and starts of `pgrad.worlds`."""
    match space:
        case spaces.Dict():
            return {key: observations(part, batch) for key, part in space.items()}
        case spaces.Tuple():
            return tuple(observations(part, batch) for part in space)
        case spaces.Discrete():
            return torch.randint(int(space.n), batch)
        case spaces.MultiDiscrete():
            rows = torch.rand((*batch, *space.shape)) * torch.as_tensor(space.nvec)
            return rows.long()
        case spaces.MultiBinary():
            return torch.randint(2, (*batch, *space.shape)).float()
        case _ if space.dtype == np.uint8:
            return torch.randint(256, (*batch, *space.shape), dtype=torch.uint8)
        case _:
            return torch.randn((*batch, *space.shape))
