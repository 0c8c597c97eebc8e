"""From an observation of any supported space to one feature vector."""

import math
from typing import Any

import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from pgrad.data.tree import Tree
from pgrad.errors import UsageError
from pgrad.models.bodies import ImageBody


class Encoder(nn.Module):
    """Observation tree [..., *space] → features [..., size].

    Box is flattened, uint8 images pass through convolutions, Discrete and MultiDiscrete become one-hot
    vectors, MultiBinary is cast, Dict and Tuple are concatenated. Only images have parameters.
    """

    def __init__(self, space: spaces.Space[Any], generator: Generator, half: bool = False) -> None:
        super().__init__()
        self.space = space
        self.parts = nn.ModuleList()  # by place: a key may be any string, a module's name may not
        self.image: ImageBody | None = None
        if isinstance(space, spaces.Dict | spaces.Tuple):
            self.parts.extend(Encoder(part, generator, half) for _, part in _parts(space))
            self.size: int = sum(part.size for part in self.parts)  # type: ignore[misc]
        elif is_image(space):
            self.image = ImageBody(tuple(space.shape), generator, half)  # type: ignore[arg-type]
            self.size = ImageBody.size
        elif isinstance(space, spaces.Box | spaces.MultiBinary):
            self.size = math.prod(space.shape)
        elif isinstance(space, spaces.Discrete):
            self.size = int(space.n)
        elif isinstance(space, spaces.MultiDiscrete):
            self.size = int(space.nvec.sum())
        else:
            raise UsageError(
                f"observation space {type(space).__name__} is not supported; supported: "
                "Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple"
            )

    @property
    def has_parameters(self) -> bool:
        """Whether the encoder learns (it sees images), so that actor and critic share it."""
        return any(True for _ in self.parameters())

    def forward(self, obs: Tree) -> Tensor:
        """Features [..., size] of observations [..., *space]."""
        space = self.space
        if isinstance(space, spaces.Dict | spaces.Tuple):
            keys = [key for key, _ in _parts(space)]
            return torch.cat([part(obs[key]) for key, part in zip(keys, self.parts, strict=True)], dim=-1)
        if self.image is not None:
            features: Tensor = self.image(obs)
            return features
        if isinstance(space, spaces.Discrete):
            return nn.functional.one_hot(obs, int(space.n)).to(torch.float32)
        if isinstance(space, spaces.MultiDiscrete):
            flat = obs.flatten(obs.ndim - len(space.shape))
            sizes = space.nvec.reshape(-1).tolist()
            hot = [nn.functional.one_hot(flat[..., i], n) for i, n in enumerate(sizes)]
            return torch.cat(hot, dim=-1).to(torch.float32)
        rank = len(space.shape or ())
        flat = obs if rank == 1 else obs.unsqueeze(-1) if rank == 0 else obs.flatten(obs.ndim - rank)
        return flat.to(torch.float32)


def is_image(space: spaces.Space[Any]) -> bool:
    """Whether a space holds pictures: uint8 and three axes."""
    return isinstance(space, spaces.Box) and space.dtype == "uint8" and len(space.shape) == 3


def has_images(space: spaces.Space[Any], least_pixels: int = 0) -> bool:
    """Whether an observation holds a picture, of at least so many numbers."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return any(has_images(part, least_pixels) for _, part in _parts(space))
    return is_image(space) and math.prod(space.shape or ()) >= least_pixels


def _parts(space: spaces.Dict | spaces.Tuple) -> list[tuple[Any, spaces.Space[Any]]]:
    return list(space.spaces.items()) if isinstance(space, spaces.Dict) else list(enumerate(space.spaces))
