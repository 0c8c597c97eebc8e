"""A policy over a vocabulary whose probabilities never exist all at once.

A language model's logits are [tokens, vocabulary] and often larger than the model itself. Here the policy is
made of what they are computed from, the last hidden states and the head, and every number that is asked of it
is computed in chunks of tokens, forward and backward; between the two only one number per token is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from pgrad.math.vocabulary import Shape, chunks, divergence, logits, score


@dataclass(frozen=True)
class TokenPolicy:
    """π(token) = softmax(z) over V tokens, where the agent decides; elsewhere there is nothing to choose.

    z is `Shape`'s, so that temperature divides the logits. Matrices are multiplied in the precision of
    `hidden` and summed in float32; everything after that is float32. Tokens are int64 [...]; results are
    float32 [...] and 0 where the agent does not decide. `stop` is called before every chunk whose gradient
    nobody asks for, and may raise.
    """

    hidden: Float[Tensor, "*batch H"]
    weight: Float[Tensor, "V H"]
    bias: Float[Tensor, " V"] | None
    decides: Bool[Tensor, "*batch"]
    temperature: float = 1.0
    scale: float = 1.0
    softcap: float | None = None
    stop: Callable[[], None] | None = None

    @property
    def mode(self) -> Int[Tensor, "*batch"]:
        """The most probable token; 0 where nothing is decided."""
        return self._chosen(lambda z: z.argmax(-1))

    def sample(self, generator: Generator) -> Int[Tensor, "*batch"]:
        """argmax (z − log E) with E ~ Exp(1), Gumbel-max; 0 where nothing is decided."""

        def drawn(z: Tensor) -> Tensor:
            noise = torch.empty_like(z).exponential_(generator=generator)
            noise = noise.clamp_min_(torch.finfo(noise.dtype).tiny).log_()
            return (z - noise).argmax(-1)

        return self._chosen(drawn)

    def log_prob(self, action: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """log π(action), [...]."""
        return self._score(action, False)[0]

    def entropy(self) -> Float[Tensor, "*batch"]:
        """−Σ π log π over the vocabulary, [...]."""
        return self._score(None, True)[1]

    def log_prob_and_entropy(
        self, action: Int[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Both for the price of little more than one."""
        return self._score(action, True)

    def kl(self, other: "TokenPolicy") -> Float[Tensor, "*batch"]:
        """Σ π (log π − log other) over the vocabulary, [...], exact."""
        index, rows = self._rows()
        theirs = other.hidden.reshape(-1, other.hidden.shape[-1]).index_select(0, index)
        value = divergence(
            rows, self.weight, self.bias, self._shape, theirs, other.weight, other.bias, other._shape
        )
        return self._spread(value, index)

    @property
    def _shape(self) -> Shape:
        return Shape(self.temperature, self.scale, self.softcap)

    def _rows(self) -> tuple[Tensor, Tensor]:
        """Which rows decide, [N], and their hidden states, [N, H]."""
        index = self.decides.flatten().nonzero().squeeze(1)
        return index, self.hidden.reshape(-1, self.hidden.shape[-1]).index_select(0, index)

    def _score(self, action: Tensor | None, entropy: bool) -> tuple[Tensor, Tensor]:
        index, rows = self._rows()
        chosen = torch.zeros_like(index) if action is None else action.flatten().index_select(0, index)
        if self.stop is None or torch.is_grad_enabled():
            logp, spread = score(rows, self.weight, self.bias, chosen, self._shape, entropy)
        else:
            found = []
            for part, tokens in zip(chunks(rows, self.weight), chunks(chosen, self.weight), strict=True):
                self.stop()
                found.append(score(part, self.weight, self.bias, tokens, self._shape, entropy))
            logp, spread = (torch.cat(x) for x in zip(*found, strict=True))
        return self._spread(logp, index), self._spread(spread, index)

    def _spread(self, x: Tensor, index: Tensor) -> Tensor:
        """[N] → [...], 0 where nothing is decided."""
        return x.new_zeros(self.decides.numel()).index_copy(0, index, x).view(self.decides.shape)

    @torch.no_grad()
    def _chosen(self, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """What `choose` takes by the logits [n, V] of one chunk after the other, [...] int64."""
        index, rows = self._rows()
        weight = self.weight.to(rows.dtype)
        chosen = [choose(logits(part, weight, self.bias, self._shape)) for part in chunks(rows, weight)]
        return self._spread(torch.cat(chosen), index)
