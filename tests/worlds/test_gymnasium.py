"""Gymnasium environments in this process: the same numbers as Gymnasium, exact state, every kind of space."""

import json
import os
import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrad.environments import replay
from pgrad.environments.history import environment_seeds
from pgrad.errors import WorldError
from pgrad.worlds import make
from tests.worlds.conformance import check_state, check_world
from tests.worlds.fakes import BOTH, TERMINATED, TRUNCATED, StructuredEnv, check_counting, counting_factory
from tests.worlds.tools import advance, copy, same, sampler, through_file


@pytest.mark.parametrize(
    ("world", "kwargs", "steps"),
    [
        ("CartPole-v1", None, 120),
        ("Pendulum-v1", {"max_episode_steps": 30}, 70),
        (StructuredEnv, None, 30),
        (counting_factory((3, 1, 5), (TERMINATED, TRUNCATED, BOTH), 4, shuffled=True), None, 40),
    ],
)
def test_conformance(world: Any, kwargs: Any, steps: int) -> None:
    check_world(lambda n, seed: make(world, n_envs=n, seed=seed, kwargs=kwargs), steps=steps)


endings = st.sampled_from([TERMINATED, TRUNCATED, BOTH])


@settings(max_examples=25)
@given(
    episodes=st.lists(st.tuples(st.integers(1, 7), endings), min_size=1, max_size=4),
    limit=st.none() | st.integers(2, 6),
    n_envs=st.integers(1, 3),
)
def test_every_row_is_what_happened(episodes: list[tuple[int, str]], limit: int | None, n_envs: int) -> None:
    lengths, ends = zip(*episodes, strict=True)
    check_counting(make(counting_factory(lengths, ends, limit), n_envs=n_envs), lengths, ends, limit)


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1"])
def test_same_numbers_as_gymnasium(name: str) -> None:
    """Against a loop over `gymnasium.make` written for one environment at a time."""
    world = make(name, n_envs=3, seed=5)
    actions = sampler(world, 0)
    first = copy(world.reset())
    rows = [advance(world, actions()) for _ in range(250)]
    for i, seed in enumerate(environment_seeds(5, 3)):
        env = gymnasium.make(name)
        obs, _ = env.reset(seed=seed)
        assert np.array_equal(np.asarray(obs), first[i].numpy())
        over = False
        for row in rows:
            if over:
                obs, _ = env.reset()
                reward, terminated, truncated = 0.0, False, False
            else:
                action = row.action[i].numpy()
                if isinstance(env.action_space, spaces.Box):
                    action = np.clip(action, env.action_space.low, env.action_space.high)
                obs, reward, terminated, truncated, _ = env.step(
                    action if action.ndim else env.action_space.dtype.type(action)
                )
            over = terminated or truncated
            assert np.array_equal(np.asarray(obs), row.obs[i].numpy())
            assert (np.float32(reward), terminated, truncated and not terminated) == (
                row.reward[i].item(),
                row.terminated[i].item(),
                row.truncated[i].item(),
            )


def test_seeds_do_not_depend_on_how_many_there_are() -> None:
    few, many = environment_seeds(3, 4), environment_seeds(3, 100)
    assert few == many[:4]
    assert len(set(many)) == 100
    assert not set(many) & set(environment_seeds(4, 100))
    assert all(0 <= seed < 2**31 for seed in many)


@pytest.mark.parametrize(
    ("name", "kwargs", "steps"),
    [
        ("CartPole-v1", {}, 130),
        ("Pendulum-v1", {"max_episode_steps": 25}, 110),
        ("LunarLander-v3", {"max_episode_steps": 60}, 190),
        ("HalfCheetah-v5", {"max_episode_steps": 15}, 70),
        ("FrozenLake-v1", {}, 60),
        ("BipedalWalkerHardcore-v3", {"max_episode_steps": 60}, 190),
        ("ALE/Pong-v5", {"max_episode_steps": 8}, 21),
    ],
)
def test_state_in_a_world_that_is_new(name: str, kwargs: dict[str, Any], steps: int) -> None:
    """Taken in mid-episode after several episodes, put through a file into a world that has seen nothing."""
    if name.startswith("ALE/"):  # its emulator has random numbers of its own, for sticky actions
        pytest.importorskip("ale_py")
    a = make(name, n_envs=3, seed=1, kwargs=kwargs)
    actions = sampler(a, 2)
    a.reset()
    rows = [advance(a, actions()) for _ in range(steps)]
    assert int(sum(row.ended.sum() for row in rows)) >= 6, "too few episodes to tell"
    state = through_file(a.state_dict())
    assert (state.get("world", state)["length"] > 0).any()  # inside, where frames are stacked
    b = make(name, n_envs=3, seed=99, kwargs=kwargs)
    assert same(b.load_state_dict(state), rows[-1].obs)
    assert torch.equal(a.ended, b.ended)
    for _ in range(steps):
        action = actions()
        assert same(advance(a, action), advance(b, action))
    assert same(a.reset(), b.reset())


