"""Networks with a memory: features → GRU or LSTM → hidden layers → head, for actor and critic each."""

from typing import Any

import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from pgrad.data.sequence import Sequence
from pgrad.data.tree import Tree
from pgrad.errors import UsageError
from pgrad.models.bodies import linear, mlp
from pgrad.models.cells import CELLS
from pgrad.models.cells.steps import Weights
from pgrad.models.encoder import Encoder
from pgrad.models.heads import make_head
from pgrad.models.spec import AgentSpec


class Recurrence(nn.Module):
    """A recurrent layer of H units that is reset where episodes begin.

    Weights are orthogonal gate by gate; the gate that keeps the memory begins with bias 1, open enough for
    gradients to reach back (Gers, Schmidhuber & Cummins 2000; Jozefowicz, Zaremba & Sutskever 2015).
    """

    def __init__(self, kind: str, n_in: int, size: int, generator: Generator) -> None:
        super().__init__()
        self.cell, self.size = CELLS[kind], size
        self.state_size = self.cell.parts * size
        self.weight_input = self._gates(n_in, generator)
        self.weight_hidden = self._gates(size, generator)
        self.bias_input, self.bias_hidden = (nn.Parameter(torch.zeros(self.cell.gates * size)) for _ in "ih")
        with torch.no_grad():
            self.bias_input.view(-1, size)[self.cell.remembers] = 1.0

    @property
    def weights(self) -> Weights:
        """As `pgrad.models.cells.steps` takes them."""
        return self.weight_input, self.weight_hidden, self.bias_input, self.bias_hidden

    def _gates(self, n_in: int, generator: Generator) -> nn.Parameter:
        each = [linear(n_in, self.size, 1.0, generator).weight.detach() for _ in range(self.cell.gates)]
        return nn.Parameter(torch.cat(each))


class Branch(nn.Module):
    """The actor or the critic: what the hidden layers and the head see is the features and the memory."""

    def __init__(self, memory: Recurrence, output: nn.Sequential) -> None:
        super().__init__()
        self.memory, self.output = memory, output

    def forward(self, features: Tensor, remembered: Tensor) -> Any:
        """The head's answer for features [..., n] and the memory's outputs [..., H]."""
        body, head = self.output
        found = torch.cat([features, remembered], -1)
        return head(body(found.flatten(0, -2)).unflatten(0, found.shape[:-1]))


Branches = list[tuple[int, Branch]]
"""Some of actor and critic, with their place in the state."""


class RecurrentNetwork(nn.Module):
    """Encoder, actor and critic for one pair of spaces, actor and critic with a memory each.

    Observations come as a `Sequence`: T rows of B columns, or one row [B, ...], with the state of both
    memories, [..., 2, K] with a critic. An encoder that learns (images) is shared by both and belongs to the
    actor.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        spec: AgentSpec,
        critic: bool,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.sequence_length = spec.sequence_length
        self.rounds_apart = spec.half
        self.encoder = Encoder(observation_space, generator, spec.half)
        net_arch = () if self.encoder.has_parameters else spec.net_arch
        n_in = self.encoder.size

        def parts() -> tuple[Recurrence, nn.Module, int]:
            memory = Recurrence(spec.memory, n_in, spec.memory_size, generator)
            return memory, *mlp(n_in + spec.memory_size, net_arch, spec.activation, generator, spec.half)

        memory, body, n = parts()
        head = make_head(action_space, n, spec.log_std_init, spec.learn_std, generator)
        self.actor = Branch(memory, nn.Sequential(body, head))
        self.critic: Branch | None = None
        if critic:
            memory, body, n = parts()
            self.critic = Branch(memory, nn.Sequential(body, linear(n, 1, 1.0, generator)))

    def policy(self, seen: Tree) -> Any:
        """π(·|s): a distribution with batch shape [T, B], or [B] for one row."""
        return self._answers(seen, self._branches()[:1])[0]

    def value(self, seen: Tree) -> Tensor:
        """V(s) [T, B], or [B] for one row."""
        assert self.critic is not None, "this network was built without a critic"
        value: Tensor = self._answers(seen, self._branches()[1:])[0]
        return value.squeeze(-1)

    def policy_and_value(self, seen: Tree) -> tuple[Any, Tensor]:
        """Both, for little more than the time of one: the two memories take their steps together."""
        policy, value = self._answers(seen, self._branches())
        return policy, value.squeeze(-1)

    def initial_state(self, n: int) -> dict[str, Tensor]:
        """Empty memories of n episodes, the actor's and the critic's [n, 1 or 2, K]."""
        memory, device = self.actor.memory, self.actor.memory.bias_input.device
        return {"cells": torch.zeros(n, len(self._branches()), memory.state_size, device=device)}

    def step(self, seen: Tree) -> tuple[Any, dict[str, Tensor]]:
        """π(·|s) for one row, and the memories after it."""
        features = self._features(seen)
        after = self._after(features, seen, self._branches())
        policy = self.actor(features, after[0].narrow(-1, 0, self.actor.memory.size))
        return policy, {"cells": torch.stack(after, 1)}

    def _answers(self, seen: Tree, branches: Branches) -> list[Any]:
        """What actor, critic or both answer for every row."""
        features, memory = self._features(seen), self.actor.memory
        if features.ndim == 2:
            after = self._after(features, seen, branches)
            remembered = tuple(own.narrow(-1, 0, memory.size) for own in after)
        else:
            state, keep = seen.state["cells"], (~seen.start).to(features.dtype).unsqueeze(-1)
            first = torch.stack([state[0, :, i] for i, _ in branches])
            weights = [weight for _, branch in branches for weight in branch.memory.weights]
            remembered = memory.cell.sequence.apply(features, keep, first, *weights).unbind(0)
        return [branch(features, own) for (_, branch), own in zip(branches, remembered, strict=True)]

    def _after(self, features: Tensor, seen: Sequence, branches: Branches) -> list[Tensor]:
        """The memories after one row [B, K] each; their first H numbers are their outputs."""
        kept = seen.state["cells"].masked_fill(seen.start[:, None, None], 0.0)
        before, step = kept.unbind(1), self.actor.memory.cell.sequence.step
        return [step(features, before[i], *branch.memory.weights) for i, branch in branches]

    def _branches(self) -> Branches:
        """Actor and critic, with their place in the state."""
        return [(i, branch) for i, branch in enumerate((self.actor, self.critic)) if branch is not None]

    def _features(self, seen: Tree) -> Tensor:
        """Features [..., n] of observations with a memory."""
        if not isinstance(seen, Sequence):
            raise UsageError(
                "an agent with a memory takes observations with it: agent.memory(n).see(obs), or a whole "
                "pgrad.data.Sequence"
            )
        features: Tensor = self.encoder(seen.obs)
        return features
