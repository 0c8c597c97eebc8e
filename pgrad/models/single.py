"""One observation and one action, between Gymnasium's form and trees of tensors."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from pgrad.data.tree import Tree
from pgrad.environments.masks import choices, forbidden
from pgrad.errors import UsageError


def read_observation(space: spaces.Space[Any], obs: Any) -> Tree:
    """One observation as tensors. Raises UsageError for one that is not of the space, NaN or infinite."""
    if isinstance(space, spaces.Dict):
        if not isinstance(obs, Mapping) or space.spaces.keys() - obs.keys():
            raise UsageError(f"{_came(obs)} is not an observation with the keys {list(space.spaces)}")
        return {key: read_observation(part, obs[key]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        if not isinstance(obs, tuple | list) or len(obs) != len(space.spaces):
            raise UsageError(f"{_came(obs)} is not an observation of {len(space.spaces)} parts, {space}")
        return tuple(read_observation(part, o) for part, o in zip(space.spaces, obs, strict=True))
    x = _numbers(obs)
    if x is None:
        raise UsageError(f"{_came(obs)} is not an observation of {space}")
    if isinstance(space, spaces.Discrete) and x.numel() == 1:
        x = x.reshape(())
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise UsageError("an observation is NaN or infinite")
    if x.shape != space.shape:
        raise UsageError(f"an observation of shape {tuple(x.shape)} is not one of {space}")
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        start = torch.as_tensor(np.asarray(space.start))
        n = torch.as_tensor(space.n if isinstance(space, spaces.Discrete) else space.nvec)
        place = x.to(torch.int64) - start
        if bool(((place < 0) | (place >= n)).any()):
            raise UsageError(f"{_came(obs)} is not an observation of {space}")
        return place
    return x.to(torch.float32) if x.is_floating_point() else x


def read_mask(space: spaces.Space[Any], allowed: Any) -> Tensor:
    """One action mask. Raises UsageError for another shape, and where it leaves nothing to choose."""
    sizes, mask = choices(space), _numbers(allowed)
    if mask is None:
        raise UsageError(f"{_came(allowed)} is not an action mask for {space}")
    mask = mask.bool()
    if mask.shape != (sum(sizes),):
        raise UsageError(f"an action mask of shape {tuple(mask.shape)}: {space} needs ({sum(sizes)},)")
    if forbidden(sizes, mask) is not None:
        raise UsageError(f"the action mask {mask.int().tolist()} leaves nothing to choose of {space}")
    return mask


def _numbers(value: Any) -> Tensor | None:
    """An array of numbers as a tensor; None for anything else."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # such as lists of different lengths
        return None
    return torch.as_tensor(array) if array.dtype.kind in "biuf" else None


def _came(value: Any) -> str:
    """What was given in place of an observation, in a few words on one line."""
    if isinstance(value, Mapping):
        return f"a dict with the keys {list(value)}"
    if isinstance(value, np.ndarray | Tensor) and value.ndim:
        return f"an array of shape {tuple(value.shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"a {type(value).__name__} {text[:40]}…"


def write_action(space: spaces.Space[Any], action: Tree) -> Any:
    """One action, ready for `env.step`: within the bounds, in the type of the space."""
    if isinstance(space, spaces.Dict):
        return {key: write_action(part, action[key]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(write_action(part, a) for part, a in zip(space.spaces, action, strict=True))
    if isinstance(space, spaces.Discrete):
        return int(action) + int(space.start)
    x = action.cpu().numpy().reshape(space.shape)
    if isinstance(space, spaces.Box):
        x = np.clip(np.rint(x) if np.issubdtype(space.dtype, np.integer) else x, space.low, space.high)
    elif isinstance(space, spaces.MultiDiscrete):
        x = x + space.start
    return np.asarray(x, space.dtype)  # an array for a Box of shape () too
