"""Every observation and action space through whole iterations of training, and back into the environment."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import pgrad as pg
from pgrad.math.distributions import Categorical
from pgrad.run.assemble import make_training
from pgrad.run.config import RunOptions
from pgrad.run.start import configured
from pgrad.run.threads import threads_for, torch_threads
from pgrad.training.compiled.worth import COMPILE_AFTER
from tests.models.spaces import ACTIONS, OBSERVATIONS


class Any2Any(gymnasium.Env[Any, Any]):
    """Random observations of a space; insists on actions of a space; a reward and an end now and then."""

    def __init__(self, observation: spaces.Space[Any], action: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert member(self.action_space, action), f"{action!r} is not in {self.action_space}"
        self.t += 1
        reward = float(self.np_random.normal())
        return self.observation_space.sample(), reward, self.t == 5, self.t == 4 and reward > 0, {}


class Own(torch.nn.Module):
    """Somebody's own agent."""

    def __init__(self) -> None:
        super().__init__()
        self.logits, self.critic = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(()))

    def policy(self, obs: Any) -> Categorical:
        return Categorical(self.logits.expand(len(obs), 2))

    def value(self, obs: Any) -> torch.Tensor:
        return self.critic.expand(obs.shape[:-1])


def member(space: spaces.Space[Any], action: Any) -> bool:
    """Whether `action` is one of `space`; a Box of shape () may come as a number of its dtype."""
    return space.contains(
        np.asarray(action, space.dtype) if space.shape == () and space.dtype != int else action
    )


PPO = pg.PPO(n_steps=8, batch_size=8, n_epochs=2)
KL = pg.PPOKL(n_steps=8, batch_size=8, n_epochs=2)
REINFORCE = pg.Reinforce(n_episodes=3, n_critic_updates=2)


def train(algorithm: Any, observation: spaces.Space[Any], action: spaces.Space[Any]) -> pg.Run:
    spec = pg.AgentSpec(net_arch=(8,), normalize_obs=True, normalize_reward=True)
    return pg.train(
        algorithm,
        lambda: Any2Any(observation, action),
        total_timesteps=40,
        n_envs=2,
        agent=spec,
        log_every=1,
        threads=1,
    )


def check(run: pg.Run) -> None:
    """Learned, finite, moved; acts within the space on raw observations; evaluates."""
    assert len(run.history) >= 2
    assert all(np.isfinite(x) for row in run.history for x in row.values())
    assert all(p.isfinite().all() for p in run.agent.parameters())
    generator = torch.Generator().manual_seed(0)
    for deterministic in (True, False):
        obs = run.agent.observation_space.sample()
        action = run.agent.act(obs, deterministic=deterministic, generator=generator)
        assert run.agent.action_space.contains(action)
    result = run.evaluate(3, deterministic=False, n_envs=2)
    assert all(4 <= n <= 5 for n in result.lengths)


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_every_observation_space(name: str) -> None:
    check(train(PPO, OBSERVATIONS[name], spaces.Discrete(2)))


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("algorithm", [KL, REINFORCE], ids=["ppo-kl", "reinforce"])
def test_every_action_space(name: str, algorithm: Any) -> None:
    """PPOKL needs the whole distribution, Reinforce whole episodes."""
    check(train(algorithm, spaces.Box(-1.0, 1.0, (3,)), ACTIONS[name]))


@pytest.mark.parametrize(
    "algorithm",
    [
        PPO,
        KL,
        REINFORCE,
        pg.A2C(),
        pg.ActorCritic(n_steps=8),
        pg.ActorCritic(n_steps=1),
        pg.Reinforce(n_episodes=3, baseline="optimal"),
        pg.Reinforce(n_episodes=3, baseline="leave-one-out"),
    ],
    ids=lambda algorithm: type(algorithm).__name__,
)
def test_structures_with_every_algorithm(algorithm: Any) -> None:
    check(train(algorithm, OBSERVATIONS["dict"], ACTIONS["dict"]))


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (OBSERVATIONS["image"], 4),
        (spaces.Dict({"x": OBSERVATIONS["box"], "eye": OBSERVATIONS["image"]}), 4),
        (OBSERVATIONS["small image"], 1),
        (OBSERVATIONS["box"], 1),
        (spaces.Box(0.0, 255.0, (84, 84, 4)), 1),
    ],
)
def test_pictures_of_some_size_are_worth_all_cores(
    space: spaces.Space[Any], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgrad.training.versions.cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = []
    for asked in (0, 3):
        config = configured(PPO, "anything", None, RunOptions(threads=asked))
        with torch_threads(config, space):
            found.append(torch.get_num_threads())
    assert found == [expected, 3]
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("space", "agent", "expected"),
    [
        ("box", pg.AgentSpec(), COMPILE_AFTER),
        ("small image", pg.AgentSpec(), None),
        ("dict", pg.AgentSpec(), None),
        ("box", Own(), None),
    ],
)
def test_machine_code_is_usual_for_vectors_and_networks_of_our_own(
    space: str, agent: Any, expected: int | None
) -> None:
    def world() -> Any:
        return Any2Any(OBSERVATIONS[space], spaces.Discrete(2))

    made = make_training(configured(PPO, world, agent, RunOptions(n_envs=1)))
    assert made.compile_after == expected


@pytest.mark.parametrize(
    "odd", [spaces.Text(4), spaces.Graph(spaces.Discrete(2), None), spaces.Sequence(spaces.Discrete(2))]
)
@pytest.mark.parametrize("where", ["observation", "action"])
def test_unsupported_spaces_are_told(odd: spaces.Space[Any], where: str) -> None:
    """In one line that names the space, where it is, and what is supported, also inside a Dict."""
    inside = spaces.Dict({"fine": spaces.Discrete(2), "odd": odd})
    pair = (inside, spaces.Discrete(2)) if where == "observation" else (spaces.Discrete(2), inside)
    with pytest.raises(pg.UsageError) as error:
        train(PPO, *pair)
    text = str(error.value)
    assert f"its {where}['odd'] space is a {type(odd).__name__}" in text
    assert "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("width", "batch_size", "expected"),
    [(256, 256, 1), (512, 128, 1), (512, 256, 4), (1024, 32, 1), (1024, 64, 4)],
)
def test_wide_layers_are_worth_all_cores(
    width: int, batch_size: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the multiplications of a layer in a minibatch."""
    monkeypatch.setattr("pgrad.training.versions.cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    algorithm = pg.PPO(batch_size=batch_size)
    config = configured(algorithm, "anything", pg.AgentSpec(net_arch=(8, width, width)), RunOptions())
    assert threads_for(config, OBSERVATIONS["box"]) == expected
