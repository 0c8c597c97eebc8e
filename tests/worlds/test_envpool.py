"""EnvPool's environments do what Gymnasium's of the same name do, and what EnvPool lets pass is refused."""

import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import pgrad as pg
from pgrad.errors import UsageError, WorldError
from pgrad.worlds import World, make
from pgrad.worlds.gym.envpool import EnvPool
from tests.cli.tools import cli
from tests.worlds.conformance import check_world
from tests.worlds.tools import advance, copy, same, sampler

pytest.importorskip("envpool")


def pool(task: str, n_envs: int = 3, **options: Any) -> World:
    return make(f"envpool:{task}", n_envs=n_envs, **options)


def test_conformance() -> None:
    check_world(lambda n, seed: pool("CartPole-v1", n, seed=seed), steps=120, exact=False, pausable=False)


def test_cartpole_row_by_row() -> None:
    """Begun where EnvPool's began, Gymnasium's environment has the same rows, last ones and flags too."""
    limit, n = 15, 4
    world = pool("CartPole-v1", n, seed=5, kwargs={"max_episode_steps": limit})
    mine: Any = [gymnasium.make("CartPole-v1", max_episode_steps=limit) for _ in range(n)]
    obs, over, ends = world.reset().numpy().copy(), [True] * n, {"terminated": 0, "truncated": 0}
    actions = sampler(world, 0)
    for _ in range(200):
        for i in range(n):
            if over[i]:
                mine[i].reset()
                mine[i].unwrapped.state = obs[i].astype(np.float64)
        action, ended = actions(), world.ended
        step = world.step(action)
        obs, over = step.obs.numpy().copy(), [False] * n
        for i in range(n):
            row = float(step.reward[i]), bool(step.terminated[i]), bool(step.truncated[i])
            if ended[i]:
                assert row == (0.0, False, False)
                assert np.abs(obs[i]).max() <= 0.05
                over[i] = True
                continue
            theirs, reward, terminated, truncated, _ = mine[i].step(int(action[i]))
            np.testing.assert_allclose(obs[i], theirs, atol=1e-5)
            both = terminated and truncated  # EnvPool says only that the time was up
            assert row == (reward, terminated and not both, truncated)
            ends["terminated"] += row[1]
            ends["truncated"] += row[2]
    assert min(ends.values()) > 3


def test_half_cheetah_row_by_row() -> None:
    """From any state the same action leads to the same next one, reward and end."""
    pytest.importorskip("mujoco")
    options = {"exclude_current_positions_from_observation": False, "max_episode_steps": 7}
    world = pool("HalfCheetah-v5", 2, kwargs=options)
    env: Any = gymnasium.make("HalfCheetah-v5", exclude_current_positions_from_observation=False)
    env.reset()
    obs, actions, rewards = world.reset().double().numpy(), sampler(world, 1), []
    for t in range(1, 24):
        action = actions()
        step = world.step(action)
        assert step.truncated.tolist() == [t % 8 == 7] * 2
        assert not step.terminated.any()
        if t % 8:
            for i in range(2):
                env.unwrapped.set_state(obs[i][:9], obs[i][9:])
                theirs, reward, *_ = env.step(action[i].clamp(-1, 1).numpy())
                np.testing.assert_allclose(step.obs[i], theirs, atol=2e-3)
                assert float(step.reward[i]) == pytest.approx(reward, abs=2e-3)
                rewards.append(reward)
        else:
            assert (step.reward == 0).all()
        obs = step.obs.double().numpy()
    assert np.ptp(rewards) > 0.5


def test_an_end_by_both_is_one_by_the_clock() -> None:
    world = pool("CartPole-v1", 1, seed=3)
    world.reset()
    push = torch.zeros(1, dtype=torch.int64)
    length = next(t for t in range(1, 99) if world.step(push).terminated)
    world = pool("CartPole-v1", 1, seed=3, kwargs={"max_episode_steps": length})
    world.reset()
    steps = [copy(tuple(world.step(push))) for _ in range(length)]
    assert [(bool(s[2]), bool(s[3])) for s in steps[-2:]] == [(False, False), (False, True)]


