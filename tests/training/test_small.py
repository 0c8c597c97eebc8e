"""Acting by numpy against acting by the module: the same draws, actions and log-probabilities."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space
from torch import Generator, Tensor, nn

from pgrad import PPO, AgentSpec, native
from pgrad.data import Episodes, Steps
from pgrad.data.masked import Masked
from pgrad.errors import TrainingError
from pgrad.math.distributions import Categorical
from pgrad.models import Agent, build_agent
from pgrad.training import collect, noise
from pgrad.training.acting import Choice, likeliest, sampled
from pgrad.training.small import SHARED_OUT, Small, small
from pgrad.worlds.gym.gymnasium import GymnasiumWorld
from tests.training.tools import training

VECTOR, MATRIX = Box(-1.0, 1.0, (5,)), Box(-1.0, 1.0, (2, 3))
SCALAR, BYTES = Box(-1.0, 1.0, ()), Box(0, 9, (4,), np.uint8)
PICTURE = Box(0, 255, (12, 12, 3), np.uint8)


def built(
    obs: Space[Any], action: Space[Any], spec: Any = None, seed: int = 0, critic: Any = "value"
) -> Agent:
    """An agent whose policy is not nearly uniform, and whose normaliser has seen something."""
    generator = Generator().manual_seed(seed)
    made = AgentSpec() if spec is None else spec
    agent = build_agent(obs, action, made, gamma=0.9, critic=critic, generator=generator)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    if agent.normalizer is not None:
        shown = 3.0 * torch.randn(50, *(obs.shape or ()), generator=generator) + 1.0
        agent.normalizer.update(shown, torch.ones(50))
    return agent


def shown(space: Space[Any], n: int, seed: int = 1) -> Tensor:
    space.seed(seed)
    rows = torch.as_tensor(np.stack([space.sample() for _ in range(n)]))
    return rows * 20.0 if rows.is_floating_point() else rows  # so that a normaliser clips some


SPECS = [
    AgentSpec(),
    AgentSpec(net_arch=()),
    AgentSpec(net_arch=(7,), activation="relu"),
    AgentSpec(net_arch=(16, 9, 4), normalize_obs=True),
    AgentSpec(normalize_obs=True, normalize_reward=True, log_std_init=-0.7),
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("action", [Discrete(2), Discrete(6, start=3), Box(-1.0, 1.0, (3,)), SCALAR])
@pytest.mark.parametrize("obs", [VECTOR, MATRIX, SCALAR, BYTES])
@pytest.mark.parametrize("n", [1, 8])
def test_same_as_the_module(obs: Space[Any], action: Space[Any], spec: AgentSpec, n: int) -> None:
    agent, seen = built(obs, action, spec), shown(obs, n)
    choose = begun(agent, seen)
    generators = Generator().manual_seed(3), Generator().manual_seed(3)
    with torch.no_grad():
        for _ in range(20):
            ours, theirs = answer(choose, seen, generators[0]), sampled(agent, seen, generators[1])
            same(ours, theirs)
            assert torch.equal(generators[0].get_state(), generators[1].get_state())
        same(answer(choose, seen), likeliest(agent, seen))


@pytest.mark.parametrize("action", [Discrete(2), Box(-1.0, 1.0, (3,))])
@pytest.mark.parametrize("steps", [2, 5, 1000])
@pytest.mark.parametrize("taken", [1, 4, 5, 7, 12])
@pytest.mark.parametrize("singly", [True, False])
def test_numbers_drawn_together_are_those_of_each_step(
    action: Space[Any], steps: int, taken: int, singly: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it ends; log-probabilities of many steps are those of each. Few are drawn at once."""
    if singly and not noise.drawn_singly():
        pytest.skip("torch draws otherwise here")
    monkeypatch.setattr(noise, "AT_ONCE", 6 * 3 * 2)
    monkeypatch.setattr(noise, "drawn_singly", lambda: singly)
    agent, n = built(VECTOR, action), 3
    choose = begun(agent, shown(VECTOR, n))
    generators = Generator().manual_seed(3), Generator().manual_seed(3)
    with torch.no_grad():
        for collection in range(3):
            choose.begin(steps)
            for parameter in agent.parameters():
                parameter.add_(0.1)
            choose.begin(steps)
            ours, theirs = [], []
            for t in range(taken):
                seen = shown(VECTOR, n, seed=10 * collection + t)
                ours.append(tuple(x.clone() for x in choose(seen, generators[0])[:2]))
                theirs.append(sampled(agent, seen, generators[1])[:2])
            choose.end()
            assert torch.equal(generators[0].get_state(), generators[1].get_state())
            actions, noted = (torch.stack(x) for x in zip(*ours, strict=True))
            expected = tuple(torch.stack(x) for x in zip(*theirs, strict=True))
            same((actions, choose.log_prob(noted, actions), {}), (*expected, {}))


