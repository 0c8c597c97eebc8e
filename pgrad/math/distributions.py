"""Policies' distributions over actions, as frozen records of tensors.

All fields of one record share the batch shape [...]; an event dimension comes last. `log_prob`, `entropy` and
`kl` sum over event dimensions, return [...] and compute in float32 at least. Nothing is validated: logits
must be finite (use `masked` to forbid actions), scales positive, and actions possible.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid, pad

from pgrad.math.gaussians import Gaussian, TanhGaussian, full_precision

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distribution",
    "Gaussian",
    "MultiCategorical",
    "Product",
    "TanhGaussian",
]


@runtime_checkable
class Distribution(Protocol):
    """π(·|s) for a batch of states."""

    @property
    def mode(self) -> Any:
        """The action to take when acting deterministically."""
        ...

    def sample(self, generator: Generator) -> Any:
        """One action per state, a ~ π(·|s), without a gradient."""
        ...

    def log_prob(self, action: Any) -> Tensor:
        """log π(a|s), [...]: a log-density where actions are continuous."""
        ...

    def entropy(self) -> Tensor:
        """H = −E[log π(a|s)], [...]: a differential entropy where actions are continuous."""
        ...

    def kl(self, other: Any) -> Tensor:
        """KL(self‖other) = E_self[log self(a) − log other(a)], [...], exact."""
        ...


@dataclass(frozen=True)
class Categorical:
    """π(a) = softmax(logits)ₐ over A actions; actions are int64 [...]."""

    logits: Float[Tensor, "*batch A"]

    @staticmethod
    def masked(logits: Float[Tensor, "*batch A"], mask: Bool[Tensor, "*batch A"]) -> "Categorical":
        """π restricted to the actions whose `mask` is true: the others have probability exactly 0.

        Forbidden logits become the most negative finite number, so entropies and KLs between equally masked
        policies stay finite and no gradient reaches them. A row with no action allowed becomes uniform over
        all of them: the caller must refuse it. (Huang & Ontañón, "A Closer Look at Invalid Action Masking",
        2022.)
        """
        return Categorical(logits.masked_fill(~mask, torch.finfo(logits.dtype).min))

    @property
    def mode(self) -> Int[Tensor, "*batch"]:
        """The most probable action."""
        return self.logits.argmax(-1)

    def sample(self, generator: Generator) -> Int[Tensor, "*batch"]:
        """argmaxₐ (logitsₐ − log Eₐ) with E ~ Exp(1): Gumbel-max, 2 to 3 times faster than `multinomial`."""
        logits = full_precision(self.logits.detach())
        noise = torch.empty_like(logits).exponential_(generator=generator)
        # An exact 0 would give even a forbidden action an infinite score.
        return (logits - noise.clamp_min_(torch.finfo(noise.dtype).tiny).log_()).argmax(-1)

    def log_prob(self, action: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """log π(a), [...]."""
        return self._logp().gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """−Σₐ π(a) log π(a), between 0 and log A."""
        logp = self._logp()
        return -(logp.exp() * logp).sum(-1)

    def kl(self, other: "Categorical") -> Float[Tensor, "*batch"]:
        """Σₐ π(a) (log π(a) − log other(a)); huge, not infinite, where `other` forbids what `self` allows."""
        logp = self._logp()
        return (logp.exp() * (logp - other._logp())).sum(-1)

    def _logp(self) -> Tensor:
        return torch.log_softmax(full_precision(self.logits), -1)


@dataclass(frozen=True)
class MultiCategorical:
    """Independent categoricals over nvec[0], nvec[1], ... actions; actions are int64 [..., k], k = len(nvec).

    Their logits lie side by side: the first nvec[0] are the first part's.
    """

    logits: Float[Tensor, "*batch sum_nvec"]
    nvec: tuple[int, ...]

    @staticmethod
    def masked(
        logits: Float[Tensor, "*batch sum_nvec"], mask: Bool[Tensor, "*batch sum_nvec"], nvec: tuple[int, ...]
    ) -> "MultiCategorical":
        """Each part restricted to the actions whose `mask` is true; see `Categorical.masked`."""
        return MultiCategorical(Categorical.masked(logits, mask).logits, nvec)

    @property
    def mode(self) -> Int[Tensor, "*batch k"]:
        """The most probable action of every part."""
        return self._parts().mode

    def sample(self, generator: Generator) -> Int[Tensor, "*batch k"]:
        """One action of every part."""
        return self._parts().sample(generator)

    def log_prob(self, action: Int[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
        """Σₖ log πₖ(aₖ), [...]."""
        return self._parts().log_prob(action).sum(-1)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Σₖ H(πₖ), [...]."""
        return self._parts().entropy().sum(-1)

    def kl(self, other: "MultiCategorical") -> Float[Tensor, "*batch"]:
        """Σₖ KL(πₖ‖otherₖ), [...]."""
        return self._parts().kl(other._parts()).sum(-1)

    def _parts(self) -> Categorical:
        """All parts as one categorical [..., k, max nvec]: shorter ones are padded with forbidden actions."""
        widest = max(self.nvec)
        if min(self.nvec) == widest:
            return Categorical(self.logits.reshape(*self.logits.shape[:-1], len(self.nvec), widest))
        lowest = torch.finfo(self.logits.dtype).min
        parts = torch.split(self.logits, list(self.nvec), -1)
        return Categorical(torch.stack([pad(x, (0, widest - x.shape[-1]), value=lowest) for x in parts], -2))


