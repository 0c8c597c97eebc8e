"""One observation and one action, between Gymnasium's form and trees of tensors."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from pgrad.data.masked import choices, forbidden
from pgrad.data.tree import Tree
from pgrad.errors import UsageError


def read_observation(space: spaces.Space[Any], obs: Any) -> Tree:
    """One observation as tensors. Raises UsageError for one that is not of the space, NaN or infinite."""
    if isinstance(space, spaces.Dict):
        return {key: read_observation(part, obs[key]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(read_observation(part, o) for part, o in zip(space.spaces, obs, strict=True))
    if isinstance(space, spaces.Discrete):
        return torch.as_tensor(int(obs) - int(space.start))
    x = torch.as_tensor(np.asarray(obs))
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise UsageError("an observation is NaN or infinite")
    if x.shape != space.shape:
        raise UsageError(f"an observation of shape {tuple(x.shape)} is not one of {space}")
    if isinstance(space, spaces.MultiDiscrete):
        return x.to(torch.int64) - torch.as_tensor(space.start)
    return x.to(torch.float32) if x.is_floating_point() else x


def read_mask(space: spaces.Space[Any], allowed: Any) -> Tensor:
    """One action mask. Raises UsageError for another shape, and where it leaves nothing to choose."""
    sizes, mask = choices(space), torch.as_tensor(np.asarray(allowed), dtype=torch.bool)
    if mask.shape != (sum(sizes),):
        raise UsageError(f"an action mask of shape {tuple(mask.shape)}: {space} needs ({sum(sizes)},)")
    if forbidden(sizes, mask) is not None:
        raise UsageError(f"the action mask {mask.int().tolist()} leaves nothing to choose of {space}")
    return mask


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
