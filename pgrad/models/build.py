"""From a pair of spaces and what is wanted to an agent."""

from typing import Any, Literal

import torch
from gymnasium import spaces
from torch import Generator, nn

from pgrad.data.tree import map_tree
from pgrad.errors import UsageError
from pgrad.math.distributions import Distribution
from pgrad.models.agent import Agent
from pgrad.models.feedforward import Network
from pgrad.models.fit import misfit
from pgrad.models.normalizer import ObservationNormalizer, RewardScaler
from pgrad.models.recurrent import RecurrentNetwork
from pgrad.models.single import read_observation
from pgrad.models.soft import SoftNetwork
from pgrad.models.spec import AgentSpec

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
        if (
            critic == "value"
            and isinstance(spec.network, Network | RecurrentNetwork)
            and spec.network.critic is None
        ):
            raise UsageError("this agent was built without a critic, which this algorithm needs")
        return spec
    if isinstance(spec, AgentSpec):
        parts = (observation_space, action_space, spec)
        network: nn.Module
        if critic == "q":
            if spec.memory != "none":
                raise UsageError(f"the policy of SAC has no memory: leave out memory={spec.memory!r}")
            network = SoftNetwork(*parts, generator)
        elif spec.memory == "none":
            network = Network(*parts, critic == "value", generator)
        else:
            network = RecurrentNetwork(*parts, critic == "value", generator)
        return Agent(
            network,
            observation_space,
            action_space,
            normalizer=ObservationNormalizer(observation_space) if spec.normalize_obs else None,
            reward_scaler=RewardScaler(gamma) if spec.normalize_reward else None,
            sign_reward=bool(spec.sign_reward),
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
    one = read_observation(agent.observation_space, agent.observation_space.sample())
    two = map_tree(lambda x: torch.stack([x, x]).to(device), one)
    name, seen = type(agent.network).__name__, agent.memory(2).see(two)

    def asked(method: str) -> Any:
        try:
            return getattr(agent, method)(seen)
        except Exception as error:  # whatever the user's own code raises
            told, shapes = " ".join(str(error).split()), map_tree(lambda x: tuple(x.shape), two)
            raise UsageError(
                f"{method}(obs) of {name} fails for a batch of 2 observations, shape {shapes}: "
                f"{type(error).__name__}: {told}"
            ) from error

    policy = asked("policy")
    if not isinstance(policy, Distribution):
        raise UsageError(
            f"policy(obs) of {name} must return a distribution of pgrad.math.distributions, such as "
            f"Categorical(logits) or Gaussian(mean, log_std); got a {type(policy).__module__}."
            f"{type(policy).__name__}"
        )
    if wrong := misfit(policy, agent.action_space, 2):
        raise UsageError(f"policy(obs) of {name} does not fit the actions: {wrong}")
    if critic and (shape := tuple(asked("value").shape)) != (2,):
        raise UsageError(
            f"value(obs) of {name} must return one number per observation, shape (2,) for a batch of 2; "
            f"got {shape}: squeeze the last axis?"
        )
