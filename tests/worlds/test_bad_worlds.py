"""Environments that break their contract are found before anything learns from them, and told in one line."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from pgrad.errors import UsageError, WorldError
from pgrad.worlds import World, make

OBS = spaces.Box(-9, 9, (2,), np.float32)
GOOD = np.ones(2, np.float32)
NAN = np.array([1.0, np.nan], np.float32)


class Scripted(gymnasium.Env[Any, Any]):
    """Answers what it is told to: `first` on reset and, from its third step on, `answer`."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any], first: Any, answer: Any) -> None:
        self.observation_space, self.first, self.answer = space, first, answer

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.first() if callable(self.first) else self.first

    def step(self, action: Any) -> Any:
        self.t += 1
        if self.t < 3:
            return self.first[0], 0.0, False, False, {}
        return self.answer() if callable(self.answer) else self.answer


def bad(answer: Any, space: spaces.Space[Any] = OBS, first: Any = (GOOD, {})) -> Callable[[], World]:
    """Three environments, of which the one in the middle is bad."""
    number = iter(range(3))
    fine = (first[0], 0.0, False, False, {}) if isinstance(first, tuple) and len(first) == 2 else None

    def factory() -> Scripted:
        return Scripted(space, first, answer if next(number) == 1 else fine)

    return lambda: make(factory, n_envs=3)


def play(world: World) -> str:
    """The one line that the world ends with, at the third step."""
    world.reset()
    for _ in range(2):
        world.step(torch.tensor([0, 1, 0]))
    with pytest.raises(WorldError) as caught:
        world.step(torch.tensor([0, 1, 0]))
    return str(caught.value)


def _raise(error: Exception) -> Callable[[], Any]:
    def step() -> Any:
        raise error

    return step


DICT = spaces.Dict(eye=OBS, place=spaces.Discrete(4, start=2))
SEEN = {"eye": GOOD, "place": 2}


