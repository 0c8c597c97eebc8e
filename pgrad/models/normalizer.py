"""Running normalisation of observations and scaling of rewards, kept inside the agent and its checkpoint."""

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from pgrad.data.tree import Tree
from pgrad.math.scan import forward_scan
from pgrad.models.encoder import is_image


class RunningMoments(nn.Module):
    """Weighted mean and population variance of everything seen, merged batch by batch (Chan et al. 1979).

    Statistics are float64; `scale` and `shift` are their float32 use. Before any data: shift 0, scale 1.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("m2", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    @torch.no_grad()
    def update(self, x: Tensor, weight: Tensor) -> None:
        """Merge x [*rows, *shape], each row with its weight [*rows]; rows of weight 0 may hold anything."""
        x = x.reshape(-1, *self.mean.shape).to(torch.float64)
        column = weight.reshape(-1, *[1] * self.mean.ndim).to(torch.float64)
        x = torch.where(column > 0, x, 0.0)
        count = weight.sum(dtype=torch.float64)
        total = self.count + count
        mean = (column * x).sum(0) / count.clamp(min=1e-300)
        m2 = (column * (x - mean) ** 2).sum(0)
        gap = mean - self.mean
        part = count / total.clamp(min=1e-300)
        self.m2 += m2 + gap**2 * self.count * part
        self.mean += gap * part
        self.count.copy_(total)
        std = (self.m2 / total.clamp(min=1e-300) + 1e-8).sqrt()
        if_any = total > 0
        self.shift.copy_(torch.where(if_any, self.mean, 0.0))
        self.scale.copy_(torch.where(if_any, 1.0 / std, 1.0))


class ObservationNormalizer(nn.Module):
    """x ↦ clip((x − μ)/σ, ±10) for every Box in the observation but images; the rest passes unchanged."""

    def __init__(self, space: spaces.Space[Any], clip: float = 10.0) -> None:
        super().__init__()
        self.clip = clip
        self.is_box = isinstance(space, spaces.Box) and not is_image(space)
        self.moments = RunningMoments(tuple(space.shape or ())) if self.is_box else None
        inside = space.spaces if isinstance(space, spaces.Dict | spaces.Tuple) else ()
        self.keys: tuple[Any, ...] = tuple(inside) if isinstance(inside, dict) else tuple(range(len(inside)))
        self.parts = nn.ModuleList(ObservationNormalizer(inside[key], clip) for key in self.keys)

    def forward(self, obs: Tree) -> Tree:
        """Normalised observations, same structure and shapes; float32 where normalised."""
        if self.moments is not None:
            return ((obs - self.moments.shift) * self.moments.scale).clamp(-self.clip, self.clip)
        if not self.keys:
            return obs
        normalized = {key: part(obs[key]) for key, part in zip(self.keys, self.parts, strict=True)}
        return normalized if isinstance(obs, dict) else tuple(normalized.values())

    def update(self, obs: Tree, weight: Tensor) -> None:
        """Merge fresh observations [T, B, ...] with the weight of each decision [T, B]."""
        if self.moments is not None:
            self.moments.update(obs, weight)
        for key, part in zip(self.keys, self.parts, strict=True):
            part.update(obs[key], weight)  # type: ignore[operator]


class RewardScaler(nn.Module):
    """r ↦ clip(r / σ(R), ±10), with R the running discounted return of each environment (Engstrom et al.
    2020).

    The mean is not subtracted, so the sign of a reward never changes. R restarts with every episode.
    """

    running: Tensor

    def __init__(self, gamma: float, clip: float = 10.0) -> None:
        super().__init__()
        self.gamma, self.clip = gamma, clip
        self.moments = RunningMoments(())
        self.register_buffer("running", torch.zeros(0))

    def forward(self, reward: Tensor) -> Tensor:
        """Scaled rewards, same shape."""
        return (reward * self.moments.scale).clamp(-self.clip, self.clip)

    @torch.no_grad()
    def update(self, reward: Tensor, done: Tensor, mask: Tensor) -> None:
        """Follow the returns of a fresh trajectory, all [T, B]: Rₜ = rₜ + γ·(1 − doneₜ₋₁)·Rₜ₋₁."""
        if self.running.shape != reward.shape[1:]:
            self.running = reward.new_zeros(reward.shape[1:])
        goes_on = self.gamma * (~done).to(reward.dtype)
        first = reward[:1] + self.running
        x = torch.cat([first, reward[1:]])
        decay = torch.cat([torch.zeros_like(first), goes_on[:-1]])
        returns = forward_scan(decay, x)
        self.moments.update(returns, mask)
        self.running = goes_on[-1] * returns[-1]
