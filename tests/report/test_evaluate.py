"""Evaluation against environments of known episodes: how many, whose, what they returned, and what stays as
it was."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import pgrad as pg
from pgrad.errors import WorldError
from pgrad.math.distributions import Categorical
from pgrad.models import Agent, AgentSpec, build_agent
from pgrad.report.evaluate import Evaluation, evaluate
from pgrad.worlds import World, make
from tests.worlds.fakes import BOTH, TERMINATED, TRUNCATED, counting_factory

ENDINGS = (TERMINATED, TRUNCATED, BOTH)


class Always(torch.nn.Module):
    """Takes action 2 at most: the mode is 2, samples are anything."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([0.0, 0.0, 0.5]))

    def policy(self, obs: Tensor) -> Categorical:
        return Categorical(self.logits.expand(*obs.shape[:-1], 3))


def agent(world: World, module: Any = None) -> Agent:
    return build_agent(
        world.observation_space,
        world.action_space,
        module or Always(),
        gamma=0.9,
        critic="none",
        generator=Generator().manual_seed(0),
    )


def counting(lengths: Sequence[int], n_envs: int) -> World:
    return make(counting_factory(lengths, ENDINGS), n_envs=n_envs, seed=0)


def evaluated(world: World, episodes: int, deterministic: bool = True, seed: int = 0) -> Evaluation:
    generator = Generator().manual_seed(seed)
    return evaluate(agent(world), world, episodes=episodes, deterministic=deterministic, generator=generator)


@pytest.mark.parametrize("n_envs", [1, 2, 3, 8])
@pytest.mark.parametrize("episodes", [1, 5, 8])
def test_returns_and_lengths_are_the_truth(n_envs: int, episodes: int) -> None:
    """Episode k of environment i has number i + k·B; all of an environment's own come in its order."""
    lengths = (3, 1, 5, 2)
    result = evaluated(counting(lengths, n_envs), episodes)
    assert len(result.returns) == len(result.lengths) == episodes
    for k in range(episodes):
        number = k // n_envs  # each environment counts its own
        length = lengths[number % 4]
        assert result.lengths[k] == length
        assert result.returns[k] == sum(1000 * number + 10 * t + 2 for t in range(1, length + 1))


def test_short_episodes_are_not_favoured() -> None:
    """One environment with episodes of a single step beside one of ten: each gives half."""
    kinds = iter([(1,), (10,)])
    world = make(lambda: counting_factory(next(kinds), (TERMINATED,))(), n_envs=2, seed=0)
    assert evaluated(world, 8).lengths == (1, 10) * 4


class Watched:
    """A world that notes which environments were stepped while they should rest."""

    def __init__(self, world: World) -> None:
        self.world, self.rested = world, torch.zeros(world.n_envs, dtype=torch.int64)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)

    def step(self, action: Tensor, active: Tensor) -> Any:
        self.rested += ~active
        return self.world.step(action, active)


def test_an_environment_rests_when_it_has_run_its_share() -> None:
    kinds = iter([(1,), (10,), (3,)])
    watched: Any = Watched(make(lambda: counting_factory(next(kinds), (TERMINATED,))(), n_envs=3, seed=0))
    result = evaluated(watched, 2)
    assert result.lengths == (1, 10)
    assert watched.rested.tolist() == [9, 0, 10], "the third had nothing to do at all"