@pytest.mark.parametrize(
    ("answer", "space", "first", "what"),
    [
        ((NAN, 0.0, False, False, {}), OBS, GOOD, "observation[1] is nan (action 1)"),
        ((NAN * np.inf, 0.0, False, False, {}), OBS, GOOD, "observation[0] is inf (action 1)"),
        (
            (GOOD.astype(np.float64) * 1e300, 0.0, False, False, {}),
            OBS,
            GOOD,
            "observation[0] is inf (action 1)",
        ),
        ((GOOD, float("nan"), False, False, {}), OBS, GOOD, "reward is nan (action 1)"),
        ((GOOD, np.float32(-np.inf), False, False, {}), OBS, GOOD, "reward is -inf (action 1)"),
        ((GOOD, 1e300, False, False, {}), OBS, GOOD, "reward is inf (action 1)"),
        ((GOOD, "1.0", False, False, {}), OBS, GOOD, "reward is '1.0', not a number (action 1)"),
        ((GOOD, np.ones(2), False, False, {}), OBS, GOOD, "reward is [1. 1.], not a number (action 1)"),
        ((GOOD, np.ones(0), False, False, {}), OBS, GOOD, "reward is [], not a number (action 1)"),
        ((GOOD, np.array(["1"]), False, False, {}), OBS, GOOD, "reward is '1', not a number (action 1)"),
        ((GOOD, [1.0], False, False, {}), OBS, GOOD, "reward is [1.0], not a number (action 1)"),
        ((GOOD, None, False, False, {}), OBS, GOOD, "reward is None, not a number (action 1)"),
        (
            (np.ones(3, np.float32), 0.0, False, False, {}),
            OBS,
            GOOD,
            "observation has shape (3,), the space declares (2,) (action 1)",
        ),
        (
            (np.float32(1), 0.0, False, False, {}),
            OBS,
            GOOD,
            "observation has shape (), the space declares (2,) (action 1)",
        ),
        (
            (np.ones((1, 2), np.float32), 0.0, False, False, {}),
            OBS,
            GOOD,
            "observation has shape (1, 2), the space declares (2,) (action 1)",
        ),
        (
            (np.ones(2), 0.0, False, False, {}),
            spaces.Box(0, 255, (2,), np.uint8),
            np.ones(2, np.uint8),
            "observation has dtype float64, the space declares uint8 (action 1)",
        ),
        (
            (np.array([1, 256]), 0.0, False, False, {}),
            spaces.Box(0, 255, (2,), np.uint8),
            np.ones(2, np.uint8),
            "observation has values outside 0..255, the space declares uint8 (action 1)",
        ),
        (
            (1.0, 0.0, False, False, {}),
            spaces.Discrete(4),
            1,
            "observation has dtype float64, the space declares int64 (action 1)",
        ),
        (
            (4, 0.0, False, False, {}),
            spaces.Discrete(4),
            1,
            "observation is 4, the space declares Discrete(4) (action 1)",
        ),
        (
            (np.array([0, 3]), 0.0, False, False, {}),
            spaces.MultiDiscrete([2, 3]),
            np.array([0, 0]),
            "observation is [0 3], the space declares MultiDiscrete([2 3]) (action 1)",
        ),
        (
            (np.array([0, 2]), 0.0, False, False, {}),
            spaces.MultiBinary(2),
            np.array([0, 1]),
            "observation is [0 2], the space declares MultiBinary(2) (action 1)",
        ),
        (
            ("north", 0.0, False, False, {}),
            OBS,
            GOOD,
            "observation has shape (), the space declares (2,) (action 1)",
        ),
        (
            (["a", "b"], 0.0, False, False, {}),
            OBS,
            GOOD,
            "observation has dtype <U1, the space declares float32 (action 1)",
        ),
        (
            ([[1.0], [1.0, 2.0]], 0.0, False, False, {}),
            OBS,
            GOOD,
            "observation is [[1.0], [1.0, 2.0]], the space declares Box(-9.0, 9.0, (2,), float32) (action 1)",
        ),
        (
            ({"eye": NAN, "place": 2}, 0.0, False, False, {}),
            DICT,
            SEEN,
            "observation['eye'][1] is nan (action 1)",
        ),
        (
            ({"eye": GOOD}, 0.0, False, False, {}),
            DICT,
            SEEN,
            "observation is keys ['eye'], the space declares keys ['eye', 'place'] (action 1)",
        ),
        (
            ({"eye": GOOD, "place": 6}, 0.0, False, False, {}),
            DICT,
            SEEN,
            "observation['place'] is 6, the space declares Discrete(4, start=2) (action 1)",
        ),
        (
            ((GOOD,), 0.0, False, False, {}),
            spaces.Tuple((OBS, OBS)),
            (GOOD, GOOD),
            "observation is (array([1., 1.], dtype=float32),), the space declares a tuple of 2 (action 1)",
        ),
        ((GOOD, 0.0, np.nan, False, {}), OBS, GOOD, "terminated is nan, a float, not a bool (action 1)"),
        (
            (GOOD, 0.0, {"a": 1}, False, {}),
            OBS,
            GOOD,
            "terminated is {'a': 1}, a dict, not a bool (action 1)",
        ),
        (
            (GOOD, 0.0, False, {}),
            OBS,
            GOOD,
            "step must return (observation, reward, terminated, truncated, info), it returned 4 values "
            "(ndarray, float, bool, dict): the old Gym API? (action 1)",
        ),
        (
            None,
            OBS,
            GOOD,
            "step must return (observation, reward, terminated, truncated, info), "
            "it returned None (action 1)",
        ),
        (
            _raise(ZeroDivisionError("float division by zero\n  in physics")),
            OBS,
            GOOD,
            "step raised ZeroDivisionError: float division by zero in physics (action 1)",
        ),
        (_raise(KeyError("door")), OBS, GOOD, "step raised KeyError: 'door' (action 1)"),
    ],
)
def test_step(answer: Any, space: spaces.Space[Any], first: Any, what: str) -> None:
    text = play(bad(answer if answer is not None else (lambda: None), space, (first, {}))())
    assert text == f"Scripted, environment 1, step 3 of its episode: {what}"


def test_the_original_exception_is_kept() -> None:
    error = ZeroDivisionError("x")
    world = bad(_raise(error))()
    world.reset()
    for _ in range(2):
        world.step(torch.tensor([0, 1, 0]))
    with pytest.raises(WorldError) as caught:
        world.step(torch.tensor([0, 1, 0]))
    assert caught.value.__cause__ is error


def test_the_old_api_below_a_wrapper() -> None:
    world = make(lambda: TimeLimit(Scripted(OBS, (GOOD, {}), (GOOD, 0.0, False, {})), 10))
    world.reset()
    for _ in range(2):
        world.step(torch.tensor([0]))
    with pytest.raises(WorldError, match=r"expected 5, got 4\): the old Gym API\? step must return \(obs"):
        world.step(torch.tensor([0]))