def test_the_same_for_any_number_of_threads_and_environments() -> None:
    worlds = [
        pool("CartPole-v1", n, seed=7, workers=workers) for n, workers in ((5, 0), (5, 1), (5, 3), (3, 2))
    ]
    first = [world.reset() for world in worlds]
    assert all(same(obs[:3], first[0][:3]) for obs in first)
    actions = sampler(worlds[0], 1)
    for _ in range(60):
        action = actions()
        rows = [advance(world, action[: world.n_envs]) for world in worlds]
        assert all(same(row.obs[:3], rows[0].obs[:3]) for row in rows)
        assert all(same(row, rows[0]) for row in rows[:3])


def test_spaces_are_those_of_gymnasium() -> None:
    world = pool("HalfCheetah-v4")
    assert world.action_space == spaces.Box(-1.0, 1.0, (6,), np.float32)
    assert world.name == "envpool:HalfCheetah-v4"
    lander = pool("LunarLander-v3").observation_space
    assert isinstance(lander, spaces.Box)
    assert (lander.low == -np.inf).all()
    assert (lander.high == np.inf).all()


@pytest.mark.parametrize(
    ("action", "what"),
    [
        (torch.tensor([0, 1]), r"the action has shape \(2,\), 3 × Discrete\(2\) needs \(3,\)"),
        (torch.tensor([0, 7, 1]), r"environment 1, step 1 .*: the action 7 is not in Discrete\(2\)"),
        (torch.tensor([0.0, 1.0, 1.0]), "the action has dtype float32, .* needs integers"),
    ],
)
def test_actions_that_it_would_take_or_die_of(action: Any, what: str) -> None:
    world = pool("CartPole-v1")
    world.reset()
    with pytest.raises(WorldError, match=what):
        world.step(action)


def test_a_forked_process_and_pictures_and_states() -> None:
    world: Any = pool("CartPole-v1")
    world.reset()
    with pytest.raises(WorldError, match="the exact state of a vector environment is out of reach"):
        world.state_dict()
    with pytest.raises(WorldError, match="EnvPool draws no pictures here"):
        world.render()
    world._env._process = 1
    with pytest.raises(WorldError, match="EnvPool does not answer in a forked process"):
        world.step(torch.zeros(3, dtype=torch.int64))
    world.close()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"world": "envpool:CartPol-v1"}, "EnvPool has no 'CartPol-v1': did you mean CartPole-v1"),
        ({"kwargs": {"foo": 1}}, "cannot be made with {'foo': 1}: .*'foo'"),
        ({"kwargs": {"seed": 1}}, "envpool:CartPole-v1: seed cannot be set"),
        ({"frame_stack": 4}, "EnvPool stacks frames itself"),
        ({"workers": 3}, "3 workers cannot share 2 environments"),
    ],
)
def test_what_cannot_be_made(options: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        make(**({"world": "envpool:CartPole-v1", "n_envs": 2} | options))


def test_it_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(UsageError, match=r"envpool is not installed: pip install 'pgrad\[envpool\]'"):
        EnvPool("CartPole-v1", 2, 0, 1, {})


def test_a_run_says_that_it_cannot_be_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = "the state of envpool:CartPole-v1 cannot be saved: this run can be loaded, not continued"
    pg.train(
        pg.A2C(n_steps=5), "envpool:CartPole-v1", total_timesteps=20, run_dir=tmp_path / "a", progress=True
    )
    output = capsys.readouterr()
    assert told in " ".join((output.out + output.err).split())
    assert len(pg.load(tmp_path / "a").evaluate(episodes=2).returns) == 2
    with pytest.raises(pg.CheckpointError, match="this run can be loaded, not continued"):
        pg.resume(tmp_path / "a", 200)


def test_no_command_is_suggested_that_cannot_work(tmp_path: Path) -> None:
    for world, goes_on in (("envpool:CartPole-v1", False), ("cartpole", True)):
        folder = tmp_path / world.replace(":", "-")
        answer = cli(f"train a2c {world} --total-timesteps 40 --final-eval-episodes 0 --run-dir", folder)
        assert answer.code == 0
        assert ("pgrad resume" in answer.out) is goes_on
