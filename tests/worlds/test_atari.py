"""Atari as the field plays it, and exact: skipped where the emulator is not installed."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

import pgrad as pg
from pgrad.environments.atari import Game
from pgrad.errors import UsageError
from pgrad.worlds import World, make
from pgrad.worlds.make import plays_atari
from tests.run.tools import differences, final_state, rows
from tests.worlds.conformance import check_active, check_seeds, check_state

ale_py = pytest.importorskip("ale_py")
pytest.importorskip("cv2")

TINY = pg.PPO(n_steps=64, batch_size=64, n_epochs=1)
BREAKOUT = "ALE/Breakout-v5"  # five lives, FIRE serves the ball


def breakout(n_envs: int = 1, seed: int = 0, **kwargs: Any) -> World:
    return make(BREAKOUT, n_envs=n_envs, seed=seed, kwargs=kwargs)


def still(n: int = 1) -> Tensor:
    return torch.zeros(n, dtype=torch.int64)


def emulator(world: Any, i: int = 0) -> Any:
    return world._world._envs._envs[i].unwrapped.ale


def test_the_picture() -> None:
    """Four grey frames of 84×84 bytes, the newest last, equal at the start."""
    world = breakout(2)
    assert world.observation_space == gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    obs = world.reset()
    assert obs.dtype == torch.uint8
    assert all(torch.equal(obs[:, 0], obs[:, k]) for k in (1, 2, 3))
    moved = world.step(torch.tensor([2, 3])).obs.clone()
    assert torch.equal(moved[:, :3], obs[:, 1:])
    assert not torch.equal(moved[:, 3], obs[:, 3])
    run = pg.train(TINY, BREAKOUT, total_timesteps=1, n_envs=1, threads=1)
    assert run.agent.network.encoder.image is not None  # type: ignore[union-attr]


def test_what_gymnasium_shows_by_itself() -> None:
    """The wrapper of Gymnasium in its usual place, with FIRE after the reset: the same frames and rewards."""
    world = breakout(1, 5)
    gymnasium.register_envs(ale_py)
    env = gymnasium.wrappers.AtariPreprocessing(gymnasium.make(BREAKOUT, frameskip=1))
    env.reset(seed=world._world._envs._history.seeds[0])  # type: ignore[attr-defined]
    frame, *_ = env.step(1)
    assert np.array_equal(world.reset()[0, -1].numpy(), frame)
    for t in range(30):
        frame, reward, *_ = env.step(2 + t % 2)
        if env.unwrapped.ale.lives() < 5:  # type: ignore[attr-defined]
            break
        step = world.step(torch.tensor([2 + t % 2]))
        assert np.array_equal(step.obs[0, -1].numpy(), frame)
        assert float(step.reward) == reward
    assert t > 5


def test_four_frames_for_an_action_and_no_ops_at_the_start() -> None:
    world = breakout(1)
    begun = set()
    for _ in range(12):
        world.reset()
        before = emulator(world).getEpisodeFrameNumber()
        begun.add(before - 4)  # of FIRE
        world.step(still())
        assert emulator(world).getEpisodeFrameNumber() == before + 4
    assert begun <= set(range(1, 31))
    assert len(begun) > 5


def test_a_lost_life_is_an_end_to_learn_from_but_not_of_the_episode() -> None:
    """Terminated five times, ended once; the ball is served again; nothing is told where it is not wanted."""
    for episodic in (True, False):
        world = breakout(1, 2, episodic_life=episodic)
        world.reset()
        assert emulator(world).lives() == 5
        terminated, lives = [], [5]
        while not world.ended:
            step = world.step(still())
            terminated.append(bool(step.terminated))
            lives.append(emulator(world).lives())
            assert len(lives) < 2000, "nobody serves the ball"
        lost = [after < before for before, after in pairwise(lives)]
        assert sum(lost) == 5
        assert terminated == (lost if episodic else [False] * (len(lost) - 1) + [True])


class Serves(gymnasium.Env[Any, Any]):
    """Every action but FIRE costs a life and earns 3, FIRE earns 4."""

    observation_space = gymnasium.spaces.Box(0, 255, (4,), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)

    def get_action_meanings(self) -> list[str]:
        return ["NOOP", "FIRE", "RIGHT"]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.lives = 3
        return np.zeros(4, np.uint8), {"lives": self.lives}

    def step(self, action: Any) -> Any:
        self.lives -= action != 1
        earned = 4.0 if action == 1 else 3.0
        return np.zeros(4, np.uint8), earned, self.lives == 0, False, {"lives": self.lives}


def test_what_is_earned_by_serving_again_counts() -> None:
    """With the step that lost the life; the last life is followed by no serve."""
    game = Game(Serves(), episodic=True)
    game.reset()
    assert [game.step(action)[1] for action in (1, 0, 2, 0)] == [4.0, 7.0, 7.0, 3.0]


def test_seeds_pauses_and_exact_states() -> None:
    """In mid-game, after lives were lost and where the game begins anew; with sticky actions."""
    check_seeds(breakout, 12, True)
    check_active(breakout, 12, True)
    check_state(lambda n, seed: make("ALE/Pong-v5", n_envs=n, seed=seed), 8)
    world = breakout(2, 4)
    world.reset()
    for _ in range(230):
        world.step(still(2))
    state, after = world.state_dict(), []
    for fresh in (world, breakout(2, 9)):
        fresh.load_state_dict(state)
        for _ in range(60):
            shown = fresh.step(torch.tensor([3, 2])).obs
        after.append((shown.clone(), fresh.ended.clone(), emulator(fresh).lives()))
    assert torch.equal(after[0][0], after[1][0])
    assert torch.equal(after[0][1], after[1][1])
    assert after[0][2] == after[1][2]


def test_actions_stick_where_the_id_says_so() -> None:
    assert emulator(breakout()).getFloat("repeat_action_probability") == 0.25
    plain = make("BreakoutNoFrameskip-v4", n_envs=1)
    assert emulator(plain).getFloat("repeat_action_probability") == 0.0
    assert plain.observation_space.shape == (4, 84, 84)


def test_as_it_is_without_preprocessing() -> None:
    raw = breakout(1, 0, preprocess=False)
    assert raw.observation_space.shape == (210, 160, 3)
    ram = breakout(1, 0, obs_type="ram")
    assert ram.observation_space.shape == (128,)
    small = make(BREAKOUT, frame_stack=2, kwargs={"screen_size": 42, "noop_max": 0, "frame_skip": 2})
    assert small.observation_space.shape == (2, 42, 42)
    assert plays_atari(BREAKOUT, {})
    assert not plays_atari(BREAKOUT, {"preprocess": False})
    assert not plays_atari(BREAKOUT, {"obs_type": "ram"})
    assert not plays_atari("CartPole-v1", None)
    short = breakout(1, 0, max_episode_steps=7)
    short.reset()
    ended = [bool((short.step(still()), short.ended)[1]) for _ in range(7)]
    assert ended == [False] * 6 + [True]
    with pytest.raises(UsageError, match="cannot be made: TypeError"):
        breakout(1, 0, noop=3)


def test_scores_are_of_whole_games_in_raw_points() -> None:
    """While the agent learns from signs and lives; evaluation too."""
    rewards, dones = [], []

    class Watched(pg.PPO):
        def credit(self, agent: Any, traj: Any) -> Any:
            rewards.append(traj.reward.clone())
            dones.append((traj.done & (traj.mask > 0)).clone())
            return super().credit(agent, traj)

    watched = Watched(n_steps=64, batch_size=64, n_epochs=1, learning_rate=0.0)
    world = "ALE/SpaceInvaders-v5"  # three lives, rewards of 5 and more
    setting: dict[str, Any] = {"n_envs": 1, "world_kwargs": {"frame_skip": 12}, "threads": 1}
    run = pg.train(watched, world, total_timesteps=64 * 12, **setting)
    learned = torch.cat(rewards)
    assert set(learned.unique().tolist()) == {0.0, 1.0}
    last = run.history[-1]
    finished = last["rollout/ep_rew_mean"]
    assert finished >= 5.0
    ends = int(torch.cat(dones).sum())
    lengths = 64 * 12 / last["rollout/ep_len_mean"]
    assert ends > 2 * lengths, "more ends to learn from than games"
    result = run.evaluate(1, deterministic=False)
    assert result.returns[0] % 5 == 0
    assert result.lengths[0] > 40
    assert run.agent.sign_reward


def test_signs_can_be_had_or_left() -> None:
    def signs(world: str, spec: pg.AgentSpec) -> bool:
        a2c: Any = pg.A2C()
        run = pg.train(a2c, world, total_timesteps=1, n_envs=1, agent=spec, threads=1)
        return run.agent.sign_reward

    assert signs("ALE/Pong-v5", pg.AgentSpec())
    assert not signs("ALE/Pong-v5", pg.AgentSpec(sign_reward=False))
    assert not signs("ALE/Pong-v5", pg.AgentSpec(normalize_reward=True))
    assert not signs("cartpole", pg.AgentSpec())
    assert signs("cartpole", pg.AgentSpec(sign_reward=True))
    with pytest.raises(UsageError, match="sign_reward and normalize_reward exclude one another"):
        pg.AgentSpec(sign_reward=True, normalize_reward=True)


def test_a_run_that_stopped_ends_where_it_would_have(tmp_path: Path) -> None:
    setting: dict[str, Any] = {"total_timesteps": 256, "n_envs": 2, "log_every": 1, "seed": 1, "threads": 1}
    pg.train(TINY, BREAKOUT, run_dir=tmp_path / "whole", **setting)
    pg.train(TINY, BREAKOUT, run_dir=tmp_path / "half", callback=lambda row: False, **setting)
    pg.resume(tmp_path / "half")
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "half")) == []
    assert rows(tmp_path / "whole") == rows(tmp_path / "half")
