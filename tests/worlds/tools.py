"""Random actions, copies, comparisons and a trip through files, for tests of worlds."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from gymnasium import Space, spaces
from torch import Tensor

from pgrad.data.masked import Masked
from pgrad.data.tree import Tree, map_tree
from pgrad.worlds.protocol import World


class Row(NamedTuple):
    """What was given to a world and what it answered, in copies."""

    action: Tree
    obs: Tree
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    ended: Tensor


def sampler(world: World, seed: int, *, alike: bool = False) -> Callable[[], Tree]:
    """Random actions [B, ...] for `world`, some beyond the bounds of boxes; `alike` in every environment."""
    generator = np.random.default_rng(seed)

    def sample() -> Tree:
        return _sample(world.action_space, 1 if alike else world.n_envs, generator)

    def action() -> Tree:
        return map_tree(lambda x: x.expand(world.n_envs, *x.shape[1:]).clone().to(world.device), sample())

    return action


def _sample(space: Space[Any], n: int, generator: np.random.Generator) -> Tree:
    match space:
        case spaces.Discrete():
            return torch.from_numpy(generator.integers(0, space.n, n))
        case spaces.MultiDiscrete():
            return torch.from_numpy(generator.integers(0, space.nvec, (n, *space.shape)))
        case spaces.MultiBinary():
            return torch.from_numpy(generator.integers(0, 2, (n, *space.shape)))
        case spaces.Box():
            normal = generator.standard_normal((n, *space.shape))
            with np.errstate(over="ignore", invalid="ignore"):
                inside = space.low + (space.high - space.low) * generator.uniform(-0.1, 1.1, normal.shape)
            bounded = np.isfinite(space.low) & np.isfinite(space.high)
            return torch.from_numpy(np.where(bounded, inside, normal).astype(np.float32))
        case spaces.Dict():
            return {key: _sample(part, n, generator) for key, part in space.items()}
        case spaces.Tuple():
            return tuple(_sample(part, n, generator) for part in space)
    raise AssertionError(f"no sampler for {space}")


def advance(world: World, action: Tree, active: Tensor | None = None) -> Row:
    """One step, in copies."""
    step = copy(tuple(world.step(action, active)))
    return Row(copy(action), *step, world.ended.clone())


def copy(tree: Tree) -> Tree:
    """Copies of all leaves."""
    return map_tree(Tensor.clone, tree)


def same(a: Any, b: Any) -> bool:
    """Whether two trees, or lists of them, are equal bit for bit."""
    if isinstance(a, Masked):
        return isinstance(b, Masked) and same((a.obs, a.allowed), (b.obs, b.allowed))
    if isinstance(a, list | tuple | dict):
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a.dtype == b.dtype and torch.equal(a, b)


def through_file(state: dict[str, Any]) -> dict[str, Any]:
    """`state` as it comes back from a safetensors and a JSON file, the only things a checkpoint may hold."""
    tensors: dict[str, Tensor] = {}

    def strip(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            tensors[path] = value.detach().cpu().contiguous().clone()
            return {"tensor": path}
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value), (
                f"a key of {path or 'the state'} is not a string"
            )
            return {key: strip(part, f"{path}/{key}") for key, part in value.items()}
        return value

    plain = json.loads(json.dumps(strip(state, ""), allow_nan=False))
    loaded = safetensors.torch.load(safetensors.torch.save(tensors))

    def restore(value: Any) -> Any:
        if isinstance(value, dict):
            return (
                loaded[value["tensor"]]
                if value.keys() == {"tensor"}
                else {k: restore(v) for k, v in value.items()}
            )
        return value

    result: dict[str, Any] = restore(plain)
    return result


def same_state(a: Any, b: Any) -> bool:
    """Whether two states are equal bit for bit."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b)
