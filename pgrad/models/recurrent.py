"""Networks with a memory: features → GRU or LSTM → hidden layers → head, for actor and critic each."""

from typing import Any

import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from pgrad.data.sequence import Sequence
from pgrad.data.tree import Tree
from pgrad.errors import UsageError
from pgrad.models.bodies import linear, mlp
from pgrad.models.cells import CELLS, Weights
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

    def forward(self, features: Tensor, keep: Tensor, state: Tensor) -> Tensor:
        """Outputs [T, B, H] after features [T, B, n], from the memory before the first row, state[0] [B, K].

        Where `keep` [T, B, 1] is 0 the memory is emptied. One row [B, n] gives [B, H].
        """
        if features.ndim == 2:
            return self.step(features, keep, state)[..., : self.size]
        sequence: Any = self.cell.sequence
        outputs: Tensor = sequence.apply(features, keep, state[0], *self._weights)
        return outputs

    def step(self, features: Tensor, keep: Tensor, state: Tensor) -> Tensor:
        """The memory after one row [B, K], of which the first H numbers are the output."""
        return self.cell.step(features, state * keep, *self._weights)

    @property
    def _weights(self) -> Weights:
        return self.weight_input, self.weight_hidden, self.bias_input, self.bias_hidden

    def _gates(self, n_in: int, generator: Generator) -> nn.Parameter:
        each = [linear(n_in, self.size, 1.0, generator).weight.detach() for _ in range(self.cell.gates)]
        return nn.Parameter(torch.cat(each))


class Branch(nn.Module):
    """The actor or the critic: what the hidden layers and the head see is the features and the memory."""

    def __init__(self, memory: Recurrence, output: nn.Module) -> None:
        super().__init__()
        self.memory, self.output = memory, output

    def forward(self, features: Tensor, keep: Tensor, state: Tensor) -> Any:
        """The head's answer for every row."""
        return self.answer(features, self.memory(features, keep, state))

    def answer(self, features: Tensor, remembered: Tensor) -> Any:
        """The head's answer for features [..., n] and the memory's outputs [..., H]."""
        return self.output(torch.cat([features, remembered], -1))


class RecurrentNetwork(nn.Module):
    """Encoder, actor and critic for one pair of spaces, actor and critic with a memory each.

    Observations come as a `Sequence`: T rows of B columns, or one row [B, ...]. An encoder that learns
    (images) is shared by both and belongs to the actor.
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
        self.encoder = Encoder(observation_space, generator)
        net_arch = () if self.encoder.has_parameters else spec.net_arch
        n_in = self.encoder.size

        def parts() -> tuple[Recurrence, nn.Module, int]:
            memory = Recurrence(spec.memory, n_in, spec.memory_size, generator)
            return memory, *mlp(n_in + spec.memory_size, net_arch, spec.activation, generator)

        memory, body, n = parts()
        head = make_head(action_space, n, spec.log_std_init, spec.learn_std, generator)
        self.actor = Branch(memory, nn.Sequential(body, head))
        self.critic: Branch | None = None
        if critic:
            memory, body, n = parts()
            self.critic = Branch(memory, nn.Sequential(body, linear(n, 1, 1.0, generator)))

    def policy(self, seen: Tree) -> Any:
        """π(·|s): a distribution with batch shape [T, B], or [B] for one row."""
        return self.actor(*self._inputs(seen), seen.state["actor"])

    def value(self, seen: Tree) -> Tensor:
        """V(s) [T, B], or [B] for one row."""
        assert self.critic is not None, "this network was built without a critic"
        value: Tensor = self.critic(*self._inputs(seen), seen.state["critic"])
        return value.squeeze(-1)

    def initial_state(self, n: int) -> dict[str, Tensor]:
        """Empty memories of n episodes [n, K]."""
        device = self.actor.memory.bias_input.device
        return {
            name: torch.zeros(n, branch.memory.state_size, device=device)
            for name, branch in self._branches().items()
        }

    def step(self, seen: Tree) -> tuple[Any, dict[str, Tensor]]:
        """π(·|s) for one row, and the memories after it."""
        features, keep = self._inputs(seen)
        state = {
            name: branch.memory.step(features, keep, seen.state[name])
            for name, branch in self._branches().items()
        }
        return self.actor.answer(features, state["actor"][..., : self.actor.memory.size]), state

    def _branches(self) -> dict[str, Branch]:
        return {"actor": self.actor} | ({} if self.critic is None else {"critic": self.critic})

    def _inputs(self, seen: Tree) -> tuple[Tensor, Tensor]:
        """Features [..., n], and 0 where an episode begins, else 1 [..., 1]."""
        if not isinstance(seen, Sequence):
            raise UsageError(
                "an agent with a memory takes observations with it: agent.memory(n).see(obs), or a whole "
                "pgrad.data.Sequence"
            )
        features: Tensor = self.encoder(seen.obs)
        return features, (~seen.start).to(features.dtype).unsqueeze(-1)
