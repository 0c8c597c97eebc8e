"""One flat tensor of parameters, its groups as slices, and an optimiser for each."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pgrad.algorithms.protocol import Optimizer
from pgrad.errors import UsageError

EPS = 1e-5
"""Of the reference implementations of A2C and PPO; for algorithms that do not say."""

BETAS, ALPHA = (0.9, 0.999), 0.99
"""How much of the moments is kept at a step: Adam's two, RMSprop's one."""

Number = float | Tensor
"""A float, or a tensor of no dimensions where the step is compiled."""


class Adam:
    """θ ← θ − α·m̂/(√v̂ + ε) on one tensor (Kingma & Ba 2015, algorithm 1), equal to `torch.optim.Adam`.

    Written out because `torch.optim` loads the compiler when it is first used, a third of the time to a run's
    first update, and because one flat tensor needs nothing else of it.
    """

    def __init__(self, values: Tensor, grads: Tensor, eps: float) -> None:
        self.values, self.grads, self.eps = values, grads, eps
        self.step_count = 0
        self.moments = (torch.zeros_like(values), torch.zeros_like(values))
        self._taken = torch.zeros((), device=values.device)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One step down the gradient: `advance` in one pass over the numbers."""
        self.count()
        self._taken.fill_(self.step_count)
        mean, square = self.moments
        torch._fused_adam_(
            [self.values],
            [self.grads],
            [mean],
            [square],
            [],
            [self._taken],
            lr=learning_rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def count(self) -> None:
        """One step more was taken."""
        self.step_count += 1

    def numbers(self, learning_rate: float) -> tuple[float, float]:
        """α·√(1 − β₂ᵗ)/(1 − β₁ᵗ) and ε·√(1 − β₂ᵗ), which m and v as they are go with (end of their §2)."""
        first, second = BETAS
        t = max(self.step_count, 1)
        root = (1.0 - second**t) ** 0.5
        return learning_rate * root / (1.0 - first**t), self.eps * root

    @staticmethod
    def advance(
        values: Tensor, grads: Tensor, mean: Tensor, square: Tensor, rate: Number, eps: Number
    ) -> None:
        """Move `values` and both moments, in place."""
        first, second = BETAS
        mean.lerp_(grads, 1.0 - first)
        square.mul_(second).addcmul_(grads, grads, value=1.0 - second)
        values.addcdiv_(mean * -rate, square.sqrt().add_(eps))

    def state_dict(self) -> dict[str, Tensor]:
        """Both moments and the number of steps."""
        mean, square = self.moments
        return {"step": torch.tensor(self.step_count), "exp_avg": mean, "exp_avg_sq": square}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put them back, bit for bit."""
        self.step_count = int(state["step"])
        for moment, name in zip(self.moments, ("exp_avg", "exp_avg_sq"), strict=True):
            moment.copy_(state[name])


class RMSprop:
    """θ ← θ − α·g/(√v + ε) on one tensor (Tieleman & Hinton 2012), equal to `torch.optim.RMSprop`."""

    def __init__(self, values: Tensor, grads: Tensor, eps: float) -> None:
        self.values, self.grads, self.eps = values, grads, eps
        self.moments = (torch.zeros_like(values),)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One step down the gradient."""
        self.advance(self.values, self.grads, *self.moments, *self.numbers(learning_rate))

    def count(self) -> None:
        """Steps are not counted here."""

    def numbers(self, learning_rate: float) -> tuple[float, float]:
        """α and ε."""
        return learning_rate, self.eps

    @staticmethod
    def advance(values: Tensor, grads: Tensor, square: Tensor, rate: Number, eps: Number) -> None:
        """Move `values` and the running mean of squared gradients, in place."""
        square.mul_(ALPHA).addcmul_(grads, grads, value=1.0 - ALPHA)
        values.addcdiv_(grads * -rate, square.sqrt().add_(eps))

    def state_dict(self) -> dict[str, Tensor]:
        """The running mean of squared gradients."""
        return {"square_avg": self.moments[0]}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put it back, bit for bit."""
        self.moments[0].copy_(state["square_avg"])


def clip(grads: Tensor, max_norm: float) -> Tensor:
    """g ← g·min(1, max_norm/‖g‖), in place; returns ‖g‖. A gradient that is not finite becomes zeros."""
    norm = torch.linalg.vector_norm(grads)
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    grads.mul_(scale).nan_to_num_(0.0, 0.0, 0.0)  # the scale is 0 or NaN where the norm is not finite
    return norm


@dataclass(frozen=True)
class Group:
    """A slice of the flat parameters: values, gradient, its optimiser and its first learning rate."""

    names: list[str]  # of the parameters, in the module
    parameters: list[Tensor]  # views of `values`
    values: Tensor
    grads: Tensor
    optimizer: Adam | RMSprop
    learning_rate: float


@dataclass(frozen=True)
class FlatParameters:
    """All trainable parameters of a module as views of `values`, their gradients as views of `grads`.

    Whoever writes to `values` writes to the module: a gradient step, norm clipping, averaging over ranks and
    saving each touch one tensor.
    """

    values: Tensor
    grads: Tensor
    groups: dict[str, Group]
    targets: Tensor  # slow copies of the critic's values; empty where there are none


def flatten_parameters(
    module: nn.Module, rates: dict[str, float], optimizer: Optimizer, eps: float = EPS
) -> FlatParameters:
    """Move the trainable parameters of `module` into one tensor, the actor's first, then the critic's.

    A parameter belongs to the group with whose name a part of its own begins, else to the first. `rates` maps
    group names to learning rates; `eps` is the optimiser's.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not named:
        raise UsageError(f"{type(module).__name__} has no trainable parameters")
    wrong = sorted({str(p.dtype) for _, p in named if p.dtype != torch.float32})
    if wrong:
        raise UsageError(f"parameters must be float32, found {', '.join(wrong)}")
    members: dict[str, list[tuple[str, nn.Parameter]]] = {name: [] for name in rates}
    for name, p in named:
        parts = name.split(".")
        own = [group for group in members if any(part.startswith(group) for part in parts)]
        members[own[0] if own else next(iter(members))].append((name, p))
    total = sum(p.numel() for _, p in named)
    values = torch.empty(total, device=named[0][1].device)
    grads = torch.zeros_like(values)
    groups = {}
    start = 0
    for group, own_parameters in members.items():
        first = start
        for _, p in own_parameters:
            stop = start + p.numel()
            values[start:stop].copy_(p.detach().flatten())
            p.data = values[start:stop].view_as(p)
            p.grad = grads[start:stop].view_as(p)
            start = stop
        if start > first:
            part = values[first:start], grads[first:start]
            made = Adam(*part, eps) if optimizer == "adam" else RMSprop(*part, eps)
            names = [name for name, _ in own_parameters]
            parameters: list[Tensor] = [p for _, p in own_parameters]
            groups[group] = Group(names, parameters, *part, made, rates[group])
    return FlatParameters(values, grads, groups, _flatten_targets(module, values))


def _flatten_targets(module: nn.Module, like: Tensor) -> Tensor:
    """The parameters with a part of their name that begins with `target`, as views of one tensor."""
    named = module.named_parameters()
    found = [p for name, p in named if any(part.startswith("target") for part in name.split("."))]
    flat = torch.cat([p.detach().flatten() for p in found]) if found else like.new_empty(0)
    start = 0
    for p in found:
        p.data = flat[start : start + p.numel()].view_as(p)
        start += p.numel()
    return flat
