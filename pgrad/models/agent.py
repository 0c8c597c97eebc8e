"""The agent: a policy and, where the algorithm asks for one, a critic, with the normalisers that belong to
them.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from pgrad.data.trajectory import Trajectory
from pgrad.data.tree import Tree, map_tree
from pgrad.errors import UsageError
from pgrad.math.distributions import Distribution
from pgrad.models.bodies import ACTIVATIONS, linear, mlp
from pgrad.models.encoder import Encoder
from pgrad.models.heads import make_head
from pgrad.models.normalizer import ObservationNormalizer, RewardScaler
from pgrad.models.soft import SoftNetwork


@dataclass(frozen=True)
class AgentSpec:
    """How an agent is built from a world's spaces."""

    net_arch: tuple[int, ...] = (64, 64)
    """widths of the hidden layers, of actor and critic each (images have shared convolutions instead)"""
    activation: Literal["tanh", "relu", "elu", "gelu", "silu"] = "tanh"
    """activation of the hidden layers"""
    log_std_init: float = 0.0
    """first log σ of a Gaussian policy"""
    learn_std: bool = True
    """learn σ of a Gaussian policy (otherwise it stays as it is)"""
    normalize_obs: bool = False
    """normalise observations by their running mean and variance"""
    normalize_reward: bool = False
    """scale rewards by the running deviation of the discounted return"""

    def __post_init__(self) -> None:
        widths = self.net_arch
        if not isinstance(widths, tuple | list) or any(not isinstance(n, int) or n < 1 for n in widths):
            raise UsageError(f"net_arch must be widths such as (64, 64), got {widths!r}")
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if not -20.0 <= self.log_std_init <= 2.0:
            raise UsageError(f"log_std_init must be in [-20, 2], got {self.log_std_init}")


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
        self.encoder = Encoder(observation_space, generator)
        net_arch = () if self.encoder.has_parameters else spec.net_arch
        body, n = mlp(self.encoder.size, net_arch, spec.activation, generator)
        head = make_head(action_space, n, spec.log_std_init, spec.learn_std, generator)
        self.actor = nn.Sequential(body, head)
        self.critic: nn.Module | None = None
        if critic:
            body, n = mlp(self.encoder.size, net_arch, spec.activation, generator)
            self.critic = nn.Sequential(body, linear(n, 1, 1.0, generator))

    def policy(self, obs: Tree) -> Any:
        """π(·|s): a distribution with batch shape [...] for observations [..., *space]."""
        return self.actor(self.encoder(obs))

    def value(self, obs: Tree) -> Tensor:
        """V(s) [...] for observations [..., *space]."""
        assert self.critic is not None, "this network was built without a critic"
        value: Tensor = self.critic(self.encoder(obs))
        return value.squeeze(-1)


