"""Acting of small networks by numpy, on the same memory: torch takes longer to be called than to compute."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Generator, Tensor, nn

from pgrad.data import Tree
from pgrad.data.sequence import without_memory
from pgrad.models import Agent
from pgrad.models.encoder import is_image
from pgrad.models.feedforward import Network
from pgrad.models.heads import CategoricalHead, GaussianHead
from pgrad.models.recurrent import RecurrentNetwork
from pgrad.training.acting import Choice
from pgrad.training.small_memory import Numbers, remembering

Head = Callable[[Numbers, Generator | None], tuple[Any, Numbers]]
"""From the last hidden layer to actions and log π(a|s): sampled, or the mode where there is no generator."""

SHARED_OUT = 2**18
"""Multiplications in a matrix product from which on numpy's BLAS would divide it among threads."""

ACTIVATIONS: dict[type[nn.Module], Callable[[Numbers], Numbers]] = {
    nn.Tanh: lambda x: np.tanh(x, out=x),
    nn.ReLU: lambda x: np.maximum(x, 0.0, out=x),
}


def small(agent: Agent, seen: Tree) -> Callable[..., Choice] | None:
    """`acting.sampled`, or without a generator `acting.likeliest`, of this agent for observations like these.

    None unless its networks are small and on a processor, from one vector, perhaps with a memory, to a
    Categorical or a Gaussian. Equal to them up to rounding, with the very same random numbers, until the
    parameters move.
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
    layers = _layers(body)
    if not isinstance(space, Box) or is_image(space) or layers is None or _is_large(network, n):
        return None
    if isinstance(head, CategoricalHead):
        choose = _categorical(head, n)
    elif isinstance(head, GaussianHead):
        choose = _gaussian(head, n)
    else:
        return None
    flat = obs.ndim == 2 and obs.dtype is torch.float32
    normalize, remember = _normalizer(agent), remembering(network) if recurs else None

    def chosen(seen: Any, generator: Generator | None = None) -> Choice:
        state: dict[str, Tensor] = {}
        with np.errstate(all="ignore"):  # what is not finite is found in the log-probabilities
            x = (seen if remember is None else seen.obs).numpy()
            if not flat:
                x = x.reshape(n, -1).astype(np.float32, copy=False)
            if normalize is not None:
                x = normalize(x)
            if remember is not None:
                after, remembered = remember(x, seen.state["cells"].numpy(), seen.start.numpy())
                state, x = {"cells": torch.from_numpy(after)}, np.concatenate([x, remembered], 1)
            for weight, bias, activation in layers:
                x = activation(_product(x, weight, bias))
            action, logp = choose(x, generator)
        return torch.from_numpy(action), torch.from_numpy(logp), state

    return chosen


def _is_large(network: nn.Module, n: int) -> bool:
    """Whether a product with n rows would be shared out."""
    return any(n * x.numel() > SHARED_OUT for x in network.parameters() if x.ndim == 2)


def _layers(body: nn.Module) -> list[tuple[Numbers, Numbers, Callable[[Numbers], Numbers]]] | None:
    """Weight [in, out], bias and activation of each hidden layer; None where one is not known here."""
    parts = list(body.children())
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    if not all(isinstance(a, nn.Linear) and type(b) in ACTIVATIONS for a, b in pairs):
        return None
    return [(*_linear(a), ACTIVATIONS[type(b)]) for a, b in pairs]


def _linear(layer: Any) -> tuple[Numbers, Numbers]:
    return layer.weight.detach().numpy().T, layer.bias.detach().numpy()


def _product(x: Numbers, weight: Numbers, bias: Numbers) -> Numbers:
    """What a linear layer makes of x, as a new array."""
    y: Numbers = np.matmul(x, weight)
    y += bias
    return y


def _normalizer(agent: Agent) -> Callable[[Numbers], Numbers] | None:
    """`agent.normalizer`."""
    normalizer = agent.normalizer
    if normalizer is None or normalizer.moments is None:
        return None
    shift, scale = normalizer.moments.shift.numpy().ravel(), normalizer.moments.scale.numpy().ravel()
    clip = normalizer.clip
    return lambda x: np.minimum(np.maximum((x - shift) * scale, -clip), clip)


def _categorical(head: CategoricalHead, n: int) -> Head:
    """`math.distributions.Categorical`."""
    weight, bias = _linear(head.logits)
    draws = torch.empty(n, len(bias))
    noise, tiny, rows = draws.numpy(), np.finfo(np.float32).tiny, np.arange(n)

    def choose(features: Numbers, generator: Generator | None) -> tuple[Any, Numbers]:
        logits = _product(features, weight, bias)
        if generator is None:
            action = logits.argmax(-1)
        else:
            draws.exponential_(generator=generator)
            np.log(np.maximum(noise, tiny, out=noise), out=noise)
            action = (logits - noise).argmax(-1)
        logits -= logits.max(-1, keepdims=True)
        return action, logits[rows, action] - np.log(np.exp(logits).sum(-1))

    return choose


def _gaussian(head: GaussianHead, n: int) -> Head:
    """`math.gaussians.Gaussian`."""
    weight, bias = _linear(head.mean)
    log_std = head.log_std.detach().numpy()
    draws = torch.empty(n, len(bias))
    noise, constant = draws.numpy(), 0.5 * math.log(2.0 * math.pi) * len(bias)

    def choose(features: Numbers, generator: Generator | None) -> tuple[Any, Numbers]:
        mean = _product(features, weight, bias)
        action = mean
        if generator is not None:
            draws.normal_(generator=generator)
            action = mean + np.exp(log_std) * noise
        z = (action - mean) * np.exp(-log_std)
        return action, -(0.5 * z * z + log_std).sum(-1) - np.float32(constant)

    return choose
