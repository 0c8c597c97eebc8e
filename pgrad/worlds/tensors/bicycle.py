"""A bicycle to be kept upright with its handlebar, for a batch of states."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgrad.worlds.tensors.draw import Picture
from pgrad.worlds.tensors.draw_bicycle import Ride, draw_ride


@dataclass(frozen=True)
class Bicycle:
    """Keep a rolling bicycle from falling over by turning its handlebar; its speed stays.

    State [B, 7]: lean φ (rad, positive to the right), φ̇ (rad/s), speed v (m/s), handlebar δ (rad, positive to
    the right), and where it is, which is only drawn: heading ψ (rad) and place x, y (m). φ starts uniform in
    ±`initial_lean`, v in `speed` ± `speed_spread`; all else is 0. The action [B, 1], clipped to ±`max_steer`,
    is the handlebar angle u that is wanted; the handlebar gets there at `steer_rate` rad/s at most:

        δ̇ = clip((u − δ)/dt, ±steer_rate),  δ ← δ + δ̇·dt
        φ̈ = (g/h)·sin φ − cos φ·(v²·tan δ + a·v·δ̇)/(b·h)
        φ̇ ← φ̇ + φ̈·dt,  φ ← φ + φ̇·dt
        ψ ← ψ + (v/b)·tan δ·dt,  x ← x + v·sin ψ·dt,  y ← y + v·cos ψ·dt

    with all mass at height h = `height`, a = `ahead` in front of where the rear wheel touches the ground, and
    wheels b = `wheelbase` apart. Steering into a fall pushes the wheels back under the rider: by v²·tan δ as
    long as the handlebar is turned, by a·v·δ̇ while it turns. With a = 0 the second term is gone, and steering
    in proportion to the lean does not damp it.

    Reward 1 for every step, but −`fall_cost` for the one that falls: |φ| > `max_lean`, the end of the task.
    An episode lasts at most 500 steps; no return is over 500, and none with a fall over 499 − `fall_cost`.

    Observation: φ, φ̇, v and δ [B, 4]; where not `rates_seen` only φ and v [B, 2]: what a beginner looks at.

    Source: Åström, Klein & Lennartsson 2005, "Bicycle dynamics and control", IEEE Control Systems 25(4), the
    point-mass model (there linear: sin φ = φ, cos φ = 1, tan δ = δ; δ̇ is linear here too).
    """

    gravity: float = 9.81
    height: float = 1.0
    wheelbase: float = 1.0
    ahead: float = 0.5
    speed: float = 4.0
    speed_spread: float = 1.0
    initial_lean: float = math.radians(5.0)
    max_lean: float = math.radians(45.0)
    max_steer: float = math.radians(60.0)
    steer_rate: float = 6.0
    fall_cost: float = 100.0
    dt: float = 0.01
    rates_seen: bool = True
    max_episode_steps: int = 500
    noise: int = 2
    name: str = "bicycle"

    @property
    def observation_space(self) -> Box:
        """Twice the lean at which it falls, which its last state is within; the lean rate is unbounded."""
        lean, slow, fast = 2 * self.max_lean, self.speed - self.speed_spread, self.speed + self.speed_spread
        low, high = [-lean, -np.inf, slow, -self.max_steer], [lean, np.inf, fast, self.max_steer]
        seen = slice(None) if self.rates_seen else slice(0, 3, 2)
        return Box(np.asarray(low, np.float32)[seen], np.asarray(high, np.float32)[seen], dtype=np.float32)

    @property
    def action_space(self) -> Box:
        """The handlebar angle that is wanted."""
        return Box(-self.max_steer, self.max_steer, (1,), np.float32)

    def start(self, noise: Tensor) -> Tensor:
        """The first state of an episode [B, 7]."""
        lean, faster = (2 * noise - 1).unbind(-1)
        rest = torch.zeros_like(lean)
        speed = self.speed + self.speed_spread * faster
        return torch.stack((self.initial_lean * lean, rest, speed, rest, rest, rest, rest), -1)

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next state [B, 7], the reward [B] and whether it fell [B]."""
        lean, lean_rate, speed, steer, heading, x, y = state.unbind(-1)
        wanted = action[:, 0].to(state.dtype).clamp(-self.max_steer, self.max_steer)
        turned = (wanted - steer).clamp(-self.steer_rate * self.dt, self.steer_rate * self.dt)
        steer = steer + turned
        push = speed.square() * steer.tan() + self.ahead * speed * turned / self.dt
        fall = self.gravity * lean.sin() - lean.cos() * push / self.wheelbase
        lean_rate = lean_rate + fall * (self.dt / self.height)
        lean = lean + lean_rate * self.dt
        heading = heading + speed * steer.tan() * (self.dt / self.wheelbase)
        x, y = x + speed * heading.sin() * self.dt, y + speed * heading.cos() * self.dt
        fallen = lean.abs() > self.max_lean
        reward = torch.ones_like(lean, dtype=torch.float32).masked_fill(fallen, -self.fall_cost)
        return torch.stack((lean, lean_rate, speed, steer, heading, x, y), -1), reward, fallen

    def observe(self, state: Tensor) -> Tensor:
        """φ, φ̇, v, δ, float32 [B, 4], or φ, v [B, 2]."""
        return (state[:, :4] if self.rates_seen else state[:, 0:3:2]).float()

    def draw(self, state: Tensor, i: int) -> Picture:
        """The rider from behind, and the handlebar from above, uint8 [384, 576, 3]."""
        lean, _, _, steer, heading, x, y = state[i].tolist()
        return draw_ride(Ride(lean, steer, heading, x, y, fallen=abs(lean) > self.max_lean))