def test_deterministic_takes_the_mode_and_sampling_only_the_generator() -> None:
    world = counting((4,), 2)
    sure = evaluated(world, 6)
    assert all(x % 10 == 8 for x in sure.returns), "four actions of 2"
    before = torch.get_rng_state()
    drawn = [evaluated(counting((4,), 2), 6, deterministic=False, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0].returns != sure.returns
    generator = Generator().manual_seed(5)
    state = generator.get_state()
    evaluate(agent(world), world, episodes=2, deterministic=True, generator=generator)
    assert torch.equal(state, generator.get_state())


def test_statistics_are_frozen_and_modes_come_back() -> None:
    """Normalisers do not move, the agent is in evaluation mode during, and as it was after, on failure
    too."""
    world = make("cartpole", n_envs=2, seed=0)
    made = agent(world, AgentSpec(net_arch=(4,), normalize_obs=True, normalize_reward=True))
    made.normalizer.update(torch.randn(5, 2, 4), torch.ones(5, 2))
    made.network.encoder.eval()
    before = {name: x.clone() for name, x in made.state_dict().items()}
    modes = [module.training for module in made.modules()]
    assert len(set(modes)) == 2
    during: list[bool] = []
    original = made.policy
    made.policy = lambda obs: during.extend(m.training for m in made.modules()) or original(obs)  # type: ignore[method-assign,assignment]
    evaluate(made, world, episodes=3, deterministic=True, generator=Generator())
    assert during
    assert not any(during)
    assert [module.training for module in made.modules()] == modes
    assert all(torch.equal(x, before[name]) for name, x in made.state_dict().items())
    made.policy = lambda obs: (_ for _ in ()).throw(WorldError("broken"))  # type: ignore[method-assign,assignment]
    with pytest.raises(WorldError):
        evaluate(made, world, episodes=3, deterministic=True, generator=Generator())
    assert [module.training for module in made.modules()] == modes


def test_the_record() -> None:
    result = Evaluation((1.0, 5.0, 3.0, 7.0), (10, 20, 30, 41), deterministic=True)
    assert result.mean == 4.0
    assert result.std == pytest.approx(5.0**0.5)
    assert result.mean_length == 25.25
    low, high = result.interval
    assert 1.0 <= low < 4.0 < high <= 7.0
    assert str(result).startswith("4.0 ± 2.2 over 4 deterministic episodes (95% interval of the mean ")
    alone = Evaluation((1.0,), (7,), deterministic=False)
    assert str(alone) == "1.0 in 1 sampled episode (no interval of one, length 7.0)"
    assert str(replace(alone, texts=True)) == "1.000 in 1 prompt, sampled (no interval of one, length 7.0)"


def test_nothing_is_less_than_zero_by_rounding() -> None:
    text = str(Evaluation((-0.01, -0.02, -0.0), (1, 1, 1), deterministic=True))
    assert text.startswith("0.0 ± 0.0 over 3 deterministic episodes (95% interval of the mean 0.0 … 0.0, ")
    assert str(Evaluation((-0.04,), (1,), deterministic=True)).startswith("0.0 in 1 ")
    assert str(Evaluation((-0.06,), (1,), deterministic=True)).startswith("-0.1 in 1 ")


def test_an_evaluation_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgrad.report.evaluate.LONG", 20)
    monkeypatch.setattr("pgrad.training.endless.LONG", 20)
    monkeypatch.setattr("pgrad.training.endless.LONGEST", 30)
    run = pg.train(pg.A2C(), "pendulum", total_timesteps=40)
    told = r"no episode of pendulum has ended after 20 steps: has it a time limit\? .* given up after 30"
    with (
        pytest.raises(pg.UsageError, match="no end to an episode of pendulum in 30 steps"),
        pytest.warns(UserWarning, match=told),
    ):
        run.evaluate(1)


def test_episodes_that_end_late_are_evaluated_as_any(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word is said where none has ended by then, and only once; nothing where one has."""
    for place in ("pgrad.report.evaluate.LONG", "pgrad.training.endless.LONG"):
        monkeypatch.setattr(place, 20)
    with pytest.warns(UserWarning, match="no episode of CountingEnv has ended after 20 steps") as told:
        assert evaluated(counting((21, 25), 2), 4).lengths == (21, 21, 25, 25)
    assert len(told) == 1
    assert evaluated(counting((3, 25), 1), 2).lengths == (3, 25)
