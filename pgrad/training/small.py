"""Acting of small networks by numpy, on the same memory: torch takes longer to be called than to compute."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from pgrad.data import Tree
from pgrad.data.sequence import without_memory
from pgrad.data.shown import Numpy
from pgrad.models import Agent
from pgrad.models.cells.native import library_of
from pgrad.models.cells.row import Row, row
from pgrad.models.encoder import is_image
from pgrad.models.feedforward import Network
from pgrad.models.heads import CategoricalHead, GaussianHead
from pgrad.models.recurrent import RecurrentNetwork
from pgrad.training.acting import Choice
from pgrad.training.noise import LogExponentials

SHARED_OUT = 2**18
"""Multiplications in a matrix product from which on numpy's BLAS would divide it among threads."""

Numbers = NDArray[np.float32]

Activation = Callable[[Numbers, Numbers], Numbers]
"""From numbers to others, with room for them."""

ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.Tanh: np.tanh,
    nn.ReLU: lambda x, out: np.maximum(x, 0.0, out=out),
}


def small(agent: Agent, seen: Tree) -> "Small | None":
    """How this agent acts on observations like these by numpy.

    None unless its networks are small and on a processor, from one vector, perhaps with a memory whose steps
    are C++, to a Categorical or a Gaussian.
    """
    network: Any = agent.network
    recurs = type(network) is RecurrentNetwork
    if type(agent) is not Agent or not (recurs or type(network) is Network):
        return None
    obs = without_memory(seen)
    if not isinstance(obs, Tensor) or obs.device.type != "cpu" or network.rounds_apart:
        return None
    n, space = len(obs), network.encoder.space
    body, head = network.actor.output if recurs else network.actor
    hidden = _hidden(body, n)
    if not isinstance(space, Box) or is_image(space) or hidden is None or _is_large(network, n):
        return None
    if recurs and library_of(network.actor.memory.cell.name) is None:
        return None
    if isinstance(head, CategoricalHead):
        return Small(agent, obs, hidden, Layer(head.logits, n), Categorical(n, head.logits.out_features))
    if isinstance(head, GaussianHead):
        return Small(agent, obs, hidden, Layer(head.mean, n), Gaussian(head, n))
    return None


class Layer:
    """A linear layer as numpy takes it fastest: weight [in, out], bias [n, out], and room for its answer."""

    def __init__(self, layer: Any, n: int) -> None:
        self._own: tuple[Numbers, Numbers] = layer.weight.detach().numpy().T, layer.bias.detach().numpy()
        self.weight = np.empty(self._own[0].shape, np.float32)
        self.bias = np.empty((n, len(self._own[1])), np.float32)
        self.room = np.empty_like(self.bias)

    def take_in(self) -> None:
        """The parameters as they are now."""
        self.weight[...], self.bias[...] = self._own

    def __call__(self, x: Numbers) -> Numbers:
        """x·W + b [n, out]."""
        return np.add(np.dot(x, self.weight, self.room), self.bias, self.room)


class Categorical:
    """`math.distributions.Categorical`."""

    def __init__(self, n: int, k: int) -> None:
        self._noise, self._action = LogExponentials(n, k), torch.empty(n, dtype=torch.int64)
        self._taken = self._action.numpy()

    def begin(self, steps: int) -> None:
        """Draw for so many steps together."""
        self._noise.together(steps)

    def choose(self, logits: Numbers, generator: Generator | None) -> Tensor:
        """Actions [n]: sampled, or the mode where there is no generator."""
        scores = logits if generator is None else logits - self._noise(generator)
        scores.argmax(-1, self._taken)
        return self._action

    def log_prob(self, logits: Numbers, action: Any) -> Any:
        """log π(a) [...] from logits [..., k]."""
        rows = logits.reshape(-1, logits.shape[-1])
        rows = rows - rows.max(-1, keepdims=True)
        logp = rows[np.arange(len(rows)), action.ravel()] - np.log(np.exp(rows).sum(-1))
        return logp.reshape(action.shape)

    def end(self) -> None:
        """Leave the generator where each step alone would have left it."""
        self._noise.give_back()