def test_state_in_another_process() -> None:
    """Exact across processes too: nothing of it lives in this one."""
    script = """
import json, sys, torch
from pgrad.worlds import make
world = make("Pendulum-v1", n_envs=2, seed=3, kwargs={"max_episode_steps": 9})
state = json.loads(sys.stdin.read())
for key in ("length", "ended"):
    state[key] = torch.tensor(state[key])
state["action"] = {"0": torch.tensor(state["action"]["0"])}
state["obs"] = {"0": torch.tensor(state["obs"]["0"])}
world.load_state_dict(state)
step = None
for t in range(20):
    step = world.step(torch.full((2, 1), 0.1 * t))
print(json.dumps(step.obs.tolist()))
"""
    world = make("Pendulum-v1", n_envs=2, seed=3, kwargs={"max_episode_steps": 9})
    world.reset()
    for t in range(25):
        world.step(torch.full((2, 1), 0.05 * t))
    state = world.state_dict()
    for key in ("length", "ended"):
        state[key] = state[key].tolist()
    for key in ("action", "obs"):
        state[key] = {"0": state[key]["0"].tolist()}
    there = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(state), capture_output=True, text=True, check=True
    )
    for t in range(20):
        step = world.step(torch.full((2, 1), 0.1 * t))
    assert json.loads(there.stdout) == step.obs.tolist()


