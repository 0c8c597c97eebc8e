"""One flat tensor of parameters, its groups as slices, and an optimiser for each."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pgrad.algorithms.protocol import Optimizer
from pgrad.errors import UsageError


@dataclass(frozen=True)
class Group:
    """A slice of the flat parameters with its own optimiser and first learning rate."""

    slice: nn.Parameter
    optimizer: torch.optim.Optimizer
    learning_rate: float

    def set_learning_rate(self, share: float) -> None:
        """Run at this share of the first learning rate from now on."""
        for settings in self.optimizer.param_groups:
            settings["lr"] = self.learning_rate * share

    def state_dict(self) -> dict[str, Tensor]:
        """The optimiser's moments and step count."""
        return {
            key: value for key, value in self.optimizer.state[self.slice].items() if isinstance(value, Tensor)
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put moments and step count back, bit for bit."""
        own = self.optimizer.state[self.slice]
        own.clear()
        # The step count lives on the CPU where steps are not fused; everything else with the parameters.
        fused = bool(self.optimizer.param_groups[0].get("fused"))
        for key, value in state.items():
            own[key] = value.to(self.slice.device if value.ndim or fused else "cpu", copy=True)


@dataclass(frozen=True)
class FlatParameters:
    """All trainable parameters of a module as views of `values`, their gradients as views of `grads`.

    Whoever writes to `values` writes to the module: a gradient step, norm clipping, averaging over ranks and
    saving each touch one tensor.
    """

    values: Tensor
    grads: Tensor
    groups: dict[str, Group]


def flatten_parameters(module: nn.Module, rates: dict[str, float], optimizer: Optimizer) -> FlatParameters:
    """Move the trainable parameters of `module` into one tensor, the actor's first, then the critic's.

    A parameter is the critic's if a part of its name is `critic`. `rates` maps group names to learning rates.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not named:
        raise UsageError(f"{type(module).__name__} has no trainable parameters")
    wrong = sorted({str(p.dtype) for _, p in named if p.dtype != torch.float32})
    if wrong:
        raise UsageError(f"parameters must be float32, found {', '.join(wrong)}")
    members: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
    for name, p in named:
        members["critic" if "critic" in name.split(".") else "actor"].append(p)
    total = sum(p.numel() for _, p in named)
    values = torch.empty(total, device=named[0][1].device)
    grads = torch.zeros_like(values)
    groups = {}
    start = 0
    for group, parameters in members.items():
        first = start
        for p in parameters:
            stop = start + p.numel()
            values[start:stop].copy_(p.detach().flatten())
            p.data = values[start:stop].view_as(p)
            p.grad = grads[start:stop].view_as(p)
            start = stop
        if start > first:
            part = nn.Parameter(values[first:start])
            part.grad = grads[first:start]
            groups[group] = Group(part, _make(optimizer, part, rates[group]), rates[group])
    return FlatParameters(values, grads, groups)


def _make(optimizer: Optimizer, part: nn.Parameter, rate: float) -> torch.optim.Optimizer:
    # eps 1e-5 and alpha 0.99: the values of the A2C and PPO reference implementations.
    if optimizer == "adam":
        return torch.optim.Adam([part], lr=rate, eps=1e-5, fused=True)
    return torch.optim.RMSprop([part], lr=rate, alpha=0.99, eps=1e-5, foreach=False)
