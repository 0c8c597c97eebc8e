"""The networks of soft actor-critics: twins side by side, slow copies, squashed policies, any observation."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

import pgrad as pg
from pgrad.errors import UsageError
from pgrad.math.distributions import Categorical
from pgrad.math.gaussians import TanhGaussian
from pgrad.models import Agent, build_agent
from pgrad.models.soft import LOG_STD_MAX, LOG_STD_MIN, SoftNetwork, TwinMLP
from pgrad.training.optimizers import flatten_parameters
from tests.models.spaces import OBSERVATIONS, observations

BOX = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32))
ACTIONS: dict[str, spaces.Space[Any]] = {
    "box": BOX,
    "box scalar": spaces.Box(-1.0, 1.0, ()),
    "box matrix": spaces.Box(-1.0, 1.0, (2, 3)),
    "box float64": spaces.Box(-1.0, 1.0, (1,), np.float64),
    "box integers": spaces.Box(-2, 3, (2,), np.int64),
    "discrete": spaces.Discrete(4, start=2),
}
SPEC = pg.AgentSpec(net_arch=(16, 8), activation="relu")
RATES = {"actor": 1.0, "critic": 1.0, "temperature": 1.0}


def agent_of(observation: Any, action: Any, spec: pg.AgentSpec = SPEC, seed: int = 0) -> Agent:
    return build_agent(
        observation, action, spec, gamma=0.9, critic="q", generator=Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("net_arch", [(), (5,), (7, 6)])
@pytest.mark.parametrize("n_out", [1, 3])
def test_twins_are_two_networks(net_arch: tuple[int, ...], n_out: int) -> None:
    """The same numbers and the same gradients as of two multilayer perceptrons with these weights."""
    twins = TwinMLP(4, net_arch, n_out, "tanh", Generator().manual_seed(0))
    x = torch.randn(9, 4, generator=Generator().manual_seed(1), requires_grad=True)
    both = twins(x)
    assert both.shape == (2, 9, n_out)
    for k in range(2):
        layers: list[nn.Module] = []
        matrices = [w[k].T for w in twins.weights] + [twins.last_weight[k]]
        for weight, bias in zip(matrices, [*twins.biases, twins.last_bias], strict=True):
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.weight.data, layer.bias.data = weight.detach().clone(), bias[k, 0].detach().clone()
            layers += [layer, nn.Tanh()]
        alone = nn.Sequential(*layers[:-1])
        assert torch.allclose(both[k], alone(x), atol=1e-6)
        (one,) = torch.autograd.grad(both[k].square().sum(), x, retain_graph=True)
        (other,) = torch.autograd.grad(alone(x).square().sum(), x)
        assert torch.allclose(one, other, atol=1e-5)
        own = torch.autograd.grad(both[k].square().sum(), twins.last_weight, retain_graph=True)[0]
        theirs = torch.autograd.grad(alone(x).square().sum(), layers[-2].weight)[0]
        assert torch.allclose(own[k], theirs, atol=1e-5)
        assert not own[1 - k].any(), "neither teaches the other"
        assert not layers[0].bias.any()
    assert not torch.allclose(both[0], both[1]), "they begin differently"


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", OBSERVATIONS)
def test_any_observation(name: str, action: str) -> None:
    """Shapes of π, Q and Q̄, and actions within their bounds."""
    space = ACTIONS[action]
    agent = agent_of(OBSERVATIONS[name], space)
    obs = observations(OBSERVATIONS[name], (3,))
    policy = agent.policy(obs)
    sample = policy.sample(Generator().manual_seed(0))
    if isinstance(space, spaces.Discrete):
        assert isinstance(policy, Categorical)
        assert agent.q(obs).shape == agent.target_q(obs).shape == (2, 3, 4)
        return
    assert isinstance(policy, TanhGaussian)
    n = int(np.prod(space.shape))
    assert sample.shape == (3, n)
    low, high = (torch.as_tensor(x, dtype=torch.float32).flatten() for x in (space.low, space.high))
    assert ((sample >= low) & (sample <= high)).all()
    assert agent.q(obs, sample).shape == agent.target_q(obs, sample).shape == (2, 3)
    for _ in range(3):
        assert space.contains(agent.act(OBSERVATIONS[name].sample()))


def test_slow_copies_begin_equal_and_are_nobodys_to_train() -> None:
    agent = agent_of(OBSERVATIONS["box"], BOX)
    obs, action = torch.randn(5, 3), torch.rand(5, 2)
    assert torch.equal(agent.q(obs, action), agent.target_q(obs, action))
    assert not agent.target_q(obs, action).requires_grad
    with torch.no_grad():
        agent.network.critic.twins.last_bias.add_(1.0)  # type: ignore[union-attr]
    assert torch.allclose(agent.q(obs, action), agent.target_q(obs, action) + 1.0, atol=1e-6)


def test_parameters_fall_into_three_groups_and_copies_lie_in_the_critics_order() -> None:
    agent = agent_of(OBSERVATIONS["small image"], ACTIONS["discrete"])
    before = copy.deepcopy(agent.state_dict())
    flat = flatten_parameters(agent, RATES, "adam")
    names = {id(p): name for name, p in agent.named_parameters()}
    for group, part in flat.groups.items():
        found = {names[id(p)].split(".")[1] for p in part.parameters}
        assert found == {group}
    assert torch.equal(flat.targets, flat.groups["critic"].values)
    assert flat.targets.data_ptr() != flat.groups["critic"].values.data_ptr()
    assert sum(group.values.numel() for group in flat.groups.values()) == flat.values.numel()
    assert all(torch.equal(x, before[name]) for name, x in agent.state_dict().items())


def test_pictures_are_read_by_the_critics_alone() -> None:
    """The policy uses their convolutions and does not teach them."""
    agent = agent_of(OBSERVATIONS["small image"], BOX)
    obs = observations(OBSERVATIONS["small image"], (3,))
    action, logp = agent.policy(obs).rsample(Generator().manual_seed(0))
    convolutions = list(agent.network.critic.encoder.parameters())  # type: ignore[union-attr]
    assert convolutions
    grads = torch.autograd.grad(logp.sum() + action.sum(), convolutions, allow_unused=True)
    assert all(g is None for g in grads)
    assert all(
        g.any() for g in torch.autograd.grad(agent.q(obs, BOX_ACTION.expand(3, 2)).sum(), convolutions)
    )


BOX_ACTION = torch.tensor([0.1, 2.0])


def test_the_first_policy_is_wide_and_in_the_middle() -> None:
    """tanh of a standard normal, or what log_std_init says; σ stays within its limits whatever happens."""
    obs = torch.randn(50, 3)
    policy = agent_of(OBSERVATIONS["box"], BOX).policy(obs)
    assert policy.mean.abs().max() < 0.1
    assert policy.log_std.abs().max() < 0.1
    assert policy.low[0].tolist() == [-1.0, 0.0]
    assert policy.high[0].tolist() == [1.0, 5.0]
    assert (policy.mode - torch.tensor([0.0, 2.5])).abs().max() < 0.3
    narrow = agent_of(OBSERVATIONS["box"], BOX, pg.AgentSpec(log_std_init=-2.0)).policy(obs)
    assert (narrow.log_std + 2.0).abs().max() < 0.1
    agent = agent_of(OBSERVATIONS["box"], BOX)
    with torch.no_grad():
        agent.network.actor[1].log_std.bias.copy_(torch.tensor([100.0, -100.0]))  # type: ignore
    assert agent.policy(obs).log_std[0].tolist() == [LOG_STD_MAX, LOG_STD_MIN]
    action, logp = agent.policy(obs).rsample(Generator().manual_seed(0))
    assert bool(logp.isfinite().all())
    assert ((action >= policy.low) & (action <= policy.high)).all()


def test_discrete_policies_begin_nearly_uniform() -> None:
    logp = (
        agent_of(OBSERVATIONS["box"], ACTIONS["discrete"]).policy(torch.randn(50, 3)).logits.log_softmax(-1)
    )
    assert (logp.exp() - 0.25).abs().max() < 0.02


def test_observations_are_normalised_before_everything() -> None:
    spec = pg.AgentSpec(net_arch=(16,), normalize_obs=True)
    agent = agent_of(OBSERVATIONS["box"], BOX, spec)
    assert agent.normalizer is not None
    obs, action = 10 + 3 * torch.randn(500, 3), torch.rand(500, 2)
    agent.normalizer.update(obs, torch.ones(500))
    network: Any = agent.network
    seen = agent.normalizer(obs)
    assert seen.abs().mean() < 1.5
    assert torch.equal(agent.q(obs, action), network.q(seen, action))
    assert torch.equal(agent.target_q(obs, action), network.target_q(seen, action))
    assert torch.equal(agent.policy(obs).mean, network.policy(seen).mean)


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (
            spaces.Box(-np.inf, np.inf, (2,)),
            "SAC squashes actions into the bounds of their space: .* has none",
        ),
        (spaces.Box(0.0, np.inf, (2,)), "has none"),
        (spaces.MultiDiscrete([2, 3]), r"SAC needs a Box of actions and DiscreteSAC a Discrete, got Multi"),
        (spaces.Dict({"a": spaces.Discrete(2)}), "got Dict"),
    ],
)
def test_actions_without_such_a_policy(space: spaces.Space[Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        SoftNetwork(OBSERVATIONS["box"], space, SPEC, Generator().manual_seed(0))


def test_users_own_modules_need_all_functions() -> None:
    class Half(nn.Module):
        def policy(self, obs: Tensor) -> Categorical:
            return Categorical(torch.zeros(len(obs), 2))

        def q(self, obs: Tensor, action: Tensor | None = None) -> Tensor:
            return torch.zeros(2, len(obs), 2)

    with pytest.raises(UsageError, match=r"agent Half has no method target_q\(obs\)"):
        build_agent(
            OBSERVATIONS["box"], ACTIONS["discrete"], Half(), gamma=0.9, critic="q", generator=Generator()
        )