class OtherGenerator(gymnasium.Env[Any, Any]):
    """Draws from a bit generator that is not NumPy's default, and replaces it when seeded."""

    observation_space = spaces.Box(0, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self.np_random = np.random.Generator(getattr(np.random, self.kind)(seed))
        self.t = 0
        return self.np_random.random(2, np.float32), {}

    def step(self, action: int) -> Any:
        self.t += 1
        return self.np_random.random(2, np.float32), float(self.np_random.normal()), self.t == 7, False, {}


@pytest.mark.parametrize("kind", ["MT19937", "Philox", "SFC64", "PCG64DXSM"])
def test_state_with_any_bit_generator(kind: str) -> None:
    check_state(lambda n, seed: make(lambda: OtherGenerator(kind), n_envs=n, seed=seed), 20)


class HiddenRandomness(gymnasium.Env[Any, Any]):
    """Draws from a generator that nobody else can see."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, where: str) -> None:
        self.where, self.hidden = where, np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._obs(self.where == "reset"), {}

    def step(self, action: int) -> Any:
        self.t += 1
        return self._obs(self.where == "step"), 0.0, self.t == 50, False, {}

    def _obs(self, hidden: bool) -> Any:
        return (self.hidden if hidden else self.np_random).random(1, np.float32)


@pytest.mark.parametrize("where", ["reset", "step"])
def test_state_that_is_not_exact_is_refused(where: str) -> None:
    a = make(lambda: HiddenRandomness(where), n_envs=2)
    a.reset()
    for _ in range(4 if where == "step" else 0):
        a.step(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(
        WorldError, match=r"HiddenRandomness, environment 0: its state cannot be restored exactly"
    ):
        make(lambda: HiddenRandomness(where), n_envs=2).load_state_dict(a.state_dict())


def test_state_of_an_environment_that_remembers_episodes_is_refused() -> None:
    factory = counting_factory((2,), (TERMINATED,))
    a = make(factory, n_envs=2)
    a.reset()
    for _ in range(7):
        a.step(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(WorldError, match="remember earlier episodes"):
        make(factory, n_envs=2).load_state_dict(a.state_dict())


def test_state_of_another_world_is_refused() -> None:
    world = make("CartPole-v1", n_envs=2)
    world.reset()
    state = world.state_dict()
    with pytest.raises(WorldError, match=r"of 2 × CartPole-v1, this world is 3 × CartPole-v1"):
        make("CartPole-v1", n_envs=3).load_state_dict(state)
    with pytest.raises(WorldError, match=r"of 2 × CartPole-v1, this world is 2 × Acrobot-v1"):
        make("Acrobot-v1", n_envs=2).load_state_dict(state)
    matrix = spaces.Box(-1, 1, (2, 2))
    other = make(lambda: Echo(spaces.Discrete(2), matrix, lambda t: np.zeros((2, 2), np.float32)), n_envs=2)
    with pytest.raises(WorldError, match="Echo: the obs space is not the one of the state"):
        other.load_state_dict({**state, "name": "Echo"})
    with pytest.raises(WorldError, match="reset must be called"):
        make("CartPole-v1").state_dict()
    with pytest.raises(WorldError, match="reset must be called"):
        make("CartPole-v1").step(torch.zeros(1, dtype=torch.int64))


def test_endless_episodes_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment 0 never ends, the others do: only its actions are given up, until its next episode."""
    monkeypatch.setattr(replay, "LOG_BYTES", 4000)
    lengths = iter([10_000, 5, 5])

    def factory() -> Any:
        return counting_factory((next(lengths, 5),), (TERMINATED,), shuffled=True)()

    world = make(factory, n_envs=3)
    actions = sampler(world, 0)
    world.reset()
    for _ in range(1000):
        world.step(actions())
    log = world._envs._history.log  # type: ignore[attr-defined]
    assert log._used.nbytes + sum(part.nbytes for part in log._parts) <= 4000
    state = world.state_dict()
    assert state["length"][0] == -1
    assert (state["length"][1:] >= 0).all()
    assert sum(state["length"][1:].tolist()) == len(state["action"]["0"])
    with pytest.raises(WorldError, match="environment 0: its episode was too long"):
        world.load_state_dict(state)
    world.reset()
    assert (world.state_dict()["length"] == 0).all()


def test_log_keeps_exactly_the_running_episodes() -> None:
    """Against lists, over many compactions, with environments that pause."""
    generator = np.random.default_rng(0)
    log = replay.ActionLog([np.zeros((3, 2), np.float32), np.zeros(3, np.int64)])
    truth: list[list[Any]] = [[], [], []]
    for t in range(2000):
        used = generator.random(3) < 0.7
        arrays = [generator.normal(size=(3, 2)).astype(np.float32), generator.integers(0, 9, 3)]
        log.append(arrays, used)
        for i in range(3):
            if used[i]:
                truth[i].append([part[i] for part in arrays])
            if generator.random() < (0.2, 0.01, 0.002)[i]:
                log.begin(i)
                truth[i] = []
        if t % 97 == 0:
            for i in range(3):
                kept = log.actions(i)
                assert kept is not None
                assert log.length(i) == len(truth[i])
                for k in range(2):
                    assert np.array_equal(
                        kept[k], np.array([row[k] for row in truth[i]]).reshape(kept[k].shape)
                    )


class Echo(gymnasium.Env[Any, Any]):
    """Keeps and shows what it is given; its observation is a buffer that it goes on using."""

    def __init__(
        self, action_space: spaces.Space[Any], observation_space: spaces.Space[Any], answer: Any
    ) -> None:
        self.action_space, self.observation_space, self.answer = action_space, observation_space, answer
        self.given: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.answer(0), {}

    def step(self, action: Any) -> Any:
        self.given.append(action)
        return self.answer(len(self.given)), 0.0, False, False, {}


def _given(space: spaces.Space[Any], *actions: Any) -> list[Any]:
    env = Echo(space, spaces.Discrete(100), lambda t: t)
    world = make(lambda: env)
    world.reset()
    for action in actions:
        world.step(action)
    return env.given


def test_actions_as_the_environment_takes_them() -> None:
    assert _given(spaces.Discrete(3, start=-1), torch.tensor([0]), torch.tensor([2])) == [-1, 1]
    box = spaces.Box(np.array([-1, -np.inf]), np.array([0.5, np.inf]), dtype=np.float64)
    (clipped,) = _given(box, torch.tensor([[-3.0, 1e9]]))
    assert clipped.dtype == np.float64
    assert clipped.tolist() == [-1.0, 1e9]
    (matrix,) = _given(spaces.Box(-1, 1, (2, 2)), torch.tensor([[0.0, 1.0, 2.0, -2.0]]))
    assert matrix.dtype == np.float32
    assert matrix.tolist() == [[0.0, 1.0], [1.0, -1.0]]
    whole = _given(spaces.Box(0, 255, (1,), np.uint8), *torch.tensor([[[3.6]], [[-4.0]], [[300.0]]]))
    assert [(x.dtype, x.item()) for x in whole] == [(np.uint8, 4), (np.uint8, 0), (np.uint8, 255)]
    (many,) = _given(spaces.MultiDiscrete([3, 4], start=[1, 0]), torch.tensor([[2, 3]]))
    assert (many.dtype, many.tolist()) == (np.int64, [3, 3])
    (bits,) = _given(spaces.MultiBinary(3), torch.tensor([[1.0, 0.0, 1.0]]))
    assert (bits.dtype, bits.tolist()) == (np.int8, [1, 0, 1])
    (half,) = _given(spaces.Box(-1, 1, (1,)), torch.tensor([[0.5]], dtype=torch.bfloat16))
    assert half.tolist() == [0.5]
    nested = spaces.Dict(a=spaces.Discrete(2), b=spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, ()))))
    (tree,) = _given(nested, {"b": (torch.tensor([2]), torch.tensor([7.0])), "a": torch.tensor([1])})
    assert tree == {"a": 1, "b": (2, 1.0)}


