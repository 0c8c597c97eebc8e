import math
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import Space, spaces
from torch import Tensor

from pgrad.errors import UsageError, WorldError
from pgrad.worlds.tensors.cartpole import CartPole
from pgrad.worlds.tensors.draw import Picture, canvas
from pgrad.worlds.tensors.pendulum import Pendulum
from pgrad.worlds.tensors.probes import PROBES
from pgrad.worlds.tensors.tabular import REFERENCE
from pgrad.worlds.tensors.tensor import TENSOR_WORLDS, Dynamics, TensorWorld, dynamics_of
from tests.worlds.conformance import check_world
from tests.worlds.tools import advance, sampler

DYNAMICS: list[Dynamics] = [dynamics for name in TENSOR_WORLDS if (dynamics := dynamics_of(name))]
FIXED_START = {
    name for name in TENSOR_WORLDS if name.startswith(("probe-constant", "probe-discount", "probe-action"))
}


@pytest.mark.parametrize("name", TENSOR_WORLDS)
def test_conforms(name: str) -> None:
    dynamics = dynamics_of(name)
    assert dynamics is not None
    steps = 600 if name == "t-maze" else 220 if name.startswith(("pendulum", "bicycle")) else 80
    check_world(
        lambda n_envs, seed: TensorWorld(dynamics, n_envs, seed),
        steps=steps,
        random_start=name not in FIXED_START,
        random_steps=name == REFERENCE.name,
    )


def test_names() -> None:
    assert TENSOR_WORLDS[:3] == ("cartpole", "pendulum", "bicycle")
    assert len(set(TENSOR_WORLDS)) == 17
    for name in TENSOR_WORLDS:
        dynamics = dynamics_of(name)
        assert dynamics is not None
        assert TensorWorld(dynamics, 2, 0).name == name
    assert dynamics_of("CartPole-v1") is None


@pytest.mark.parametrize(
    "dynamics", [CartPole(max_episode_steps=12), Pendulum(max_episode_steps=7), PROBES["probe-both"]]
)
def test_equals_a_loop_over_environments(dynamics: Dynamics) -> None:
    """The vectorised step is the plain one: per environment, with `if`, fed with the same noise."""
    B, T = 3, 100
    world = TensorWorld(dynamics, B, 5)
    generator = torch.Generator().manual_seed(5)

    def noise() -> Tensor:
        return torch.rand(B, dynamics.noise, generator=generator, dtype=torch.float64)

    obs = world.reset()
    state = list(dynamics.start(noise()).split(1))
    clock, over = [0] * B, [False] * B
    torch.testing.assert_close(obs, torch.cat([dynamics.observe(x) for x in state]))
    actions = sampler(world, 0)
    for _ in range(T):
        action = actions()
        row, fresh = advance(world, action), noise()
        for i in range(B):
            reward, terminated, truncated = 0.0, False, False
            if over[i]:
                state[i], clock[i] = dynamics.start(fresh[i : i + 1]), 0
            else:
                state[i], r, end = dynamics.step(state[i], action[i : i + 1], fresh[i : i + 1])
                clock[i] += 1
                reward, terminated = float(r), bool(end)
                truncated = not terminated and clock[i] == dynamics.max_episode_steps
            over[i] = terminated or truncated
            torch.testing.assert_close(row.obs[i], dynamics.observe(state[i])[0])
            assert row.reward[i].item() == pytest.approx(reward, rel=1e-6)
            assert (row.terminated[i], row.truncated[i], row.ended[i]) == (terminated, truncated, over[i])


