"""Finite Markov decision processes: small enough to enumerate, and worlds like any other."""

from dataclasses import dataclass, field

import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from pgrad.errors import UsageError
from pgrad.worlds.tensors.draw import Picture, canvas, paint


@dataclass(frozen=True, eq=False)
class Tabular:
    """A finite MDP: p(s₀) = rho0(s₀), p(s'|s, a) = P[s, a, s'], reward r[s, a], all in float64.

    With a `horizon` T the task ends after T decisions; without one it goes on for ever, or until it enters a
    state of `terminal`. States with the same `observation` look alike (a POMDP). Tables may be tensors,
    arrays or nested lists.

    As a world its state [B, 2] is (s, t), an agent sees observation[s], and without a horizon a clock cuts
    episodes after `time_limit` steps (truncation: the task itself has not ended).

    Raises UsageError where shapes differ, probabilities are negative or do not sum to 1, or an entry is NaN.
    """

    P: Tensor  # [S, A, S]
    r: Tensor  # [S, A]
    rho0: Tensor  # [S]
    horizon: int | None = None  # T, decisions after which the task ends
    observation: Tensor = None  # type: ignore[assignment]  # [S] whole numbers 0 … O−1; None: every state is seen as it is
    terminal: Tensor = None  # type: ignore[assignment]  # [S] bool: entering this state ends the task
    time_limit: int = 1000  # the clock of a world without a horizon
    name: str = "tabular"
    noise: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        number = torch.float64
        self._set("P", _table(self.P, "P", number))
        if self.P.dim() != 3 or self.P.shape[0] != self.P.shape[2] or 0 in self.P.shape:
            raise UsageError(f"P must have shape [S, A, S], got {list(self.P.shape)}")
        n_states, n_actions, _ = self.P.shape
        self._set("r", _table(self.r, "r", number, n_states, n_actions))
        self._set("rho0", _table(self.rho0, "rho0", number, n_states))
        seen = list(range(n_states)) if self.observation is None else self.observation
        self._set("observation", _table(seen, "observation", torch.int64, n_states))
        ends = torch.zeros(n_states) if self.terminal is None else self.terminal
        self._set("terminal", _table(ends, "terminal", torch.bool, n_states))
        if not bool(self.r.isfinite().all()):
            raise UsageError("every reward in r must be finite")
        for name, p in (("P", self.P), ("rho0", self.rho0)):
            if bool((p < 0).any()) or bool(((p.sum(-1) - 1).abs() > 1e-9).any()):
                raise UsageError(f"every row of {name} must be probabilities ≥ 0 that sum to 1")
        observed = sorted(set(self.observation.tolist()))
        if observed != list(range(len(observed))):
            raise UsageError(f"observations must be numbered 0, 1, … without a gap, got {observed}")
        if bool((self.rho0 * self.terminal).any()):
            raise UsageError("no episode may start in a terminal state")
        for name, value, least in (("horizon", self.horizon, 1), ("time_limit", self.time_limit, 1)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise UsageError(f"{name} must be a whole number of at least {least}, got {value!r}")

    @property
    def n_states(self) -> int:
        """S."""
        return self.P.shape[0]

    @property
    def n_actions(self) -> int:
        """A."""
        return self.P.shape[1]

    @property
    def n_observations(self) -> int:
        """O, how many states an agent can tell apart."""
        return int(self.observation.max()) + 1

    @property
    def observation_space(self) -> Discrete:
        """0 … O−1."""
        return Discrete(self.n_observations)

    @property
    def action_space(self) -> Discrete:
        """0 … A−1."""
        return Discrete(self.n_actions)

    @property
    def max_episode_steps(self) -> int | None:
        """A horizon is part of the task; without one a clock ends episodes."""
        return self.time_limit if self.horizon is None else None

    def start(self, noise: Tensor) -> Tensor:
        """s₀ ~ rho0 at t = 0, [B, 2]."""
        state = _draw(self.rho0.to(noise), noise)
        return torch.stack([state, torch.zeros_like(state)], dim=-1)

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """s' ~ P[s, a] at t + 1 [B, 2], r[s, a] [B], and whether the task ended [B]."""
        s, t = state[:, 0].long(), state[:, 1] + 1
        after = _draw(self.P.to(noise)[s, action], noise)
        terminated = self.terminal.to(noise.device)[after.long()]
        if self.horizon is not None:
            terminated = terminated | (t >= self.horizon)
        return torch.stack([after, t], dim=-1), self.r.to(noise)[s, action], terminated

    def observe(self, state: Tensor) -> Tensor:
        """What the agent sees of s, int64 [B]."""
        return self.observation.to(state.device)[state[:, 0].long()]

    def draw(self, state: Tensor, i: int) -> Picture:
        """The states in a row, the present one filled, uint8 [96, 64·S, 3]."""
        picture = canvas(96, 64 * self.n_states, (250, 250, 252))
        for s in range(self.n_states):
            colour = (84, 120, 196) if s == int(state[i, 0]) else (214, 218, 226)
            paint(picture, [(32.0 + 64 * s, 48.0)], 20.0, colour)
        return picture

    def _set(self, name: str, value: Tensor) -> None:
        object.__setattr__(self, name, value)


def _table(given: object, name: str, dtype: torch.dtype, *shape: int) -> Tensor:
    try:
        x = given if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given))  # in double precision
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name} is not a table of numbers: {str(error).splitlines()[0]}") from None
    if shape and tuple(x.shape) != shape:
        raise UsageError(f"{name} must have shape {list(shape)}, got {list(x.shape)}")
    converted = x.to(dtype)
    if not bool((converted.to(torch.float64) == x.to(torch.float64)).all()):
        raise UsageError(f"{name} has an entry that is NaN or not of the right kind ({dtype})")
    return converted


def _draw(p: Tensor, noise: Tensor) -> Tensor:
    """One outcome per row of `noise` [B, 1], by inverting the distribution function of p [..., S]."""
    below = p.cumsum(-1)[..., :-1] <= noise
    return below.sum(-1).to(noise.dtype)


REFERENCE = Tabular(
    P=torch.tensor(
        [
            [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]],
            [[0.3, 0.4, 0.3], [0.1, 0.1, 0.8]],
            [[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]],
        ],
        dtype=torch.float64,
    ),
    r=torch.tensor([[1.0, 0.0], [0.5, -0.5], [-1.0, 2.0]], dtype=torch.float64),
    rho0=torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
    horizon=4,
    name="lab-3x2x4",
)
"""The laboratory's reference problem: 3 states, 2 actions, 4 decisions. Best return 3.8535 (γ = .9)."""