def test_actions_kept_by_an_environment_do_not_change() -> None:
    given = _given(spaces.Box(-9, 9, (1,)), *torch.arange(5.0).reshape(5, 1, 1))
    assert [float(x[0]) for x in given] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("space", "answer", "expected"),
    [
        (spaces.Box(-9, 9, (2,)), [1.5, 2.5], torch.tensor([1.5, 2.5])),
        (spaces.Box(-9, 9, (2,), np.float64), np.array([1.5, 1e-50]), torch.tensor([1.5, 0.0])),
        (spaces.Box(-9, 9, (), np.float32), 1.5, torch.tensor(1.5)),
        (spaces.Box(0, 9, (2,), np.int32), np.array([1, 2]), torch.tensor([1.0, 2.0])),
        (spaces.Box(0, 255, (2,), np.uint8), np.array([1, 255]), torch.tensor([1, 255], dtype=torch.uint8)),
        (spaces.Discrete(5, start=10), np.int64(13), torch.tensor(3)),
        (spaces.Discrete(5, start=10), np.array(13), torch.tensor(3)),
        (spaces.MultiDiscrete([3, 4], start=[1, -1]), np.array([3, 0]), torch.tensor([2, 1])),
        (spaces.MultiBinary((1, 2)), np.array([[1, 0]], np.int8), torch.tensor([[1.0, 0.0]])),
        (spaces.Box(-9, 9, (1,)), torch.tensor([2.0], requires_grad=True), torch.tensor([2.0])),
    ],
)
def test_observations_as_tensors(space: spaces.Space[Any], answer: Any, expected: torch.Tensor) -> None:
    world = make(lambda: Echo(spaces.Discrete(2), space, lambda t: answer), n_envs=2)
    obs = world.reset()
    assert obs.dtype == expected.dtype
    assert torch.equal(obs, torch.stack([expected, expected]))


def test_observations_are_copied() -> None:
    buffer = np.zeros(1, np.float32)

    def answer(t: int) -> Any:
        buffer[0] = t
        return buffer

    world = make(lambda: Echo(spaces.Discrete(2), spaces.Box(-9, 9, (1,)), answer))
    world.reset()
    obs = world.step(torch.zeros(1, dtype=torch.int64)).obs
    buffer[0] = 5
    assert obs.item() == 1.0


def test_ended_is_not_overwritten() -> None:
    """`ended` as it was before a step says which rows of the step only reset."""
    world = make(counting_factory((2,), (TERMINATED,)), n_envs=1)
    world.reset()
    seen = []
    for _ in range(6):
        seen.append(world.ended)
        world.step(torch.zeros(1, dtype=torch.int64))
    assert [bool(x) for x in seen] == [False, False, True, False, False, True]


def test_pictures() -> None:
    world = make("CartPole-v1", n_envs=2, render=True)
    world.reset()
    picture = world.render()
    assert (picture.dtype, picture.shape) == (np.uint8, (400, 600, 3))
    assert picture.std() > 1
    world.close()
    plain = make("CartPole-v1")
    plain.reset()
    with pytest.raises(WorldError, match="render=True"):
        plain.render()


def test_pictures_of_mujoco_on_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a display MuJoCo draws through EGL, also where it was imported before."""
    make("InvertedPendulum-v5").close()
    for name in ("DISPLAY", "MUJOCO_GL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    world = make("InvertedPendulum-v5", render=True, kwargs={"width": 64, "height": 48})
    assert os.environ["MUJOCO_GL"] == "egl"
    world.reset()
    try:
        picture = world.render()
    except WorldError as error:
        pytest.skip(f"no EGL here: {error}")
    assert picture.shape == (48, 64, 3)
    assert picture.std() > 1
    world.close()


def test_exact_rows_after_an_inactive_environment() -> None:
    """Pauses leave no trace in the state."""
    a = make("CartPole-v1", n_envs=2, seed=1)
    actions = sampler(a, 1)
    a.reset()
    rows = [advance(a, actions(), torch.tensor([t % 3 != 0, t % 2 == 0])) for t in range(40)]
    b = make("CartPole-v1", n_envs=2, seed=2)
    assert same(b.load_state_dict(through_file(a.state_dict())), rows[-1].obs)
    for _ in range(30):
        action = actions()
        assert same(advance(a, action), advance(b, action))
