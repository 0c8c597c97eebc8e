"""What the laboratory looks at: a finite problem, a policy on it, and a second policy some way off."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, islice
from pathlib import Path

import torch
from torch import Generator, Tensor

from pgrad.data import Trajectory
from pgrad.errors import UsageError
from pgrad.extras import nearest
from pgrad.lab.enumerate import every_trajectory
from pgrad.worlds.tensors.tabular import REFERENCE, Tabular

N_PROBLEMS = 20
"""Random problems that every claim is tried on."""

MAX_TRAJECTORIES = 200_000
"""More than this many are refused: an expectation over them would take minutes and gigabytes."""


@dataclass(frozen=True, eq=False)
class Case:
    """A problem, the tabular softmax policy whose gradient is asked for, and the one that acted.

    π(a|s) = softmax(theta[observation[s]])[a] and μ likewise from `behaviour`. All is float64.
    """

    problem: Tabular
    theta: Tensor  # [O, A]  the policy whose gradient is asked for
    direction: Tensor  # [O, A]  where to look for other policies: theta + c·direction
    gamma: float = 0.9
    behaviour: Tensor | None = None  # [O, A]  the policy that acted; None: theta, on-policy
    seed: int | None = None  # of a random case; None where numbers can be held against the audit
    window: int = 3  # decisions looked at where the problem has no horizon
    name: str = "a problem"

    def __post_init__(self) -> None:
        shape = (self.problem.n_observations, self.problem.n_actions)
        for name in ("theta", "direction", "behaviour"):
            table = getattr(self, name)
            if table is not None and (table.shape != shape or table.dtype != torch.float64):
                raise UsageError(
                    f"{name} must be float64 of shape {list(shape)} (observations, actions), got "
                    f"{table.dtype} {list(table.shape)}"
                )

    @property
    def steps(self) -> int:
        """T, the decisions of the longest trajectory."""
        return self.window if self.problem.horizon is None else self.problem.horizon

    @property
    def actor(self) -> Tensor:
        """The policy that acted, [O, A]."""
        return self.theta if self.behaviour is None else self.behaviour

    @cached_property
    def trajectory(self) -> Trajectory:
        """Everything that can happen as one record [T, K], with mask = p(τ) under the policy that acted."""
        return every_trajectory(self.problem, self.actor, self.steps, MAX_TRAJECTORIES)

    def at(self, c: float) -> "Case":
        """Off-policy: the policy theta + c·direction is asked about, and theta acted."""
        return replace(self, theta=self.theta + c * self.direction, behaviour=self.theta)

    def on(self, theta: Tensor) -> "Case":
        """On-policy at another policy."""
        return replace(self, theta=theta, behaviour=None)

    def draws(self, salt: int = 0) -> Generator:
        """A generator of this case's own random numbers, for claims that need some."""
        return Generator().manual_seed(1_000_003 * (0 if self.seed is None else self.seed + 1) + salt)


def reference(gamma: float = 0.9) -> Case:
    """The audit's problem "Lab-3x2x4": 3 states, 2 actions, 4 decisions, 1296 trajectories."""
    theta = torch.tensor([[0.3, -0.2], [-0.5, 0.4], [0.8, -0.6]], dtype=torch.float64)
    direction = torch.tensor([[0.5, -0.5], [0.6, -0.6], [-0.7, 0.7]], dtype=torch.float64)
    return Case(REFERENCE, theta, direction, gamma, name="the reference problem")


