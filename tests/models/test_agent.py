"""Agents for every space: shapes in and out, first weights, groups, single actions, and modules of the
user's own."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from pgrad.data import leaves, map_tree
from pgrad.errors import UsageError
from pgrad.math.distributions import Bernoulli, Categorical, Gaussian, MultiCategorical, Product
from pgrad.models import Agent, AgentSpec, build_agent
from pgrad.models.encoder import Encoder
from tests.models.spaces import ACTIONS, OBSERVATIONS, observations


def made(
    observation: spaces.Space[Any],
    action: spaces.Space[Any],
    spec: Any = None,
    *,
    seed: int = 0,
    critic: Any = "value",
) -> Agent:
    generator = Generator().manual_seed(seed)
    return build_agent(
        observation, action, spec or AgentSpec(), gamma=0.99, critic=critic, generator=generator
    )


BOX, TWO = spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(2)


@pytest.mark.parametrize("name", OBSERVATIONS)
@pytest.mark.parametrize("batch", [(), (5,), (2, 5)])
def test_any_observation_with_any_batch_shape(name: str, batch: tuple[int, ...]) -> None:
    """[..., *space] to [...], and each row's answer does not depend on the rows beside it."""
    space = OBSERVATIONS[name]
    agent = made(space, TWO, AgentSpec(normalize_obs=True))
    obs = observations(space, batch)
    with torch.no_grad():
        value, logits = agent.value(obs), agent.policy(obs).logits
        assert value.shape == batch
        assert logits.shape == (*batch, 2)
        if batch == (2, 5):
            row = map_tree(lambda x: x[1, 3], obs)
            assert torch.allclose(agent.value(row), value[1, 3], atol=1e-5)
            assert torch.allclose(agent.policy(row).logits, logits[1, 3], atol=1e-5)


@pytest.mark.parametrize("name", ACTIONS)
def test_any_action(name: str) -> None:
    """Samples, modes and log-probabilities have the batch's shape, and log π(a) of a sample is finite."""
    agent = made(BOX, ACTIONS[name])
    policy = agent.policy(torch.randn(4, 6, 3))
    for action in (policy.sample(Generator().manual_seed(0)), policy.mode):
        assert all(part.shape[:2] == (4, 6) for part in leaves(action))
        logp = policy.log_prob(action)
        assert logp.shape == (4, 6)
        assert logp.isfinite().all()
    assert policy.entropy().shape == (4, 6)


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("deterministic", [True, False])
def test_act_returns_members_of_the_space(name: str, deterministic: bool) -> None:
    """For an observation as Gymnasium gives it; far policies are clipped into the bounds."""
    space = ACTIONS[name]
    agent = made(OBSERVATIONS["dict"], space, AgentSpec(log_std_init=2.0))
    OBSERVATIONS["dict"].seed(0)
    generator = Generator().manual_seed(0)
    for _ in range(20):
        action = agent.act(OBSERVATIONS["dict"].sample(), deterministic=deterministic, generator=generator)
        assert space.contains(action), f"{action!r} is not in {space}"


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_act_sees_what_training_sees(name: str) -> None:
    """A single raw observation gives the action that the world's batched form of it gives."""
    space = OBSERVATIONS[name]
    agent = made(space, spaces.Box(-9.0, 9.0, (2,)))
    space.seed(3)
    raw = space.sample()
    assert agent.act(raw) == pytest.approx(
        agent.policy(batched(space, raw)).mode[0].detach().numpy(), abs=1e-6
    )


def batched(space: spaces.Space[Any], raw: Any) -> Any:
    """`raw` as a world hands it out, in a batch of one."""
    import pgrad.worlds as worlds

    class Shows(gymnasium.Env[Any, Any]):
        observation_space, action_space = space, TWO

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            return raw, {}

    return worlds.make(Shows).reset()


def test_sampling_draws_from_its_generator_and_only_that() -> None:
    agent = made(BOX, spaces.Box(-1.0, 1.0, (2,)))
    before = torch.get_rng_state()
    a, b = (
        agent.act(np.zeros(3, np.float32), deterministic=False, generator=Generator().manual_seed(7))
        for _ in "ab"
    )
    assert (a == b).all()
    assert torch.equal(before, torch.get_rng_state())


def test_sampling_without_a_generator_follows_pytorchs_default() -> None:
    """Other draws every time, the same ones after the same torch.manual_seed."""
    agent = made(BOX, spaces.Box(-1.0, 1.0, (2,)))
    before, found = torch.get_rng_state(), []
    for _ in "ab":
        torch.manual_seed(3)
        found.append([agent.act(np.zeros(3), deterministic=False).tolist() for _ in range(3)])
    torch.set_rng_state(before)
    assert found[0] == found[1]
    assert len({tuple(action) for action in found[0]}) == 3


DICT = spaces.Dict(eye=BOX, place=spaces.Discrete(4, start=2))


