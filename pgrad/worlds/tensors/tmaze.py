"""A corridor that ends in a T: which way to turn was said at its beginning, once."""

from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from pgrad.errors import UsageError
from pgrad.worlds.tensors.draw import Picture, canvas, paint

FORWARD, BACK, LEFT, RIGHT = range(4)


@dataclass(frozen=True)
class TMaze:
    """Walk down a corridor and turn at its end to the side that a signal named at the first step.

    State [B, 4]: the signal (−1 left, 1 right, each with probability ½), the place 0 … `length` (the
    junction), 1 at the first step and 0 after it, and the side turned to (−1, 1; 0 before). Observation
    [B, 3]: the signal at the first step and 0 after it, whether this is the corridor, whether this is the
    junction. Actions: 0 forward, 1 back, 2 left, 3 right. At the junction left and right end the task, with
    reward 1 on the side of the signal and −1 on the other; everything else costs `detour_cost`, but forward
    in the corridor nothing.

    With memory the best return is 1. Without it none is above 0, half of the turns being wrong: at the
    junction a policy of the present observation, even one that samples, turns left as often for both signals,
    so that a turn is worth 0 on average; and to turn for one signal only, waiting for the clock with the
    other, costs more than the turn earns.

    Raises UsageError where the corridor has no place, is longer than an episode, or waiting is that cheap.

    Source: Bakker 2002, "Reinforcement learning with long short-term memory", NIPS 14; the rewards are ours
    (there 4 for the right turn, −0.1 for the wrong one and for standing still).
    """

    length: int = 10
    detour_cost: float = 0.1
    max_episode_steps: int = 60
    noise: int = 1
    name: str = "t-maze"

    def __post_init__(self) -> None:
        if not 1 <= self.length < self.max_episode_steps:
            raise UsageError(
                f"length must be at least 1 and less than max_episode_steps ({self.max_episode_steps}), "
                f"got {self.length}"
            )
        wait = self.detour_cost * (self.max_episode_steps - self.length)
        if wait < 1.0:
            raise UsageError(
                f"detour_cost · (max_episode_steps − length) must be at least 1, or waiting is better than "
                f"turning; got {wait:g}"
            )

    @property
    def best_return(self) -> float:
        """Of a policy that remembers the signal, undiscounted."""
        return 1.0

    @property
    def best_memoryless_return(self) -> float:
        """Of a policy that sees the present observation only, undiscounted."""
        return 0.0

    @property
    def observation_space(self) -> Box:
        """Signal, corridor, junction."""
        return Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32), dtype=np.float32)

    @property
    def action_space(self) -> Discrete:
        """Forward, back, left, right."""
        return Discrete(4)

    def start(self, noise: Tensor) -> Tensor:
        """The first state of an episode [B, 4]."""
        signal = (noise[:, 0] >= 0.5).to(noise.dtype) * 2 - 1
        return torch.stack((signal, 0 * signal, torch.ones_like(signal), 0 * signal), -1)

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next state [B, 4], the reward [B] and whether a turn ended the task [B]."""
        signal, place, _, _ = state.unbind(-1)
        junction = place >= self.length
        side = ((action == RIGHT).to(place.dtype) - (action == LEFT).to(place.dtype)) * junction
        move = (action == FORWARD).to(place.dtype) - (action == BACK).to(place.dtype)
        turned, free = side != 0, ~junction & (action == FORWARD)
        reward = torch.where(turned, side * signal, -self.detour_cost).masked_fill(free, 0.0)
        place = (place + move).clamp(0, self.length)
        return torch.stack((signal, place, torch.zeros_like(place), side), -1), reward, turned

    def observe(self, state: Tensor) -> Tensor:
        """Signal, corridor, junction, float32 [B, 3]."""
        signal, place, begun, _ = state.unbind(-1)
        junction = (place >= self.length).to(state.dtype)
        return torch.stack((signal * begun, 1 - junction, junction), -1).float()

    def draw(self, state: Tensor, i: int) -> Picture:
        """The maze from above, walked to the right; the sign at its beginning, and a flag where it points to.

        uint8 [192, 576, 3].
        """
        signal, place, begun, side = state[i].tolist()
        picture = canvas(192, 576, (250, 250, 252))
        size, middle = 480.0 / max(self.length, 1), 96.0

        def at(along: float, across: float) -> tuple[float, float]:
            return 48.0 + size * along, middle + 58.0 * across

        half = min(20.0, 0.4 * size)
        floor, wall, ink = (222, 226, 234), (176, 182, 194), (52, 61, 82)
        for colour, wide in ((wall, half + 4), (floor, half)):
            paint(picture, [at(0, 0), at(self.length, 0)], wide, colour)
            paint(picture, [at(self.length, -1), at(self.length, 1)], wide, colour)
        for step in range(self.length + 1):
            paint(picture, [at(step, 0)], 2.0, wall)
        flag_x, flag_y = at(self.length, signal)
        paint(picture, [(flag_x - 6, flag_y + 9), (flag_x - 6, flag_y - 9)], 1.2, ink)
        flag = [(flag_x - 4, flag_y - 8), (flag_x + 9, flag_y - 3), (flag_x - 4, flag_y + 2)]
        paint(picture, flag, 1.0, (0, 158, 115))
        lit = (213, 94, 0) if begun else (214, 218, 226)
        x, y = at(0, 0.75 * signal)
        paint(picture, [(x, y - 9 * signal), (x, y + 5 * signal)], 3.0, lit)
        paint(picture, [(x - 9, y + 5 * signal), (x + 9, y + 5 * signal), (x, y + 15 * signal)], 1.0, lit)
        x, y = at(place, side)
        paint(picture, [(x, y)], 0.75 * half, (0, 114, 178))
        look = (0.0, 0.3 * side * half) if side else (0.3 * half, 0.0)
        paint(picture, [(x + look[0], y + look[1])], 0.22 * half, (250, 250, 252))
        return picture
