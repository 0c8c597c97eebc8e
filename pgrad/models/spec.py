"""What an agent is built from."""

from dataclasses import dataclass
from typing import Literal

from pgrad.errors import UsageError
from pgrad.models.bodies import ACTIVATIONS
from pgrad.models.cells import CELLS


@dataclass(frozen=True)
class AgentSpec:
    """How an agent is built from a world's spaces."""

    net_arch: tuple[int, ...] = (64, 64)
    """widths of the hidden layers, of actor and critic each (images have shared convolutions instead)"""
    activation: Literal["tanh", "relu", "elu", "gelu", "silu"] = "tanh"
    """activation of the hidden layers"""
    log_std_init: float = 0.0
    """first log σ of a Gaussian policy"""
    learn_std: bool = True
    """learn σ of a Gaussian policy (otherwise it stays as it is)"""
    normalize_obs: bool = False
    """normalise observations by their running mean and variance"""
    normalize_reward: bool = False
    """scale rewards by the running deviation of the discounted return"""
    sign_reward: bool | None = None
    """learn from the sign of rewards alone; none: only in Atari games, unless they are normalised"""
    memory: Literal["none", "gru", "lstm"] = "none"
    """what the agent remembers of earlier observations of an episode with: actor and critic each their own"""
    memory_size: int = 64
    """units of the memory"""
    sequence_length: int = 16
    """decisions in a row through which minibatches teach the memory; shorter is faster"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """precision of the matrix products in hidden layers and convolutions; all else stays float32"""

    @property
    def half(self) -> bool:
        """Whether matrices are multiplied in half precision."""
        return self.dtype == "bfloat16"

    def __post_init__(self) -> None:
        widths = self.net_arch
        if not isinstance(widths, tuple | list) or any(not isinstance(n, int) or n < 1 for n in widths):
            raise UsageError(f"net_arch must be widths such as (64, 64), got {widths!r}")
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if self.memory not in ("none", *CELLS):
            raise UsageError(f"memory must be one of none, {', '.join(CELLS)}, got {self.memory!r}")
        if self.dtype not in ("float32", "bfloat16"):
            raise UsageError(f"dtype must be float32 or bfloat16, got {self.dtype!r}")
        for name in ("memory_size", "sequence_length"):
            number = getattr(self, name)
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise UsageError(f"{name} must be a whole number ≥ 1, got {number!r}")
        if self.sign_reward and self.normalize_reward:
            raise UsageError("sign_reward and normalize_reward exclude one another")
        if not -20.0 <= self.log_std_init <= 2.0:
            raise UsageError(f"log_std_init must be in [-20, 2], got {self.log_std_init}")