@pytest.mark.parametrize(
    ("first", "what"),
    [
        ((NAN, {}), ": on reset, observation[1] is nan"),
        ((GOOD, 1.0), ": on reset, reset must return (observation, info), info is 1.0"),
        (
            GOOD,
            ": on reset, reset must return (observation, info), it returned [1. 1.], an observation alone: "
            "the old Gym API?",
        ),
        (
            np.ones(4),
            ": reset must return (observation, info), it returned [1. 1. 1. 1.], an observation alone: "
            "the old Gym API?",
        ),
        (None, ": reset must return (observation, info), it returned None"),
        ((GOOD, {}, 0), ": reset must return (observation, info), it returned 3 values (ndarray, dict, int)"),
        ((np.ones(3), {}), ": on reset, observation has shape (3,), the space declares (2,)"),
        ((None, {}), f": on reset, observation is None, the space declares {OBS}"),
        (_raise(RuntimeError("no level 7")), ": reset raised RuntimeError: no level 7"),
    ],
)
def test_reset(first: Any, what: str) -> None:
    with pytest.raises(WorldError) as caught:
        make(lambda: Scripted(OBS, first, None)).reset()
    assert str(caught.value) == f"Scripted, environment 0{what}"


@pytest.mark.parametrize("one", [np.array([3.5]), np.array([[3.5]]), np.array(3.5), torch.tensor([3.5])])
def test_a_reward_in_an_array_of_one_is_that_number(one: Any) -> None:
    world = make(lambda: Scripted(OBS, (GOOD, {}), (GOOD, one, False, False, {})))
    world.reset()
    rewards = [world.step(torch.tensor([0])).reward.item() for _ in range(3)]
    assert rewards == [0.0, 0.0, 3.5]


def test_reset_without_a_seed() -> None:
    class Old(Scripted):
        def reset(self) -> Any:  # type: ignore[override]
            return GOOD, {}

    with pytest.raises(WorldError, match="it must take the arguments seed and options"):
        make(lambda: Old(OBS, (GOOD, {}), None)).reset()


def test_nan_at_a_later_reset() -> None:
    calls = iter([(GOOD, {}), (NAN, {})])
    env = Scripted(OBS, lambda: next(calls), (GOOD, 0.0, True, False, {}))
    env.step = lambda action: (GOOD, 0.0, True, False, {})  # type: ignore[method-assign]
    world = make(lambda: env)
    world.reset()
    world.step(torch.tensor([0]))
    with pytest.raises(WorldError) as caught:
        world.step(torch.tensor([0]))
    assert str(caught.value) == "Scripted, environment 0: on reset, observation[1] is nan"


def test_a_world_goes_on_after_an_error_and_reset() -> None:
    world = bad((NAN, 0.0, False, False, {}))()
    for _ in range(2):
        assert "nan" in play(world)


@pytest.mark.parametrize(
    ("space", "action", "what"),
    [
        (
            spaces.Discrete(3),
            torch.tensor([0, 3]),
            "environment 1, step 1 of its episode: the action 3 is not in Discrete(3)",
        ),
        (
            spaces.Discrete(3),
            torch.tensor([-1, 0]),
            "environment 0, step 1 of its episode: the action -1 is not in Discrete(3)",
        ),
        (
            spaces.Discrete(3),
            torch.tensor([0.0, 1.0]),
            "the action has dtype float32, Discrete(3) needs integers",
        ),
        (
            spaces.Discrete(3),
            torch.tensor([[0], [1]]).expand(2, 3),
            "the action has shape (2, 3), 2 × Discrete(3) needs (2,)",
        ),
        (spaces.Discrete(3), torch.tensor([0]), "the action has shape (1,), 2 × Discrete(3) needs (2,)"),
        (
            spaces.Box(-1, 1, (2,)),
            torch.tensor([[0.0, 0.0], [0.0, torch.nan]]),
            "environment 1, step 1 of its episode: the action [ 0. nan] is not in "
            "Box(-1.0, 1.0, (2,), float32)",
        ),
        (
            spaces.MultiDiscrete([2, 3]),
            torch.tensor([[0, 0], [0, 3]]),
            "environment 1, step 1 of its episode: the action [0 3] is not in MultiDiscrete([2 3])",
        ),
        (
            spaces.MultiBinary(2),
            torch.tensor([[0.0, 0.5], [0.0, 1.0]]),
            "environment 0, step 1 of its episode: the action [0.  0.5] is not in MultiBinary(2)",
        ),
        (
            spaces.Dict(a=spaces.Discrete(2)),
            torch.tensor([0, 0]),
            "the action must be a dict with the keys ['a']",
        ),
        (
            spaces.Dict(a=spaces.Discrete(2)),
            {"b": torch.tensor([0, 0])},
            "the action must be a dict with the keys ['a']",
        ),
        (spaces.Tuple((spaces.Discrete(2),)), torch.tensor([0, 0]), "the action must be a tuple of 1"),
        (
            spaces.Discrete(2),
            (torch.tensor([0, 0]),),
            "the action must be a tensor for Discrete(2), got a tuple",
        ),
        (
            spaces.Dict(a=spaces.Discrete(2)),
            {"a": torch.tensor([0, 5])},
            "environment 1, step 1 of its episode: the action['a'] 5 is not in Discrete(2)",
        ),
    ],
)
def test_actions_that_no_environment_should_see(space: spaces.Space[Any], action: Any, what: str) -> None:
    def factory() -> Scripted:
        env = Scripted(OBS, (GOOD, {}), _raise(AssertionError("stepped")))
        env.action_space = space  # type: ignore[assignment]
        return env

    world = make(factory, n_envs=2)
    world.reset()
    with pytest.raises(WorldError) as caught:
        world.step(action)
    separator = ", " if what.startswith("environment") else ": "
    assert str(caught.value) == f"Scripted{separator}{what}"