@pytest.mark.parametrize(
    ("space", "obs", "text"),
    [
        (DICT, np.zeros(3), "an array of shape (3,) is not an observation with the keys ['eye', 'place']"),
        (DICT, {"eye": np.zeros(3)}, "a dict with the keys ['eye'] is not an observation with the keys "),
        (DICT, {"eye": "x", "place": 2}, f"'x' is not an observation of {BOX}"),
        (DICT, {"eye": np.zeros(3), "place": 1}, f"1 is not an observation of {DICT['place']}"),
        (DICT, {"eye": np.zeros(3), "place": 6}, f"6 is not an observation of {DICT['place']}"),
        (spaces.Tuple((BOX, TWO)), (np.zeros(3),), "(array([0., 0., 0.]),) is not an observation of 2 parts"),
        (spaces.Tuple((BOX, TWO)), 7, "7 is not an observation of 2 parts, Tuple("),
        (BOX, "x", f"'x' is not an observation of {BOX}"),
        (BOX, None, f"None is not an observation of {BOX}"),
        (BOX, [[1.0], [1.0, 2.0], 3.0], f"[[1.0], [1.0, 2.0], 3.0] is not an observation of {BOX}"),
        (BOX, {"eye": 1}, f"a dict with the keys ['eye'] is not an observation of {BOX}"),
        (TWO, "one", "'one' is not an observation of Discrete(2)"),
        (TWO, [0, 1], "an observation of shape (2,) is not one of Discrete(2)"),
        (spaces.MultiDiscrete([2, 3]), [1, 3], "[1, 3] is not an observation of MultiDiscrete([2 3])"),
    ],
)
def test_observations_of_another_space_are_refused(space: spaces.Space[Any], obs: Any, text: str) -> None:
    """In one line: what came, and what the space is."""
    with pytest.raises(UsageError) as error:
        made(space, TWO).act(obs)
    assert str(error.value).startswith(text)
    assert "\n" not in str(error.value)


def test_masks_that_are_none_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^'all' is not an action mask for Discrete\(2\)$"):
        made(BOX, TWO).act(np.zeros(3), allowed="all")


def test_observations_of_another_shape_are_refused() -> None:
    """Some would be broadcast to a wrong answer, as a number is."""
    agent = made(BOX, TWO, AgentSpec(normalize_obs=True))
    for obs in (0.5, np.zeros(4), np.zeros((1, 3))):
        with pytest.raises(UsageError, match=r"an observation of shape .* is not one of Box"):
            agent.act(obs)


def test_integer_boxes_are_rounded_like_the_world_does() -> None:
    agent = made(BOX, spaces.Box(-9, 9, (1,), np.int64))
    with torch.no_grad():
        agent.network.actor[1].mean.bias.fill_(1.7)
        agent.network.actor[1].mean.weight.zero_()
    assert agent.act(np.zeros(3, np.float32)).tolist() == [2]


def test_discrete_actions_start_where_the_space_does() -> None:
    agent = made(BOX, spaces.Discrete(3, start=5))
    assert {agent.act(np.random.default_rng(i).normal(size=3)) for i in range(30)} <= {5, 6, 7}
    assert agent.policy(torch.zeros(1, 3)).logits.shape == (1, 3)


def test_kinds_of_policies() -> None:
    kinds = {
        "discrete": Categorical,
        "box": Gaussian,
        "multidiscrete": MultiCategorical,
        "multibinary": Bernoulli,
        "dict": Product,
        "tuple": Product,
    }
    for name, kind in kinds.items():
        assert type(made(BOX, ACTIONS[name]).policy(torch.zeros(2, 3))) is kind


