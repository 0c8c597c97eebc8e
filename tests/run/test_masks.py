"""Training where actions are forbidden: every algorithm, stop and resume, evaluation, single actions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import pgrad as pg
from pgrad.data import Masked
from tests.run.tools import differences, final_state, rows

pytestmark = pytest.mark.usefixtures("no_plots")

N = 5


class Tempting(gymnasium.Env[Any, Any]):
    """Of five actions two or three are allowed; the lowest of those earns 1, any other 0.

    The observation does not tell what is allowed: with the mask "the lowest" can be learned exactly, without
    it nothing is worth more than about a half. A forbidden action breaks the world.
    """

    observation_space = spaces.Box(-1.0, 1.0, (2,))
    action_space: spaces.Space[Any] = spaces.Discrete(N)

    def observe(self) -> tuple[Any, dict[str, Any]]:
        self.mask = np.zeros(N, np.int8)
        self.mask[self.np_random.choice(N, size=2 + self.np_random.integers(2), replace=False)] = 1
        return np.ones(2, np.float32), {"action_mask": self.mask}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.observe()

    def step(self, action: Any) -> Any:
        assert self.mask[action], f"{action} is forbidden by {self.mask}"
        reward = float(action == self.mask.argmax())
        self.t += 1
        obs, info = self.observe()
        return obs, reward, self.t == 8, False, info


class Bits(Tempting):
    """The same with a bit that must be 1, a bit that must be 0 and a free one, chosen anew at every step."""

    action_space = spaces.MultiBinary(3)

    def observe(self) -> tuple[Any, dict[str, Any]]:
        self.order = self.np_random.permutation(3)
        pairs = np.array([[0, 1], [1, 0], [1, 1]])[self.order]
        return np.ones(2, np.float32), {"action_mask": pairs.reshape(-1)}

    def step(self, action: Any) -> Any:
        for kind, value in zip(self.order, action, strict=True):
            assert kind == 2 or value == 1 - kind, f"{action} of {self.order}"
        self.t += 1
        obs, info = self.observe()
        return obs, float(action.sum() == 2), self.t == 8, False, info


SMALL = pg.AgentSpec(net_arch=(8,), normalize_obs=True)
RECURRENT = pg.AgentSpec(net_arch=(8,), normalize_obs=True, memory="gru", memory_size=8, sequence_length=16)
ALGORITHMS: dict[str, Any] = {
    "ppo": pg.PPO(n_steps=16, batch_size=16, n_epochs=2),
    "ppo-kl": pg.PPOKL(n_steps=16, batch_size=16, n_epochs=2),
    "trpo": pg.TRPO(n_steps=16, batch_size=16, n_critic_updates=2),
    "a2c": pg.A2C(n_steps=16),
    "actor-critic": pg.ActorCritic(n_steps=16, n_critic_updates=2),
    "reinforce": pg.Reinforce(n_episodes=5, baseline="optimal"),
    "off-policy-actor-critic": pg.OffPolicyActorCritic(n_steps=8),
    "discrete-sac": pg.DiscreteSAC(learning_starts=60, batch_size=8, ent_coef=2.0),
}


CASES = [(name, Tempting, SMALL) for name in ALGORITHMS]
CASES += [(name, Bits, SMALL) for name in ALGORITHMS if name != "discrete-sac"]
CASES += [(name, Bits, RECURRENT) for name in ("ppo", "reinforce")]


@pytest.mark.parametrize(("name", "world", "agent"), CASES)
def test_every_algorithm_stops_and_continues_bit_for_bit(
    name: str, world: Any, agent: pg.AgentSpec, tmp_path: Path
) -> None:
    """And never does what is forbidden, for the world would break."""
    setting: dict[str, Any] = {"total_timesteps": 200, "n_envs": 3, "agent": agent, "log_every": 1}
    pg.train(ALGORITHMS[name], world, run_dir=tmp_path / "whole", **setting)
    pg.train(
        ALGORITHMS[name],
        world,
        run_dir=tmp_path / "half",
        callback=lambda row: row["time/total_timesteps"] < 100,
        **setting,
    )
    pg.resume(tmp_path / "half", world=world)
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "half")) == []
    assert rows(tmp_path / "whole") == rows(tmp_path / "half")


def test_workers_train_the_same() -> None:
    setting: dict[str, Any] = {"total_timesteps": 96, "n_envs": 3, "agent": SMALL}
    alone, shared = (pg.train(ALGORITHMS["ppo"], Tempting, workers=n, **setting) for n in (0, 2))
    assert differences(dict(alone.agent.state_dict()), dict(shared.agent.state_dict())) == []


def test_the_mask_is_learned_from_and_evaluated_with() -> None:
    """ "The lowest of those allowed" is one fixed preference; without the mask it cannot be said."""
    ppo = pg.PPO(n_steps=64, batch_size=64, n_epochs=8, learning_rate=0.02, gamma=0.0, ent_coef=0.0)
    run = pg.train(ppo, Tempting, total_timesteps=4_096, n_envs=8, agent=pg.AgentSpec(net_arch=(8,)))
    assert run.evaluate(20).mean == 8.0
    logits = run.agent.policy(torch.ones(1, 2)).logits[0]
    assert (logits.diff() < 0.0).all()
    generator = torch.Generator().manual_seed(0)
    for allowed in ([0, 1, 1, 0, 0], np.array([0, 0, 0, 1, 1], bool), (False, False, False, False, True)):
        lowest = int(np.argmax(allowed))
        assert run.agent.act(np.ones(2), allowed=allowed) == lowest
        action = run.agent.act(np.ones(2), allowed=allowed, deterministic=False, generator=generator)
        assert allowed[action]
    assert run.agent.act(np.ones(2), allowed=np.ones(5)) == 0


@pytest.mark.parametrize("spec", [SMALL, replace(SMALL, memory="gru")], ids=["mlp", "gru"])
def test_a_forgotten_mask_is_refused_by_who_learned_with_masks(spec: pg.AgentSpec, tmp_path: Path) -> None:
    """By the agent as it was trained, as it is loaded and as it goes on; not by one that never saw any."""
    setting: dict[str, Any] = {"n_envs": 1, "agent": spec}
    run = pg.train(pg.A2C(), Tempting, total_timesteps=8, run_dir=tmp_path, **setting)
    loaded = pg.load(tmp_path, world=Tempting)
    longer = pg.resume(tmp_path, 16, world=Tempting)
    for agent in (run.agent, loaded.agent, longer.agent):
        with pytest.raises(pg.UsageError, match=r"trained with action masks: .* \(ones allow everything\)"):
            agent.act(np.ones(2), memory=agent.memory())
        assert agent.act(np.ones(2), memory=agent.memory(), allowed=[0, 0, 1, 0, 0]) == 2
    never = pg.train(pg.A2C(), "cartpole", total_timesteps=8, **setting)
    assert never.agent.act(np.ones(4), memory=never.agent.memory()) in (0, 1)


@pytest.mark.parametrize(
    ("allowed", "what"),
    [
        ([1, 0, 1], r"an action mask of shape \(3,\): Discrete\(5\) needs \(5,\)"),
        ([0] * 5, r"the action mask \[0, 0, 0, 0, 0\] leaves nothing to choose of Discrete\(5\)"),
    ],
)
def test_bad_masks_for_one_action(allowed: list[int], what: str) -> None:
    run = pg.train(pg.A2C(), Tempting, total_timesteps=1, n_envs=1, agent=SMALL)
    with pytest.raises(pg.UsageError, match=what):
        run.agent.act(np.ones(2), allowed=allowed)


def test_the_normaliser_sees_the_observation_alone() -> None:
    run = pg.train(pg.A2C(n_steps=4), Tempting, total_timesteps=16, n_envs=2, agent=SMALL)
    assert run.agent.normalizer is not None
    moments = run.agent.normalizer.moments
    assert moments is not None
    assert moments.mean.tolist() == [1.0, 1.0]
    assert moments.count == run.timesteps


def test_a_tensor_world_may_forbid_too() -> None:
    """Its dynamics answer `Masked`; all else is the same."""

    class Alternating:
        """Two steps; of two actions the one that is the number of the step is allowed, and earns 1."""

        name, max_episode_steps, noise = "alternating", 2, 1
        observation_space = spaces.Box(0.0, 1.0, (1,))
        action_space = spaces.Discrete(2)

        def start(self, noise: Any) -> Any:
            return torch.zeros_like(noise)

        def step(self, state: Any, action: Any, noise: Any) -> Any:
            return state + 1, (action == state[:, 0]).double(), state[:, 0] > 1

        def observe(self, state: Any) -> Masked:
            allowed = torch.arange(2) == state % 2
            return Masked(state.float(), allowed)

        def draw(self, state: Any, i: int) -> Any:
            raise NotImplementedError

    run = pg.train(pg.PPO(n_steps=16, batch_size=16), Alternating(), total_timesteps=64, n_envs=2)
    assert run.history[-1]["rollout/ep_rew_mean"] == 2.0
    assert run.evaluate(4, deterministic=False).returns == (2.0,) * 4
