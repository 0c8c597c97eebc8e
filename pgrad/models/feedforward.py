"""Networks without a memory: features → hidden layers → head, for actor and critic each."""

from typing import Any

from gymnasium import spaces
from torch import Generator, Tensor, nn

from pgrad.data.tree import Tree
from pgrad.models.bodies import linear, mlp
from pgrad.models.encoder import Encoder
from pgrad.models.heads import make_head
from pgrad.models.spec import AgentSpec


class Network(nn.Module):
    """Encoder, actor and critic for one pair of spaces.

    Actor and critic are separate networks; an encoder that learns (images) is shared by both and belongs to
    the actor.
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
        self.rounds_apart = spec.half
        self.encoder = Encoder(observation_space, generator, spec.half)
        net_arch = () if self.encoder.has_parameters else spec.net_arch
        body, n = mlp(self.encoder.size, net_arch, spec.activation, generator, spec.half)
        head = make_head(action_space, n, spec.log_std_init, spec.learn_std, generator)
        self.actor = nn.Sequential(body, head)
        self.critic: nn.Module | None = None
        if critic:
            body, n = mlp(self.encoder.size, net_arch, spec.activation, generator, spec.half)
            self.critic = nn.Sequential(body, linear(n, 1, 1.0, generator))

    def policy(self, obs: Tree) -> Any:
        """π(·|s): a distribution with batch shape [...] for observations [..., *space]."""
        return self.actor(self.encoder(obs))

    def value(self, obs: Tree) -> Tensor:
        """V(s) [...] for observations [..., *space]."""
        assert self.critic is not None, "this network was built without a critic"
        value: Tensor = self.critic(self.encoder(obs))
        return value.squeeze(-1)

    def policy_and_value(self, obs: Tree) -> tuple[Any, Tensor]:
        """Both, of features computed once."""
        assert self.critic is not None, "this network was built without a critic"
        features = self.encoder(obs)
        value: Tensor = self.critic(features)
        return self.actor(features), value.squeeze(-1)