def random_case(
    seed: int,
    *,
    n_states: int | None = None,
    n_actions: int | None = None,
    horizon: int | None = None,
    gamma: float | None = None,
    n_observations: int | None = None,
    n_terminal: int = 0,
    endless: bool = False,
) -> Case:
    """A problem of random size and numbers: Dirichlet-like transitions, normal rewards and policies.

    By default 2 or 3 states and actions and 2 or 3 decisions, γ in [.6, .95]. `n_terminal` states end the
    task when entered, so that episodes differ in length; `endless` removes the horizon and looks at windows;
    `n_observations` below the number of states makes some look alike.
    """
    draw = Generator().manual_seed(seed)
    sizes = torch.randint(2, 4, (3,), generator=draw).tolist()
    S, A, T = n_states or sizes[0], n_actions or sizes[1], horizon or sizes[2]
    unit = torch.rand(S * A * S + S + 1, generator=draw, dtype=torch.float64)
    weight = -(1 - unit).log()  # exponential variables, normalised: uniform on the simplex
    P = weight[: S * A * S].reshape(S, A, S) + 0.05
    terminal = torch.arange(S) >= S - n_terminal
    rho0 = (weight[S * A * S : -1] + 0.05).masked_fill(terminal, 0.0)
    O = n_observations or S  # noqa: E741
    problem = Tabular(
        P=P / P.sum(-1, keepdim=True),
        r=torch.randn(S, A, generator=draw, dtype=torch.float64),
        rho0=rho0 / rho0.sum(),
        horizon=None if endless else T,
        observation=torch.arange(S) % O,
        terminal=terminal,
        name=f"random-{S}x{A}x{T}",
    )
    theta = 0.7 * torch.randn(O, A, generator=draw, dtype=torch.float64)
    direction = torch.randn(O, A, generator=draw, dtype=torch.float64)
    discount = 0.6 + 0.35 * float(unit[-1]) if gamma is None else gamma
    return Case(
        problem, theta, direction / direction.norm(), discount, seed=seed, window=T, name=problem.name
    )


def mixed_case(seed: int) -> Case:
    """A random problem; seed 3 of every 5 has episodes of different length, seed 4 states that look alike."""
    match seed % 5:
        case 3:
            return random_case(seed, n_states=3, n_terminal=1)
        case 4:
            return random_case(seed, n_states=3, n_observations=2)
        case _:
            return random_case(seed)


def random_problems(fits: Callable[[Case], bool] = lambda case: True, n: int = N_PROBLEMS) -> Iterator[Case]:
    """The first n random problems that fit, of every shape: what claims are tried on beside the reference."""
    return islice((case for case in map(mixed_case, count(100)) if fits(case)), n)


def load_case(path: Path, gamma: float = 0.9) -> Case:
    """A problem of one's own from JSON: {"P": [S][A][S], "r": [S][A], "rho0": [S], "horizon": T, …}.

    "observation" and "terminal" [S] as in `Tabular`; "theta" and "direction" [O][A] are drawn where they are
    not given. Raises UsageError for a file that cannot be read, unknown keys, or what `Tabular` refuses.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the problem {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the problem {path} is not JSON: {error}") from None
    needed, allowed = ("P", "r", "rho0", "horizon"), ("observation", "terminal", "theta", "direction")
    if not isinstance(given, dict):
        raise UsageError(f"a problem is a JSON object with {', '.join(needed)}, got a {type(given).__name__}")
    missing = [key for key in needed if key not in given]
    unknown = [key for key in given if key not in (*needed, *allowed)]
    if missing or unknown:
        what = f"has an unknown {unknown[0]!r}" if unknown else f"has no {missing[0]!r}"
        near = nearest(unknown[0], (*needed, *allowed)) if unknown else ""
        hint = f": {near}" if near else ""
        keys = f"it needs {', '.join(needed)}; it may have {', '.join(allowed)}"
        raise UsageError(f"the problem {path} {what}{hint} ({keys})")
    own = {key: given[key] for key in given if key not in ("theta", "direction")}
    problem = Tabular(**own, name=path.stem)
    if problem.horizon is None:
        raise UsageError("the laboratory enumerates whole episodes: give the problem a horizon")
    draw, shape = Generator().manual_seed(0), (problem.n_observations, problem.n_actions)
    theta, direction = (0.7 * torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2))
    theta, direction = _policy(given, "theta", theta), _policy(given, "direction", direction)
    if not 0 <= gamma <= 1 or math.isnan(gamma):
        raise UsageError(f"gamma must be in [0, 1], got {gamma}")
    case = Case(problem, theta, direction, gamma, seed=0, name=path.stem)
    _ = case.trajectory  # says at once if there are too many
    return case


def _policy(given: dict[str, list[list[float]]], key: str, drawn: Tensor) -> Tensor:
    if key not in given:
        return drawn
    try:
        table = torch.tensor(given[key], dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{key} is not a table of numbers: {error}") from None
    if table.shape != drawn.shape or not bool(table.isfinite().all()):
        raise UsageError(
            f"{key} must be finite numbers of shape {list(drawn.shape)}, got {list(table.shape)}"
        )
    return table
