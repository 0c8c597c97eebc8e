"""What an algorithm is, and what it may ask of the agent and the learner."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Generator, Tensor

from pgrad.data import Batch, Demonstrations, Episodes, Recent, Replay, Steps, Trajectory, Tree
from pgrad.math.distributions import Distribution

Metrics = dict[str, Tensor]
"""Named scalars; they stay tensors and are read once per iteration."""

Loss = Callable[[Any, Batch], tuple[Tensor, Metrics]]
"""A scalar to descend, and what to report about it."""

Bend = tuple[Sequence[Tensor], Sequence[Tensor], Tensor]
"""What an agent puts out, in the graph of its parameters; copies cut from it; a divergence of the copies."""

Outputs = Callable[[Any, Batch], Bend]
"""What a curvature is made of."""

Schedule = Literal["constant", "linear"]
"""Stay, or fall linearly to zero at the end of training."""


Optimizer = Literal["adam", "rmsprop"]
"""How gradients become steps: Adam (Kingma & Ba 2015) or RMSprop (Tieleman & Hinton 2012)."""


Critic = Literal["none", "value", "q"]
"""None, V(s), or Q(s, a) twice, with target networks and a temperature."""


class Agent(Protocol):
    """The functions an algorithm differentiates."""

    def policy(self, obs: Tree) -> Distribution:
        """π(·|s), batch shape [...] for observations [..., *space]."""
        ...

    def value(self, obs: Tree) -> Tensor:
        """V(s), [...]."""
        ...

    def policy_and_value(self, obs: Tree) -> tuple[Distribution, Tensor]:
        """Both, in one pass where there is one."""
        ...

    def parameters(self) -> Iterator[Any]:
        """All trainable parameters."""
        ...


class ReferenceAgent(Protocol):
    """An agent that knows the policy it must not stray from."""

    def policy(self, obs: Tree) -> Distribution:
        """π(·|s)."""
        ...

    def reference(self, obs: Tree) -> Distribution:
        """π_ref(·|s), frozen."""
        ...


class SoftAgent(Protocol):
    """An agent with twin critics of actions, their slow copies and a temperature."""

    def policy(self, obs: Tree) -> Any:
        """π(·|s): a distribution that can be sampled with a gradient, or one over discrete actions."""
        ...

    def q(self, obs: Tree, action: Tensor | None = None) -> Tensor:
        """Q₁ and Q₂ of actions [2, N], or of every discrete action [2, N, A]."""
        ...

    def target_q(self, obs: Tree, action: Tensor | None = None) -> Tensor:
        """The same by the slow copies."""
        ...

    def log_temperature(self) -> Tensor:
        """log α."""
        ...


class Derivatives(Protocol):
    """Derivatives in the parameters of a group, which do not move."""

    def gradient(self, loss: Loss, batch: Batch) -> tuple[Tensor, Metrics]:
        """∇ of a loss [P], and what the loss reports."""
        ...

    def curvature(self, outputs: Outputs, batch: Batch) -> Callable[[Tensor], Tensor]:
        """v ↦ F·v [P], F the Hessian of a divergence at its minimum, where the outputs are."""
        ...


class Descent(Protocol):
    """What may become one program: steps of groups, and what is computed for them."""

    def descend(self, loss: Loss, batch: Batch, group: str | None = None) -> Metrics:
        """One step down the gradient of `loss` on `batch`, for one parameter group or all of them."""
        ...

    def compute(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """function(agent, *inputs), of which no gradient is wanted: trees, and perhaps a generator."""
        ...

    def follow(self, tau: float) -> None:
        """Move the target networks a share τ of the way to the critics."""
        ...


class Learner(Descent, Protocol):
    """The only place where parameters move."""

    agent: Any
    progress: float  # share of the training budget already used, 0 … 1
    variables: dict[str, Tensor]  # what an algorithm adapts while it trains; saved with the run
    replay: Replay  # past experience, for algorithms with a `buffer_size`
    recent: Recent  # the last trajectories, for algorithms with `reuse`
    generator: Generator  # for drawing rows
    noise: Generator  # for drawing actions, on the agent's device

    def perform(self, function: Callable[..., None], *inputs: Any) -> None:
        """function(learner, *inputs): steps that belong together, of each group at most one."""
        ...

    def derivatives(self, group: str) -> Derivatives:
        """First and second derivatives in the parameters of a group, as one vector [P]."""
        ...

    def attempt(self, step: Tensor, group: str, accept: Callable[[], Tensor]) -> bool:
        """Move a group by `step` [P]; unless `accept()` is then true, move it back exactly."""
        ...

    def minibatches(self, batch: Batch, batch_size: int) -> Iterator[Batch]:
        """Every decision of a flattened batch once, shuffled, `batch_size` at a time."""
        ...

    def columns(self, batch: Batch, n: int) -> Iterator[Batch]:
        """Every column of a batch that is not flattened once, shuffled, `n` at a time."""
        ...


@runtime_checkable
class Algorithm(Protocol):
    """A frozen dataclass of hyperparameters with three methods: credit, loss, update.

    It may also say which kind of `actions` it is for (a space, such as "Box") and what
    an agent that nobody describes is built with (`agent_defaults`, settings of `AgentSpec`).
    """

    @property
    def critic(self) -> Critic:
        """Which critic is asked for: none, `agent.value`, or `agent.q` with its slow copies."""
        ...

    @property
    def gamma(self) -> float: ...  # noqa: D102
    @property
    def learning_rate(self) -> float | None: ...  # noqa: D102
    @property
    def critic_learning_rate(self) -> float | None: ...  # noqa: D102
    @property
    def learning_rate_schedule(self) -> Schedule: ...  # noqa: D102
    @property
    def max_grad_norm(self) -> float: ...  # noqa: D102
    @property
    def optimizer(self) -> Optimizer: ...  # noqa: D102

    def collects(self, n_envs: int) -> Steps | Episodes | Demonstrations:
        """What one update needs of `n_envs` environments. Raises UsageError where the numbers do not fit."""
        ...

    @property
    def credit(self) -> Callable[..., Batch]:
        """credit(agent, traj): how much better than expected was each decision?"""
        ...

    @property
    def loss(self) -> Callable[..., tuple[Tensor, Metrics]]:
        """loss(agent, batch): what should become more likely, and how far may it go?"""
        ...

    def update(self, learner: Any, traj: Trajectory) -> Metrics:
        """How are the two spent? Returns what to report beside what each step of descent reported."""
        ...
