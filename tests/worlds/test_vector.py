"""A user's vector environment as a world, whichever way it resets."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrad.errors import UsageError, WorldError
from pgrad.worlds import make
from tests.worlds.conformance import check_world
from tests.worlds.fakes import BOTH, TERMINATED, TRUNCATED, StructuredEnv, check_counting, counting_factory
from tests.worlds.tools import advance, copy, same, sampler

MODES = list(AutoresetMode)


def sync(factory: Any, n: int, mode: AutoresetMode) -> SyncVectorEnv:
    return SyncVectorEnv([factory] * n, autoreset_mode=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("factory", "steps"),
    [
        (lambda: gymnasium.make("CartPole-v1", disable_env_checker=True), 120),
        (StructuredEnv, 30),
        (counting_factory((3, 1, 5), (TERMINATED, TRUNCATED, BOTH), 4), 40),
    ],
)
def test_conformance(factory: Any, steps: int, mode: AutoresetMode) -> None:
    check_world(
        lambda n, seed: make(sync(factory, n, mode), seed=seed), steps=steps, exact=False, pausable=False
    )


endings = st.sampled_from([TERMINATED, TRUNCATED, BOTH])


@settings(max_examples=30)
@given(
    mode=st.sampled_from(MODES),
    episodes=st.lists(st.tuples(st.integers(1, 6), endings), min_size=1, max_size=4),
    limit=st.none() | st.integers(2, 5),
    n_envs=st.integers(1, 3),
)
def test_every_row_is_what_happened(
    mode: AutoresetMode, episodes: list[tuple[int, str]], limit: int | None, n_envs: int
) -> None:
    """No observation crosses an episode and every last observation is the true one, in all three modes."""
    lengths, ends = zip(*episodes, strict=True)
    world = make(sync(counting_factory(lengths, ends, limit), n_envs, mode))
    check_counting(world, lengths, ends, limit, in_turn=mode is AutoresetMode.NEXT_STEP)


def test_processes() -> None:
    """AsyncVectorEnv hands out its own shared memory and puts `final_obs` into info."""
    factory = counting_factory((3, 1, 5), (TERMINATED, TRUNCATED, BOTH))
    env = AsyncVectorEnv([factory] * 2, autoreset_mode=SAME, context="spawn")
    world = make(env)
    check_counting(world, (3, 1, 5), (TERMINATED, TRUNCATED, BOTH), steps=40, in_turn=False)
    world.close()


def test_the_same_numbers_as_the_vector_environment() -> None:
    env = gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode="vector_entry_point")
    world = make(
        gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode="vector_entry_point"), seed=3
    )
    world._seed = 12  # type: ignore[attr-defined]
    assert np.array_equal(env.reset(seed=12)[0], world.reset().numpy())
    actions = sampler(world, 0)
    ends = 0
    for _ in range(200):
        action = actions()
        over = world.ended.numpy()
        obs, reward, terminated, truncated, _ = env.step(action.numpy())
        step = world.step(action)
        assert np.array_equal(obs, step.obs.numpy())
        assert np.array_equal(terminated, step.terminated.numpy())
        assert np.array_equal(truncated & ~terminated, step.truncated.numpy())
        assert np.array_equal(np.where(over, 0, reward), step.reward.numpy())
        ends += int(over.sum())
    assert ends > 10


def test_seeds() -> None:
    def first(seed: int) -> Any:
        return copy(make(gymnasium.make_vec("CartPole-v1", num_envs=2), seed=seed).reset())

    assert same(first(1), first(1))
    assert not same(first(1), first(2))
    world = make(gymnasium.make_vec("CartPole-v1", num_envs=2), seed=1)
    assert not same(copy(world.reset()), world.reset())


@pytest.mark.parametrize("mode", MODES)
def test_inactive_environments_stay_so(mode: AutoresetMode) -> None:
    world = make(sync(counting_factory((4,), (TERMINATED,)), 2, mode))
    world.reset()
    actions = sampler(world, 0)
    on = torch.tensor([True, False])
    shown = advance(world, actions()).obs
    for _ in range(12):
        row = advance(world, actions(), on)
        assert same(row.obs[1], shown[1])
        assert (row.reward[1], row.terminated[1], row.ended[1]) == (0, False, False)
    with pytest.raises(WorldError, match="environment 1 went on while it was not active, reset comes first"):
        world.step(actions())
    world.reset()
    world.step(actions())


def test_no_exact_state() -> None:
    world = make(gymnasium.make_vec("CartPole-v1", num_envs=2))
    world.reset()
    for call in (world.state_dict, lambda: world.load_state_dict({})):
        with pytest.raises(WorldError, match=r"CartPole.*: the exact state .* give an id or a factory"):
            call()


def test_pictures() -> None:
    env = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync", render_mode="rgb_array")
    world = make(env)
    world.reset()
    assert world.render().shape == (400, 600, 3)
    world.close()


class Script(VectorEnv):
    """Two environments that answer what they are told to."""

    def __init__(
        self, mode: Any, steps: Sequence[Any] = (), resets: Sequence[Any] = (), space: Any = None
    ) -> None:
        self.num_envs = 2
        self.single_observation_space = spaces.Box(-9, 9, (1,), np.float32) if space is None else space
        self.single_action_space = spaces.Discrete(2)
        self.metadata = {} if mode is None else {"autoreset_mode": mode}
        self.steps, self.resets = iter(steps), iter(resets or [(column(0, 0), {})] * 9)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return next(self.resets)

    def step(self, actions: Any) -> Any:
        return next(self.steps)


def column(*values: float) -> Any:
    return np.array(values, np.float32)[:, None]


def answer(obs: Any, reward: Any = (0.0, 0.0), terminated: Any = (False, False), info: Any = None) -> Any:
    return obs, np.array(reward), np.array(terminated), np.array([False, False]), info or {}


def play(env: VectorEnv, steps: int) -> str:
    world = make(env)
    world.reset()
    for _ in range(steps - 1):
        world.step(torch.tensor([0, 1]))
    with pytest.raises(WorldError) as caught:
        world.step(torch.tensor([0, 1]))
    return str(caught.value)


NEXT, SAME, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
END = answer(column(1, 1), terminated=(False, True))


@pytest.mark.parametrize("mode", ["NEXT_STEP", "NextStep", NEXT])
def test_modes_by_name(mode: Any) -> None:
    make(Script(mode))


@pytest.mark.parametrize("mode", [None, "sometimes", 3])
def test_how_it_resets_must_be_known(mode: Any) -> None:
    """Blackjack's own vector environment, for one, spells the key wrong."""
    with pytest.raises(
        UsageError, match=r"Script does not say how it resets: set its metadata\['autoreset_mode'\]"
    ):
        make(Script(mode))