@pytest.mark.parametrize("memory", ["gru", "lstm"])
@pytest.mark.parametrize("critic", ["none", "value"])
@pytest.mark.parametrize("action", [Discrete(3), Box(-1.0, 1.0, (2,))])
@pytest.mark.parametrize("net_arch", [(), (9,)])
def test_same_as_the_module_with_a_memory(memory: Any, critic: Any, action: Any, net_arch: Any) -> None:
    """Over steps, of which some begin episodes; the memory is what a sequence goes on from."""
    spec = AgentSpec(memory=memory, memory_size=6, net_arch=net_arch, normalize_obs=True)
    agent, n = built(VECTOR, action, spec, critic=critic), 5
    memories = agent.memory(n), agent.memory(n)
    generators = Generator().manual_seed(3), Generator().manual_seed(3)
    choose = begun(agent, memories[0].see(shown(VECTOR, n)))
    with torch.no_grad():
        for t in range(20):
            obs = shown(VECTOR, n, seed=t)
            ours = answer(choose, memories[0].see(obs), generators[0])
            theirs = sampled(agent, memories[1].see(obs), generators[1])
            same(ours, theirs)
            same(answer(choose, memories[0].see(obs)), likeliest(agent, memories[1].see(obs)))
            for own, (_, _, state) in zip(memories, (ours, theirs), strict=True):
                own.advance(state)
                own.begin(torch.arange(n) != t % 7)


def same(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-5)  # checks shapes and types too
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[2], theirs[2], rtol=1e-5, atol=1e-5)


def begun(agent: Agent, seen: Any) -> Small:
    choose = small(agent, seen)
    assert choose is not None
    choose.begin(1)
    return choose


def answer(choose: Small, seen: Any, *generator: Generator) -> Choice:
    """With log π(a|s), in tensors of its own."""
    action, noted, state = choose(seen, *generator)
    return action.clone(), choose.log_prob(noted, action), state


@pytest.mark.parametrize("request_", [Steps(12), Episodes(2)])
@pytest.mark.parametrize("world", ["CartPole-v1", "Pendulum-v1"])
def test_what_is_collected_is_what_was_chosen_at_each_step(
    request_: Any, world: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are buffers that the next overwrites; the record holds every one, by the module's measure."""
    told = []
    step = GymnasiumWorld.step

    def noted(self: Any, action: Tensor, active: Any = None) -> Any:
        told.append(action.clone())
        return step(self, action, active)

    monkeypatch.setattr(GymnasiumWorld, "step", noted)
    run = training(PPO(n_steps=12, batch_size=12), world=world)
    traj = run.collector.collect(request_)
    assert torch.equal(traj.action, torch.stack(told))
    assert not torch.equal(told[0], told[1])
    logp = run.agent.policy(traj.decisions).log_prob(traj.action)
    torch.testing.assert_close(traj.logp, logp.detach(), rtol=1e-5, atol=1e-5)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 2)

    def policy(self, obs: Tensor) -> Categorical:
        return Categorical(self.layer(obs))

    def value(self, obs: Tensor) -> Tensor:
        return obs.sum(-1)


@pytest.mark.parametrize(
    ("obs", "action", "spec"),
    [
        (PICTURE, Discrete(2), None),
        (Dict(a=VECTOR), Discrete(2), None),
        (Discrete(3), Discrete(2), None),
        (VECTOR, MultiDiscrete([2, 3]), None),
        (VECTOR, MultiBinary(3), None),
        (VECTOR, Dict(a=Discrete(2)), None),
        (PICTURE, Discrete(2), AgentSpec(memory="gru")),
        (VECTOR, Discrete(2), AgentSpec(activation="gelu")),
        (VECTOR, Discrete(2), AgentSpec(dtype="bfloat16")),
        (VECTOR, Discrete(2), Own()),
    ],
)
def test_others_act_by_their_module(obs: Space[Any], action: Space[Any], spec: Any) -> None:
    agent = built(obs, action, spec)
    seen = {"a": shown(VECTOR, 2)} if isinstance(obs, Dict) else shown(obs, 2)
    assert small(agent, agent.memory(2).see(seen)) is None


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_memories_without_a_compiler_act_by_their_module(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "library", lambda _: None)
    agent = built(VECTOR, Discrete(2), AgentSpec(memory=memory))
    assert small(agent, agent.memory(2).see(shown(VECTOR, 2))) is None


def test_masks_and_large_products_are_left_to_the_module() -> None:
    agent = built(VECTOR, Discrete(2))
    assert small(agent, Masked(shown(VECTOR, 2), torch.ones(2, 2, dtype=torch.bool))) is None
    most = SHARED_OUT // 64**2
    assert small(agent, shown(VECTOR, most)) is not None
    assert small(agent, shown(VECTOR, most + 1)) is None


def test_the_collector_acts_so(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def noted(agent: Agent, seen: Any) -> Any:
        calls.append(agent)
        return small(agent, seen)

    monkeypatch.setattr(collect, "small", noted)
    run = training(PPO(n_steps=8, batch_size=16, n_epochs=1))
    run.iterate()
    assert calls == [run.agent]


def test_a_policy_that_became_nan_is_told_as_ever() -> None:
    run = training(PPO(n_steps=8, batch_size=16, n_epochs=1))
    run.iterate()
    with torch.no_grad():
        next(run.agent.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        run.iterate()