@dataclass(frozen=True)
class Countdown:
    """Ends by the task at step ⌊8·noise⌋ + 1; the clock allows `max_episode_steps`."""

    max_episode_steps: int | None
    name: str = "countdown"
    noise: int = 1

    @property
    def observation_space(self) -> Space[Any]:
        return spaces.Box(0.0, 8.0, (1,), np.float32)

    @property
    def action_space(self) -> Space[Any]:
        return spaces.Discrete(2)

    def start(self, noise: Tensor) -> Tensor:
        return (8 * noise).floor() + 1

    def step(self, state: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        state = state - 1
        return state, torch.full_like(state[:, 0], 2.0), state[:, 0] == 0

    def observe(self, state: Tensor) -> Tensor:
        return state.float()

    def draw(self, state: Tensor, i: int) -> Picture:
        return canvas(16, 16)


@pytest.mark.parametrize(
    ("limit", "names"), [(5, {"task", "clock"}), (None, {"task"}), (1, {"task", "clock"})]
)
def test_the_task_wins_over_the_clock(limit: int | None, names: set[str]) -> None:
    world = TensorWorld(Countdown(limit), 8, 0)
    left, seen = world.reset()[:, 0].tolist(), set()
    length, total = [0] * 8, [0.0] * 8
    for _ in range(200):
        step = world.step(torch.zeros(8, dtype=torch.int64))
        for i in range(8):
            length[i], total[i] = length[i] + 1, total[i] + step.reward[i].item()
            if step.terminated[i] or step.truncated[i]:
                by_task = left[i] <= (limit or math.inf)
                assert (bool(step.terminated[i]), bool(step.truncated[i])) == (by_task, not by_task)
                assert length[i] == min(left[i], limit or math.inf)
                assert total[i] == 2 * length[i]
                assert step.obs[i, 0] == left[i] - length[i]  # the true last observation
                seen.add("task" if by_task else "clock")
                left[i] = -1
            elif left[i] == -1:
                left[i], length[i], total[i] = step.obs[i, 0].item(), 0, 0.0
    assert seen == names


def put(world: TensorWorld, envs: list[gymnasium.Env]) -> None:
    """Put the physical states of Gymnasium's environments into `world`, leaving its clocks alone."""
    saved = world.state_dict()
    states = torch.from_numpy(np.stack([env.unwrapped.state for env in envs]))
    saved["state"][:, : states.shape[1]] = states
    world.load_state_dict(saved)


def test_cartpole_is_gymnasiums() -> None:
    """Every observation, reward and flag of CartPole-v1 from the same states with the same actions.

    Both run free for 250 steps at a time: rounding errors grow by e⁴ per second (50 steps), 10⁻¹⁶ to 10⁻⁷.
    """
    envs = [gymnasium.make("CartPole-v1") for _ in range(8)]
    obs = np.stack([env.reset(seed=i)[0] for i, env in enumerate(envs)])
    world = TensorWorld(CartPole(), 8, 0)
    assert world.observation_space == envs[0].observation_space
    assert world.action_space == envs[0].action_space
    world.reset()
    numbers = np.random.default_rng(0)
    lengths, alive, truncated = np.zeros(8, int), np.ones(8, bool), 0
    for t in range(500):
        if t % 250 == 0:
            put(world, envs)
        balance = obs[:, 2] + 0.3 * obs[:, 3] + 0.03 * obs[:, 0] + 0.05 * obs[:, 1] > 0
        careless = numbers.random(8) < np.array([0, 0, 0, 0, 0.2, 0.4, 0.6, 1.0])
        action = np.where(careless, numbers.integers(0, 2, 8), balance)
        step = world.step(torch.from_numpy(action))
        for i in np.flatnonzero(alive):
            obs[i], reward, *flags, _ = envs[i].step(int(action[i]))
            assert [bool(step.terminated[i]), bool(step.truncated[i])] == flags
            assert step.reward[i].item() == reward
            np.testing.assert_allclose(step.obs[i], obs[i], atol=1e-6, rtol=1e-6)
            lengths[i] += 1
            alive[i], truncated = not any(flags), truncated + flags[1]
    assert truncated >= 3  # balanced for all 500 steps
    assert (lengths < 500).sum() >= 2
    assert not alive.any()


def test_pendulum_is_gymnasiums() -> None:
    """Every observation, reward and flag of Pendulum-v1 from the same states with the same actions.

    Both run free for 100 steps at a time: upright, rounding errors grow by e⁴ per second (20 steps).
    """
    envs = [gymnasium.make("Pendulum-v1") for _ in range(6)]
    obs = np.stack([env.reset(seed=i)[0] for i, env in enumerate(envs)])
    world = TensorWorld(Pendulum(), 6, 0)
    assert world.observation_space == envs[0].observation_space
    assert world.action_space == envs[0].action_space
    world.reset()
    numbers = np.random.default_rng(0)
    clipped = 0
    for t in range(200):
        if t % 100 == 0:
            put(world, envs)
        swing = np.where(obs[:, 0] > 0.8, -8 * obs[:, 1] - 2 * obs[:, 2], 4 * np.sign(obs[:, 2]))
        action = (swing + numbers.standard_normal(6)).astype(np.float32)[:, None]
        clipped += (np.abs(action) > 2).sum()
        step = world.step(torch.from_numpy(action))
        for i, env in enumerate(envs):
            obs[i], reward, *flags, _ = env.step(action[i])
            assert [bool(step.terminated[i]), bool(step.truncated[i])] == flags == [False, t == 199]
            assert step.reward[i].item() == pytest.approx(reward, rel=1e-6, abs=1e-6)
            np.testing.assert_allclose(step.obs[i], obs[i], atol=1e-6, rtol=1e-6)
    assert clipped > 100
    assert (obs[:, 0] > 0.9).sum() >= 3  # some are upright, where a difference would have grown


@pytest.mark.parametrize(
    ("dynamics", "low", "high"),
    [(CartPole(), [-0.05] * 4, [0.05] * 4), (Pendulum(), [-math.pi, -1.0, 0.0], [math.pi, 1.0, 0.0])],
)
def test_first_states_are_uniform(dynamics: Dynamics, low: list[float], high: list[float]) -> None:
    """Each number is low + (high − low)·u for its own u, so it is uniform and independent of the others."""
    noise = torch.rand(50, dynamics.noise, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = torch.cat((noise, torch.zeros(50, len(low) - dynamics.noise)), 1)
    expected = torch.tensor(low) + (torch.tensor(high) - torch.tensor(low)) * u
    torch.testing.assert_close(dynamics.start(noise), expected, check_dtype=False, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dynamics", DYNAMICS, ids=lambda d: d.name)
def test_physics_never_looks_at_values(dynamics: Dynamics) -> None:
    """Meta tensors have no values: any `.item()`, `if` or dynamic shape would raise, and wait on a GPU."""
    noise = torch.empty(5, dynamics.noise, device="meta", dtype=torch.float64)
    state = dynamics.start(noise)
    discrete = isinstance(dynamics.action_space, spaces.Discrete)
    action = (
        torch.empty(5, device="meta", dtype=torch.int64) if discrete else torch.empty(5, 1, device="meta")
    )
    after, reward, terminated = dynamics.step(state, action, noise)
    assert after.shape == state.shape
    assert after.dtype == state.dtype
    assert reward.shape == terminated.shape == (5,)
    assert terminated.dtype == torch.bool
    assert dynamics.observe(after).shape == (5, *dynamics.observation_space.shape)


def test_a_new_world_resets_at_its_first_step() -> None:
    world, other = TensorWorld(CartPole(), 3, 0), TensorWorld(CartPole(), 3, 0)
    step = world.step(torch.ones(3, dtype=torch.int64))
    assert torch.equal(step.obs, other.reset())
    assert step.reward.tolist() == [0.0] * 3
    assert not world.ended.any()


def test_actions_carry_no_gradient_into_the_world() -> None:
    world = TensorWorld(Pendulum(), 2, 0)
    world.reset()
    step = world.step(torch.zeros(2, 1, requires_grad=True))
    assert not step.obs.requires_grad
    assert not step.reward.requires_grad


def test_even_nan_is_ignored_where_an_episode_is_over() -> None:
    world = TensorWorld(Pendulum(max_episode_steps=1), 2, 0)
    world.reset()
    world.step(torch.zeros(2, 1))
    assert world.ended.all()
    step = world.step(torch.full((2, 1), torch.nan))
    assert step.obs.isfinite().all()
    assert step.reward.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("action", [torch.zeros(1), torch.zeros(4, 1), torch.zeros(()), torch.zeros(5)])
def test_another_shape_of_action_is_refused(action: Tensor) -> None:
    world = TensorWorld(CartPole(), 4, 0)
    world.reset()
    with pytest.raises(
        WorldError, match=r"action of cartpole must be integers of shape \[4\], got torch\.int64"
    ):
        world.step(action.long())


def test_fractional_discrete_actions_are_refused() -> None:
    world = TensorWorld(CartPole(), 4, 0)
    with pytest.raises(WorldError, match=r"must be integers of shape \[4\], got torch\.float32"):
        world.step(torch.zeros(4))


@pytest.mark.parametrize("n_envs", [0, -3])
def test_no_environments(n_envs: int) -> None:
    with pytest.raises(UsageError, match=f"n_envs must be at least 1, got {n_envs}"):
        TensorWorld(CartPole(), n_envs, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "pendulum"}, "is of world 'pendulum', not of 'cartpole'"),
        ({"state": torch.zeros(3, 4, dtype=torch.float64)}, r"'state'.*\[2, 4\], got torch.float64 \[3, 4\]"),
        ({"state": torch.zeros(2, 4)}, r"needs torch.float64 \[2, 4\], got torch.float32"),
        ({"steps": None}, "'steps' of cartpole cannot be put back exactly.*got None"),
        ({"ended": [False, False]}, r"'ended'.*got \[False, False\]"),
        ({"generator": torch.zeros(16, dtype=torch.uint8)}, "'generator'.*another kind of device"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    world = TensorWorld(CartPole(), 2, 0)
    before = world.reset().clone()
    state = world.state_dict()
    with pytest.raises(WorldError, match=message):
        world.load_state_dict({**TensorWorld(CartPole(), 2, 1).state_dict(), **change})
    assert torch.equal(world.load_state_dict(state), before)


@pytest.mark.parametrize("dynamics", [REFERENCE, CartPole(max_episode_steps=3)])
def test_groups_go_on_from_a_state(dynamics: Dynamics) -> None:
    """What draws the same numbers in groups draws them so when it is put into another world, bit for bit."""
    world, other = TensorWorld(dynamics, 4, 0), TensorWorld(dynamics, 4, 1)
    world.reset(group=2)
    world.step(torch.zeros(4, dtype=torch.int64))
    other.load_state_dict(world.state_dict())
    for _ in range(20):
        ours, theirs = (one.step(torch.zeros(4, dtype=torch.int64)).obs for one in (world, other))
        assert torch.equal(ours, theirs)
        assert torch.equal(theirs[::2], theirs[1::2])


@pytest.mark.parametrize("name", TENSOR_WORLDS)
def test_pictures(name: str) -> None:
    """A picture shows environment 0, follows what happens, and changes nothing."""
    dynamics = dynamics_of(name)
    assert dynamics is not None
    world, unseen = TensorWorld(dynamics, 2, 0), TensorWorld(dynamics, 2, 0)
    world.reset(), unseen.reset()
    actions, pictures = sampler(world, 0), []
    for _ in range(30):
        picture = world.render()
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert all(side % 16 == 0 for side in picture.shape[:2])  # what video codecs take
        pictures.append(picture)
        action = actions()
        ours, theirs = world.step(action), unseen.step(action)
        assert torch.equal(ours.obs, theirs.obs)
    moves = not name.startswith(("probe-constant", "probe-action"))
    assert (len({picture.tobytes() for picture in pictures}) > 1) == moves