@pytest.mark.parametrize(
    ("env", "steps", "what"),
    [
        (
            Script(NEXT, [answer(column(1, np.nan))]),
            1,
            ", environment 1, step 1 of its episode: observation[0] is nan (action 1)",
        ),
        (
            Script(NEXT, [answer(column(1, 1)), answer(column(1, 1), reward=(np.inf, 0))]),
            2,
            ", environment 0, step 2 of its episode: reward is inf (action 0)",
        ),
        (
            Script(NEXT, [END, answer(column(1, np.nan))]),
            2,
            ", environment 1: on reset, observation[0] is nan",
        ),
        (
            Script(NEXT, [answer(column(1, 1, 1))]),
            1,
            ": observation has shape (3, 1), the space declares (2, 1)",
        ),
        (Script(NEXT, [answer(np.ones(2))]), 1, ": observation has shape (2,), the space declares (2, 1)"),
        (
            Script(NEXT, [answer(column(1, 1), reward=(0,))]),
            1,
            ": reward has shape (1,), the space declares (2,)",
        ),
        (
            Script(NEXT, [answer(column(1, 1), terminated=(0.5, 0.0))]),
            1,
            ": terminated has dtype float64, the space declares int64",
        ),
        (
            Script(NEXT, [answer(column(1, 1))[:4]]),
            1,
            ": step must return (observation, reward, terminated, truncated, info), it returned 4 values "
            "(ndarray, ndarray, ndarray, ndarray): the old Gym API?",
        ),
        (Script(NEXT, []), 1, ": step raised StopIteration"),
        (
            Script(NEXT, [END, answer(column(1, 1), terminated=(False, True))]),
            2,
            ", environment 1, step 0 of its episode: its metadata say NEXT_STEP, but it did not reset "
            "that way",
        ),
        (
            Script(NEXT, [answer(column(1, 1), terminated=(False, True), info={"final_obs": column(1, 2)})]),
            1,
            ", environment 1, step 1 of its episode: its metadata say NEXT_STEP, but it did not reset "
            "that way",
        ),
        (Script(SAME, [END]), 1, ": resets in the same step, but gives no 'final_obs': use NEXT_STEP"),
        (
            Script(
                SAME,
                [
                    answer(column(1, 0), terminated=(False, True), info={"final_obs": column(1, 2)}),
                    answer(column(2, 1)),
                ],
                [(column(0, 0), {}), (column(0, 0), {})],
            ),
            2,
            ": reset ignores options['reset_mask']: use NEXT_STEP",
        ),
        (
            Script(DISABLED, [END], [(column(0, 0), {}), column(0, 0)]),
            2,
            ": reset must return (observation, info), ",
        ),
    ],
)
def test_what_breaks_the_contract(env: Script, steps: int, what: str) -> None:
    text = play(env, steps)
    assert text.startswith(f"Script{what}") if what.endswith(", ") else text == f"Script{what}"


def test_a_wrapper_may_change_the_reward_of_a_reset_row() -> None:
    """A reward that a wrapper makes from nothing is not shown."""
    world = make(Script(NEXT, [END, answer(column(1, 5), reward=(1.0, 1.0))]))
    world.reset()
    world.step(torch.tensor([0, 1]))
    step = world.step(torch.tensor([0, 1]))
    assert step.reward.tolist() == [1.0, 0.0]
    assert step.obs.tolist() == [[1.0], [5.0]]


def test_spaces_that_are_not_supported() -> None:
    with pytest.raises(UsageError, match="Script: its observation space is a Text"):
        make(Script(NEXT, space=spaces.Text(3)))
