"""A pendulum to be swung up and held: Gymnasium's Pendulum-v1 for a batch of states."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgrad.worlds.tensors.draw import Picture, canvas, paint


@dataclass(frozen=True)
class Pendulum:
    """Swing a pendulum up and hold it there with a torque too weak to lift it at once.

    State [B, 3]: θ (rad from upright, positive counter-clockwise), θ̇ (rad/s), and the last torque u (N·m),
    which is only drawn. θ starts uniform in ±π, θ̇ in ±1. The action [B, 1], clipped to ±max_torque, is u, and

        r = −(ψ² + 0.1·θ̇² + 0.001·u²),  ψ = θ wrapped to [−π, π)
        θ̇ ← clip(θ̇ + (3g/(2l)·sin θ + 3/(m·l²)·u)·dt, ±max_speed)
        θ ← θ + θ̇·dt

    Observation [B, 3]: cos θ, sin θ, θ̇. The task never ends; an episode lasts 200 steps.

    Source: `gymnasium.envs.classic_control.pendulum`.
    """

    gravity: float = 10.0
    mass: float = 1.0
    length: float = 1.0
    max_torque: float = 2.0
    max_speed: float = 8.0
    dt: float = 0.05
    max_episode_steps: int = 200
    noise: int = 2
    name: str = "pendulum"

    @property
    def observation_space(self) -> Box:
        """cos θ, sin θ and θ̇."""
        high = np.array([1.0, 1.0, self.max_speed], dtype=np.float32)
        return Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> Box:
        """The torque."""
        return Box(-self.max_torque, self.max_torque, (1,), np.float32)

    def start(self, noise: Tensor) -> Tensor:
        """The first state of an episode [B, 3]."""
        theta, theta_dot = (2 * noise - 1).unbind(-1)
        return torch.stack((math.pi * theta, theta_dot, torch.zeros_like(theta)), -1)

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next state [B, 3], the reward [B] and whether the task ended [B] (never)."""
        theta, theta_dot, _ = state.unbind(-1)
        torque = action[:, 0].clamp(-self.max_torque, self.max_torque)
        wrapped = torch.remainder(theta + math.pi, 2 * math.pi) - math.pi
        reward = -(wrapped.square() + 0.1 * theta_dot.square() + 0.001 * torque.square())
        gravity = 3 * self.gravity / (2 * self.length)
        theta_acc = gravity * theta.sin() + 3.0 / (self.mass * self.length**2) * torque
        theta_dot = (theta_dot + theta_acc * self.dt).clamp(-self.max_speed, self.max_speed)
        theta = theta + theta_dot * self.dt
        state = torch.stack((theta, theta_dot, torque.to(theta.dtype)), -1)
        return state, reward, torch.zeros_like(theta, dtype=torch.bool)

    def observe(self, state: Tensor) -> Tensor:
        """cos θ, sin θ and θ̇, float32 [B, 3]."""
        theta, theta_dot, _ = state.unbind(-1)
        return torch.stack((theta.cos(), theta.sin(), theta_dot), -1).float()

    def draw(self, state: Tensor, i: int) -> Picture:
        """The pendulum, and the torque as an arc around its pivot, uint8 [384, 384, 3]."""
        theta, _, torque = state[i].tolist()
        picture = canvas(384, 384, (250, 250, 252))
        centre, reach = 192.0, 140.0

        def polar(angle: float, radius: float) -> tuple[float, float]:
            return centre - radius * math.sin(angle), centre - radius * math.cos(angle)

        paint(picture, [polar(0.0, reach)], 22.0, (228, 231, 238))
        paint(picture, [polar(theta, 0.0), polar(theta, reach)], 9.0, (201, 96, 88))
        paint(picture, [polar(theta, reach)], 18.0, (201, 96, 88))
        paint(picture, [polar(0.0, 0.0)], 6.0, (52, 61, 82))
        sweep = 2.2 * torque / self.max_torque
        arc = [polar(theta + math.pi + sweep * (k / 24 - 0.5), 48.0) for k in range(25)]
        if abs(sweep) > 0.15:
            for start, end in pairwise(arc):
                paint(picture, [start, end], 2.5, (84, 120, 196))
            forward = theta + math.pi + sweep / 2
            barbs = [
                polar(forward, 39.0),
                polar(forward, 57.0),
                polar(forward + math.copysign(0.3, sweep), 48.0),
            ]
            paint(picture, barbs, 1.0, (84, 120, 196))
        return picture
