"""What a world is: a batch of environments that are stepped together."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from gymnasium import Space
from torch import Tensor

from pgrad.data.tree import Tree


class Step(NamedTuple):
    """What a world answered to a batch of actions. Views of its buffers: copy before the next step."""

    obs: Tree  # [B, ...]; in a `Masked` where the world forbids actions
    reward: Tensor  # [B] float32
    terminated: Tensor  # [B] bool  the task ended; or a life was lost, and the episode goes on
    truncated: Tensor  # [B] bool  the clock ended the episode; false where `terminated`


@runtime_checkable
class World(Protocol):
    """B environments behind tensors, with next-step auto-reset and a state that can be taken out and put
    back.

    Where `ended` is true the next `step` ignores the action, starts a new episode and answers its first
    observation with reward 0 and both flags false: the observation returned *with* the flags is the true last
    one.
    """

    name: str
    n_envs: int
    device: torch.device
    observation_space: Space[Any]  # of one environment
    action_space: Space[Any]  # of one environment

    @property
    def ended(self) -> Tensor:
        """[B] bool: the episode is over, the next step resets."""
        ...

    def reset(self, group: int = 1) -> Tree:
        """Start a new episode in every environment; returns the first observations [B, ...].

        `group` divides B; environments g·group … (g + 1)·group − 1 start where the first of them starts, and
        draw the same random numbers from there on. Raises UsageError where that cannot be done.
        """
        ...

    def step(self, action: Tree, active: Tensor | None = None) -> Step:
        """Step with actions as sampled [B, ...]; the world clips or shifts them to its own bounds.

        They may be in buffers that are overwritten before the next step: a world copies what it keeps.

        Environments where `active` [B] is false are left alone: same observation, reward 0, flags false.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """The exact state, in mid-episode too: nested dicts of tensors and plain JSON values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> Tree:
        """Put a state back; returns the current observations. Raises WorldError where it cannot be exact."""
        ...

    def render(self) -> Any:
        """An RGB picture of environment 0, uint8 [H, W, 3]."""
        ...

    def close(self) -> None:
        """Give back what the world holds: windows, processes."""
        ...