class Gaussian:
    """`math.gaussians.Gaussian`."""

    def __init__(self, head: GaussianHead, n: int) -> None:
        self._draws, self._action = (torch.empty(n, head.mean.out_features) for _ in range(2))
        self._noise, self._taken = self._draws.numpy(), self._action.numpy()
        self._log_std = head.log_std.detach().numpy()
        self._std = np.empty_like(self._log_std)

    def begin(self, steps: int) -> None:
        """Take in the scale as it is now; torch draws normal numbers otherwise for many than for few."""
        np.exp(self._log_std, out=self._std)

    def choose(self, mean: Numbers, generator: Generator | None) -> Tensor:
        """Actions [n, d]: sampled, or the mode where there is no generator."""
        if generator is None:
            self._taken[...] = mean
            return self._action
        self._draws.normal_(generator=generator)
        np.add(mean, np.multiply(self._noise, self._std, self._noise), self._taken)
        return self._action

    def log_prob(self, mean: Numbers, action: Any) -> Any:
        """log π(a) [...] from means [..., d]."""
        z = (action - mean) * np.exp(-self._log_std)
        constant = np.float32(0.5 * math.log(2.0 * math.pi) * mean.shape[-1])
        return -(0.5 * z * z + self._log_std).sum(-1) - constant

    def end(self) -> None:
        """Nothing was drawn that was not used."""


class Small:
    """`acting.sampled`, or without a generator `acting.likeliest`: a `Chooser`, see there.

    Equal to them up to rounding, with the very same random numbers. It answers with logits or means in place
    of log π(a|s). All that it answers are buffers.
    """

    defers = True

    def __init__(
        self,
        agent: Agent,
        obs: Tensor,
        hidden: list[tuple[Layer, Activation]],
        output: Layer,
        policy: Categorical | Gaussian,
    ) -> None:
        self._hidden, self._output, self._policy = hidden, output, policy
        self._network: Any = agent.network
        self._noted, self._shown, self._normalize = torch.from_numpy(output.room), Numpy(), _normalizer(agent)
        self._n, self._is_flat = len(obs), obs.ndim == 2 and obs.dtype is torch.float32
        self._remember: Row | None = None

    def begin(self, steps: int) -> None:
        """Take in the parameters as they are now, for about so many steps."""
        for layer in (*[layer for layer, _ in self._hidden], self._output):
            layer.take_in()
        self._policy.begin(steps)
        if isinstance(self._network, RecurrentNetwork):
            self._remember = _remembering(self._network, self._n)

    def __call__(self, seen: Any, *generator: Generator) -> Choice:
        """Actions, their logits or means, and the memories after them."""
        state: dict[str, Tensor] = {}
        remember = self._remember
        with np.errstate(all="ignore"):  # what is not finite is found in the log-probabilities
            x = self._shown(seen if remember is None else seen.obs)
            if not self._is_flat:
                x = x.reshape(self._n, -1).astype(np.float32, copy=False)
            if self._normalize is not None:
                x = self._normalize(x)
            if remember is not None:
                state["cells"] = remember(x, seen.state["cells"], seen.start)
                x = remember.seen.numpy()
            for layer, activation in self._hidden:
                x = activation(layer(x), layer.room)
            action = self._policy.choose(self._output(x), *(generator or (None,)))
        return action, self._noted, state

    def log_prob(self, noted: Tensor, action: Tree) -> Tensor:
        """log π(a|s) [...] from logits or means [..., k]."""
        with np.errstate(all="ignore"):
            return torch.from_numpy(self._policy.log_prob(noted.numpy(), action.numpy()))

    def end(self) -> None:
        """Leave the generator where each step alone would have left it."""
        self._policy.end()


def _remembering(network: RecurrentNetwork, n: int) -> Row | None:
    """The memories of the actor and, where there is one, the critic, which take their step together: for n
    rows, with the weights as they are now. None without a compiler.
    """
    memories = [branch.memory for branch in (network.actor, network.critic) if branch is not None]
    return row(memories[0].cell, [one.weights for one in memories], n)


def _is_large(network: nn.Module, n: int) -> bool:
    """Whether a product with n rows would be shared out."""
    return any(n * x.numel() > SHARED_OUT for x in network.parameters() if x.ndim == 2)


def _hidden(body: nn.Module, n: int) -> list[tuple[Layer, Activation]] | None:
    """Each hidden layer and its activation, for n rows; None where one is not known here."""
    parts = list(body.children())
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    if not all(isinstance(a, nn.Linear) and type(b) in ACTIVATIONS for a, b in pairs):
        return None
    return [(Layer(a, n), ACTIVATIONS[type(b)]) for a, b in pairs]


def _normalizer(agent: Agent) -> Callable[[Numbers], Numbers] | None:
    """`agent.normalizer`."""
    normalizer = agent.normalizer
    if normalizer is None or normalizer.moments is None:
        return None
    shift, scale = normalizer.moments.shift.numpy().ravel(), normalizer.moments.scale.numpy().ravel()
    clip = normalizer.clip
    return lambda x: np.minimum(np.maximum((x - shift) * scale, -clip), clip)