class Agent(nn.Module):
    """What acts and what is trained: a network behind its normalisers.

    `network` is any module with `policy(obs) -> distribution` and, for algorithms with a critic, `value(obs)
    -> [...]`. Parameters with a part of their name that begins with `critic` form the critic's group; all
    others the actor's.
    """

    def __init__(
        self,
        network: nn.Module,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        normalizer: ObservationNormalizer | None = None,
        reward_scaler: RewardScaler | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.observation_space, self.action_space = observation_space, action_space
        self.normalizer, self.reward_scaler = normalizer, reward_scaler

    def policy(self, obs: Tree) -> Any:
        """π(·|s): a distribution with batch shape [...] for observations [..., *space]."""
        return self.network.policy(self._normalize(obs))  # type: ignore[operator]

    def value(self, obs: Tree) -> Tensor:
        """V(s) [...] for observations [..., *space]."""
        return self.network.value(self._normalize(obs))  # type: ignore[operator]

    def q(self, obs: Tree, action: Tensor | None = None) -> Tensor:
        """Q₁ and Q₂ of actions [2, N], or of every discrete action [2, N, A]."""
        return self.network.q(self._normalize(obs), action)  # type: ignore[operator]

    def target_q(self, obs: Tree, action: Tensor | None = None) -> Tensor:
        """The same by the slow copies."""
        return self.network.target_q(self._normalize(obs), action)  # type: ignore[operator]

    def log_temperature(self) -> Tensor:
        """log α."""
        return self.network.log_temperature()  # type: ignore[operator]

    def scale_rewards(self, traj: Trajectory) -> Tensor:
        """The rewards to learn from [T, B]: as they came, or scaled after the scaler has seen them."""
        if self.reward_scaler is None:
            return traj.reward
        self.reward_scaler.update(traj.reward, traj.done, traj.mask)
        scaled: Tensor = self.reward_scaler(traj.reward)
        return scaled

    def observe(self, traj: Trajectory) -> None:
        """Show fresh observations to the normaliser: once per trajectory, after it was learned from."""
        if self.normalizer is not None:
            self.normalizer.update(traj.decisions, traj.mask)

    @torch.no_grad()
    def act(self, obs: Any, *, deterministic: bool = True, generator: Generator | None = None) -> Any:
        """The action for one observation as Gymnasium gives it, ready for `env.step`.

        `deterministic` takes the mode of the policy; otherwise it is sampled, from `generator` (required
        then).
        """
        if not deterministic and generator is None:
            raise UsageError(
                "act(deterministic=False) needs a generator, such as torch.Generator().manual_seed(0)"
            )
        device = next(self.parameters()).device
        batch = map_tree(lambda x: x.unsqueeze(0).to(device), _observation(self.observation_space, obs))
        policy = self.policy(batch)
        if generator is not None:
            policy = map_tree(lambda x: x.to(generator.device), policy)
        action = policy.mode if deterministic or generator is None else policy.sample(generator)
        return _action(self.action_space, map_tree(lambda x: x[0], action))

    def _normalize(self, obs: Tree) -> Tree:
        return obs if self.normalizer is None else self.normalizer(obs)


METHODS = {"none": (), "value": ("value",), "q": ("q", "target_q", "log_temperature")}
"""What a module must have beside `policy`, by the critic that an algorithm asks for."""


def build_agent(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    spec: AgentSpec | nn.Module,
    *,
    gamma: float,
    critic: Literal["none", "value", "q"],
    generator: Generator,
) -> Agent:
    """An agent for a pair of spaces: from a spec, around a user's own module, or an agent as it is."""
    if isinstance(spec, Agent):
        if critic == "value" and isinstance(spec.network, Network) and spec.network.critic is None:
            raise UsageError("this agent was built without a critic, which this algorithm needs")
        return spec
    if isinstance(spec, AgentSpec):
        network: nn.Module = (
            SoftNetwork(observation_space, action_space, spec, generator)
            if critic == "q"
            else Network(observation_space, action_space, spec, critic == "value", generator)
        )
        return Agent(
            network,
            observation_space,
            action_space,
            normalizer=ObservationNormalizer(observation_space) if spec.normalize_obs else None,
            reward_scaler=RewardScaler(gamma) if spec.normalize_reward else None,
        )
    for name in ("policy", *METHODS[critic]):
        if not callable(getattr(spec, name, None)):
            raise UsageError(
                f"agent {type(spec).__name__} has no method {name}(obs), which this algorithm needs"
            )
    agent = Agent(spec, observation_space, action_space)
    _require_answers(agent, critic == "value")
    return agent


@torch.no_grad()
def _require_answers(agent: Agent, critic: bool) -> None:
    """Ask a user's module once, so that what it answers wrongly is told before anything is trained."""
    device = next(agent.parameters(), torch.empty(0)).device
    one = _observation(agent.observation_space, agent.observation_space.sample())
    two = map_tree(lambda x: torch.stack([x, x]).to(device), one)
    name, policy = type(agent.network).__name__, agent.policy(two)
    if not isinstance(policy, Distribution):
        raise UsageError(
            f"policy(obs) of {name} must return a distribution of pgrad.math.distributions, such as "
            f"Categorical(logits) or Gaussian(mean, log_std); got a {type(policy).__module__}."
            f"{type(policy).__name__}"
        )
    if critic and tuple(agent.value(two).shape) != (2,):
        raise UsageError(
            f"value(obs) of {name} must return one number per observation, shape (2,) for a batch of 2; "
            f"got {tuple(agent.value(two).shape)}: squeeze the last axis?"
        )


def _observation(space: spaces.Space[Any], obs: Any) -> Tree:
    if isinstance(space, spaces.Dict):
        return {key: _observation(part, obs[key]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_observation(part, o) for part, o in zip(space.spaces, obs, strict=True))
    if isinstance(space, spaces.Discrete):
        return torch.as_tensor(int(obs) - int(space.start))
    x = torch.as_tensor(np.asarray(obs))
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise UsageError("an observation is NaN or infinite")
    if x.shape != space.shape:
        raise UsageError(f"an observation of shape {tuple(x.shape)} is not one of {space}")
    if isinstance(space, spaces.MultiDiscrete):
        return x.to(torch.int64) - torch.as_tensor(space.start)
    return x.to(torch.float32) if x.is_floating_point() else x


def _action(space: spaces.Space[Any], action: Tree) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _action(part, action[key]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_action(part, a) for part, a in zip(space.spaces, action, strict=True))
    if isinstance(space, spaces.Discrete):
        return int(action) + int(space.start)
    x = action.cpu().numpy().reshape(space.shape)
    if isinstance(space, spaces.Box):
        x = np.clip(np.rint(x) if np.issubdtype(space.dtype, np.integer) else x, space.low, space.high)
    elif isinstance(space, spaces.MultiDiscrete):
        x = x + space.start
    return np.asarray(x, space.dtype)  # an array for a Box of shape () too