def test_one_hot_and_flat_features() -> None:
    """Discrete and MultiDiscrete become one-hot, boxes are flattened, parts follow each other in the
    space's order."""
    space = spaces.Tuple((spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.Box(-1.0, 1.0, (2, 2))))
    encoder = Encoder(space, Generator())
    obs = (torch.tensor([2]), torch.tensor([[1, 0]]), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    assert encoder(obs).tolist() == [[0, 0, 1, 0, 1, 1, 0, 0, 1, 2, 3, 4]]
    assert encoder.size == 12


def test_images_of_both_layouts_give_the_same() -> None:
    """Channels first or last, [0, 255] scaled to [0, 1]; small ones pass through smaller kernels."""
    for height, width in ((84, 84), (10, 10), (36, 40)):
        last = Encoder(spaces.Box(0, 255, (height, width, 4), np.uint8), Generator().manual_seed(0))
        first = Encoder(spaces.Box(0, 255, (4, height, width), np.uint8), Generator().manual_seed(0))
        picture = torch.randint(256, (2, height, width, 4), dtype=torch.uint8)
        assert torch.allclose(last(picture), first(picture.movedim(-1, -3)), atol=1e-6)
        assert last(picture).shape == (2, 512)
    scaled = last.image.layers(picture.movedim(-1, -3) / 255.0)
    assert torch.allclose(last(picture), scaled, atol=1e-6)


def test_first_weights() -> None:
    """Orthogonal: gain √2 hidden, 0.01 policy, 1 value, biases 0, log σ as asked: from the generator
    alone."""
    before = torch.get_rng_state()
    agent = made(spaces.Box(-1.0, 1.0, (64,)), spaces.Box(-1.0, 1.0, (2,)), AgentSpec(log_std_init=-0.5))
    assert torch.equal(before, torch.get_rng_state())
    hidden = [m for m in agent.modules() if isinstance(m, nn.Linear) and m.out_features == 64]
    assert len(hidden) == 4
    for layer in hidden:
        assert torch.allclose(layer.weight @ layer.weight.T, 2 * torch.eye(64), atol=1e-5)
    head, value = agent.network.actor[1], agent.network.critic[1]
    assert torch.allclose(head.mean.weight @ head.mean.weight.T, 1e-4 * torch.eye(2), atol=1e-9)
    assert float(value.weight.detach().norm()) == pytest.approx(1.0, abs=1e-5)
    assert not any(m.bias.any() for m in agent.modules() if isinstance(m, nn.Linear))
    assert head.log_std.tolist() == [-0.5, -0.5]
    whole = made(BOX, spaces.Box(-1.0, 1.0, (2,)), AgentSpec(log_std_init=-1))
    assert whole.policy(torch.zeros(1, 3)).log_std.tolist() == [[-1.0, -1.0]]
    same, other = made(BOX, TWO, seed=1), made(BOX, TWO, seed=2)
    assert all(
        torch.equal(p, q) for p, q in zip(made(BOX, TWO, seed=1).parameters(), same.parameters(), strict=True)
    )
    assert not torch.equal(next(same.parameters()), next(other.parameters()))


def test_sigma_may_be_fixed() -> None:
    agent = made(BOX, spaces.Box(-1.0, 1.0, (2,)), AgentSpec(learn_std=False, log_std_init=-1.0))
    assert not any("log_std" in name for name, p in agent.named_parameters() if p.requires_grad)
    assert agent.policy(torch.zeros(1, 3)).log_std.tolist() == [[-1.0, -1.0]]


def test_widths_and_activation() -> None:
    agent = made(BOX, TWO, AgentSpec(net_arch=(5, 7), activation="silu"))
    linears = [tuple(m.weight.shape) for m in agent.network.actor.modules() if isinstance(m, nn.Linear)]
    assert linears == [(5, 3), (7, 5), (2, 7)]
    assert sum(isinstance(m, nn.SiLU) for m in agent.modules()) == 4
    assert made(BOX, TWO, AgentSpec(net_arch=())).policy(torch.ones(1, 3)).logits.shape == (1, 2)


def test_actor_and_critic_share_nothing_but_images() -> None:
    """M-38: the gradient of one reaches no parameter of the other."""
    agent = made(BOX, TWO)
    agent.value(torch.randn(4, 3)).sum().backward()
    touched = {name for name, p in agent.named_parameters() if p.grad is not None}
    assert touched == {name for name, _ in agent.named_parameters() if "critic" in name.split(".")}
    image = made(OBSERVATIONS["image"], TWO)
    image.value(observations(OBSERVATIONS["image"], (2,))).sum().backward()
    assert any("encoder" in name for name, p in image.named_parameters() if p.grad is not None)


class Own(nn.Module):
    """A user's own module."""

    def __init__(self, critic: bool = True) -> None:
        super().__init__()
        self.body = nn.Linear(3, 2)
        if critic:
            self.value = lambda obs: obs.sum(-1) * self.body.bias[0]

    def policy(self, obs: Tensor) -> Categorical:
        return Categorical(self.body(obs))


def test_modules_of_the_users_own() -> None:
    network = Own()
    agent = made(BOX, TWO, network)
    assert agent.network is network
    assert agent.act(np.ones(3, np.float32)) in (0, 1)
    assert made(BOX, TWO, agent) is agent
    with pytest.raises(UsageError, match=r"agent Own has no method value\(obs\), which this algorithm needs"):
        made(BOX, TWO, Own(critic=False))
    made(BOX, TWO, Own(critic=False), critic="none")
    with pytest.raises(UsageError, match="agent Linear has no method policy"):
        made(BOX, TWO, nn.Linear(3, 2))
    with pytest.raises(UsageError, match="built without a critic"):
        made(BOX, TWO, made(BOX, TWO, critic="none"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"net_arch": (64, 0)}, "net_arch must be widths such as (64, 64), got (64, 0)"),
        ({"net_arch": 64}, "net_arch must be widths such as (64, 64), got 64"),
        ({"net_arch": (6.5,)}, "net_arch must be widths such as (64, 64), got (6.5,)"),
        ({"activation": "swish"}, "activation must be one of tanh, relu, elu, gelu, silu, got 'swish'"),
        ({"log_std_init": math.nan}, "log_std_init must be in [-20, 2], got nan"),
        ({"log_std_init": 3.0}, "log_std_init must be in [-20, 2], got 3.0"),
    ],
)
def test_wrong_specs(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as error:
        AgentSpec(**arguments)
    assert str(error.value) == text


@pytest.mark.parametrize("where", ["observation", "action"])
def test_unsupported_spaces(where: str) -> None:
    odd = spaces.Text(5)
    pair = (odd, TWO) if where == "observation" else (BOX, odd)
    with pytest.raises(UsageError, match=rf"{where} space Text is not supported; supported: .*Dict, Tuple"):
        made(*pair)
