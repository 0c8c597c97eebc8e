"""A pole balanced on a cart: Gymnasium's CartPole-v1 for a batch of states."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from pgrad.worlds.tensors.draw import Picture, canvas, paint


@dataclass(frozen=True)
class CartPole:
    """Keep a pole upright by pushing its cart to the left (action 0) or to the right (action 1).

    State [B, 4] and observation: x (m), ẋ (m/s), θ (rad from upright, positive to the right), θ̇ (rad/s), each
    uniform in ±0.05 at first. With M = mass_cart + mass_pole, l = half_length and μ = mass_pole·l/M:

        u  = ±force/M + μ·θ̇²·sin θ
        θ̈ = (g·sin θ − u·cos θ) / (4l/3 − μ·cos²θ)
        ẍ  = u − μ·θ̈·cos θ

    integrated by an explicit Euler step of `dt` seconds. Reward 1 for every step. The task ends where
    |x| > `max_position` or |θ| > `max_angle`; an episode lasts at most 500 steps.

    Where not `velocities_seen` the observation is x and θ only, [B, 2]: which way the pole is falling must
    then be remembered from one step to the next.

    Source: Barto, Sutton & Anderson 1983, "Neuronlike adaptive elements that can solve difficult learning
    control problems", without friction, as in `gymnasium.envs.classic_control.cartpole`.
    """

    gravity: float = 9.8
    mass_cart: float = 1.0
    mass_pole: float = 0.1
    half_length: float = 0.5
    force: float = 10.0
    dt: float = 0.02
    max_position: float = 2.4
    max_angle: float = math.radians(12.0)
    velocities_seen: bool = True
    max_episode_steps: int = 500
    noise: int = 4
    name: str = "cartpole"

    @property
    def observation_space(self) -> Box:
        """Twice the limits of a running episode, which its last state is within; velocities unbounded."""
        high = np.array([2 * self.max_position, np.inf, 2 * self.max_angle, np.inf], dtype=np.float32)
        high = high if self.velocities_seen else high[::2]
        return Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> Discrete:
        """0 pushes to the left, 1 to the right."""
        return Discrete(2)

    def start(self, noise: Tensor) -> Tensor:
        """The first state of an episode [B, 4]."""
        return noise * 0.1 - 0.05

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next state [B, 4], the reward [B] and whether the task ended [B]; action [B] is 0 or 1."""
        _, x_dot, theta, theta_dot = state.unbind(-1)
        mass = self.mass_cart + self.mass_pole
        mu = self.mass_pole * self.half_length / mass
        cos, sin = theta.cos(), theta.sin()
        force = action.to(state.dtype) * (2 * self.force / mass) - self.force / mass
        push = force + mu * theta_dot.square() * sin
        theta_acc = (self.gravity * sin - push * cos) / (4 / 3 * self.half_length - mu * cos.square())
        x_acc = push - mu * theta_acc * cos
        rate = torch.stack((x_dot, x_acc, theta_dot, theta_acc), -1)
        state = torch.add(state, rate, alpha=self.dt)
        x, _, theta, _ = state.unbind(-1)
        terminated = (x.abs() > self.max_position) | (theta.abs() > self.max_angle)
        return state, torch.ones_like(x, dtype=torch.float32), terminated

    def observe(self, state: Tensor) -> Tensor:
        """The state itself, float32 [B, 4], or x and θ [B, 2]."""
        return (state if self.velocities_seen else state[:, ::2]).float()

    def draw(self, state: Tensor, i: int) -> Picture:
        """The cart on its track with the limits of the task marked, uint8 [384, 576, 3]."""
        x, _, theta, _ = state[i].tolist()
        picture = canvas(384, 576, (250, 250, 252))
        scale, ground = 576 / (2.25 * self.max_position), 290.0
        centre, axle = 288 + scale * x, ground - 28
        paint(picture, [(-9.0, ground), (585.0, ground)], 1.5, (176, 182, 194))
        for limit in (-self.max_position, self.max_position):
            at = 288 + scale * limit
            paint(picture, [(at, ground - 10), (at, ground + 10)], 1.5, (214, 92, 92))
        for wheel in (centre - 20, centre + 20):
            paint(picture, [(wheel, ground - 8)], 7.0, (120, 127, 143))
        left, right, top, bottom = centre - 30, centre + 30, axle - 6, axle + 12
        paint(picture, [(left, top), (right, top), (right, bottom), (left, bottom)], 6.0, (52, 61, 82))
        length = 2 * self.half_length * scale
        tip = (centre + length * math.sin(theta), axle - length * math.cos(theta))
        paint(picture, [(centre, axle), tip], 6.0, (214, 158, 98))
        paint(picture, [(centre, axle)], 4.0, (250, 250, 252))
        return picture