@dataclass(frozen=True)
class Bernoulli:
    """n independent bits, P(aᵢ = 1) = sigmoid(logitsᵢ); actions are 0 or 1, [..., n] (int64 when sampled)."""

    logits: Float[Tensor, "*batch n"]

    @staticmethod
    def masked(logits: Float[Tensor, "*batch n"], mask: Bool[Tensor, "*batch two_n"]) -> "Bernoulli":
        """Bits restricted to the values whose `mask` is true: it says for each in turn if 0 may be, if 1."""
        lowest = torch.finfo(logits.dtype).min
        zero, one = mask[..., ::2], mask[..., 1::2]
        return Bernoulli(logits.masked_fill(~zero, -lowest).masked_fill(~one, lowest))

    @property
    def mode(self) -> Int[Tensor, "*batch n"]:
        """The more probable value of every bit."""
        return (self.logits > 0).long()

    def sample(self, generator: Generator) -> Int[Tensor, "*batch n"]:
        """One value of every bit."""
        probability = torch.sigmoid(full_precision(self.logits.detach()))
        return (torch.empty_like(probability).uniform_(generator=generator) < probability).long()

    def log_prob(self, action: Shaped[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
        """Σᵢ log P(aᵢ), [...]."""
        logits = full_precision(self.logits)
        return logsigmoid(torch.where(action != 0, logits, -logits)).sum(-1)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """−Σᵢ (pᵢ log pᵢ + (1 − pᵢ) log(1 − pᵢ)), [...]."""
        x = full_precision(self.logits)
        return -(torch.sigmoid(x) * logsigmoid(x) + torch.sigmoid(-x) * logsigmoid(-x)).sum(-1)

    def kl(self, other: "Bernoulli") -> Float[Tensor, "*batch"]:
        """Σᵢ (pᵢ log(pᵢ/qᵢ) + (1 − pᵢ) log((1 − pᵢ)/(1 − qᵢ))), [...]."""
        x, y = full_precision(self.logits), full_precision(other.logits)
        one = torch.sigmoid(x) * (logsigmoid(x) - logsigmoid(y))
        return (one + torch.sigmoid(-x) * (logsigmoid(-x) - logsigmoid(-y))).sum(-1)


@dataclass(frozen=True)
class Product:
    """Independent distributions in a dict or tuple; actions have the same structure."""

    parts: Any  # dict or tuple of distributions

    @property
    def mode(self) -> Any:
        """The mode of every part."""
        return self._build([part.mode for _, part in self._items()])

    def sample(self, generator: Generator) -> Any:
        """One action of every part, drawn in the order of the parts."""
        return self._build([part.sample(generator) for _, part in self._items()])

    def log_prob(self, action: Any) -> Tensor:
        """Σ over parts of log π(a), [...]."""
        return _total([part.log_prob(action[key]) for key, part in self._items()])

    def entropy(self) -> Tensor:
        """Σ over parts of H, [...]."""
        return _total([part.entropy() for _, part in self._items()])

    def kl(self, other: "Product") -> Tensor:
        """Σ over parts of KL(part‖other's part), [...]."""
        return _total([part.kl(other.parts[key]) for key, part in self._items()])

    def _items(self) -> list[tuple[Any, Any]]:
        return list(self.parts.items() if isinstance(self.parts, dict) else enumerate(self.parts))

    def _build(self, values: list[Any]) -> Any:
        return dict(zip(self.parts, values, strict=True)) if isinstance(self.parts, dict) else tuple(values)


def _total(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