def test_actions_of_an_episode_that_is_over_may_be_anything() -> None:
    world = make(lambda: Scripted(OBS, (GOOD, {}), (GOOD, 0.0, True, False, {})), n_envs=1)
    world.reset()
    for _ in range(3):
        world.step(torch.tensor([0]))
    assert world.ended.item()
    world.step(torch.tensor([99]))
    assert not world.ended.item()


@pytest.mark.parametrize(
    ("role", "space", "what"),
    [
        (
            "observation",
            spaces.Text(5),
            "its observation space is a Text; supported are Box, Discrete, MultiDiscrete",
        ),
        (
            "observation",
            spaces.Dict(a=OBS, b=spaces.Sequence(OBS)),
            r"its observation\['b'\] space is a Sequence;",
        ),
        (
            "observation",
            spaces.Tuple((OBS, spaces.Graph(OBS, None))),
            r"its observation\[1\] space is a Graph;",
        ),
        ("observation", spaces.Dict(), "its observation space is an empty Dict"),
        ("action", spaces.OneOf((OBS, OBS)), "its action space is a OneOf;"),
        ("action", spaces.Dict(a=spaces.Text(3)), r"its action\['a'\] space is a Text;"),
        ("action", spaces.Box(-1, 1, (0,)), "has nothing to decide"),
    ],
)
def test_spaces_that_are_not_supported(role: str, space: spaces.Space[Any], what: str) -> None:
    def factory() -> Scripted:
        env = Scripted(OBS, (GOOD, {}), None)
        setattr(env, f"{role}_space", space)
        return env

    with pytest.raises(UsageError, match=f"^Scripted: {what}|^Scripted: .*{what}"):
        make(factory)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_factory_that_returns_the_same_environment(workers: int) -> None:
    """Bare or in a new wrapper each time: the steps of one would be the steps of all."""
    env = gymnasium.make("CartPole-v1")
    for factory in (lambda: env, lambda: TimeLimit(env.unwrapped, 9)):
        with pytest.raises(UsageError) as caught:
            make(factory, n_envs=2, workers=workers)
        told = "the factory returns the same environment each time: it must make a new one"
        assert str(caught.value) == told
    make(lambda: env, n_envs=1).close()


@pytest.mark.parametrize("role", ["observation", "action"])
def test_an_environment_without_a_space(role: str) -> None:
    class NoSpaces(gymnasium.Env[Any, Any]):
        pass

    other = "action" if role == "observation" else "observation"
    setattr(NoSpaces, f"{other}_space", OBS)
    for factory in (NoSpaces, lambda: TimeLimit(NoSpaces(), 9)):
        with pytest.raises(UsageError) as caught:
            make(factory)
        assert str(caught.value) == f"NoSpaces declares no {role}_space"


def test_every_message_is_one_line() -> None:
    big = spaces.Box(-9, 9, (40, 40), np.float32)
    first = np.ones((40, 40), np.float32)
    broken = first.copy()
    broken[3, 4] = np.nan
    text = play(bad((broken, 0.0, False, False, {}), big, (first, {}))())
    assert text == "Scripted, environment 1, step 3 of its episode: observation[3, 4] is nan (action 1)"
    text = play(bad((first, "x\ny" * 999, False, False, {}), big, (first, {}))())
    assert "\n" not in text
    assert len(text) < 250
