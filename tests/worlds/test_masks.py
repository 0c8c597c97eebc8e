"""Action masks of environments: read from where sb3-contrib looks, checked, exact, the same with workers."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from pgrad.data import Masked
from pgrad.environments.masks import choices
from pgrad.errors import WorldError
from pgrad.worlds import World, make
from tests.worlds.conformance import check_active, check_seeds, check_state
from tests.worlds.tools import copy, same

SPACES: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4, start=3),
    "multi-discrete": spaces.MultiDiscrete([3, 1, 2]),
    "multi-binary": spaces.MultiBinary(3),
    "product": spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1, 1, (2,)), "c": spaces.Discrete(3)}),
}
WIDTHS = {"discrete": 4, "multi-discrete": 6, "multi-binary": 6, "product": 5}


class Picky(gymnasium.Env[Any, Any]):
    """Draws at every step what it forbids; told by `info` or by a method; what it shows says the mask too."""

    def __init__(self, name: str = "discrete", method: bool = False, flaw: str = "") -> None:
        self.action_space = SPACES[name]
        self.sizes = choices(self.action_space)
        self.observation_space = spaces.Box(-1.0, 1e3, (sum(self.sizes) + 1,))
        self.flaw, self.t = flaw, 0
        if method:
            self.action_masks = lambda: self.mask  # sb3-contrib's name

    def answer(self) -> tuple[Any, dict[str, Any]]:
        parts = []
        for n in self.sizes:
            part = self.np_random.random(n) < 0.5
            part[self.np_random.integers(n)] = True
            parts.append(part)
        self.mask: Any = np.concatenate(parts)
        shown = np.append(self.mask, self.t).astype(np.float32)
        if self.flaw == "nothing" and self.t == 3:
            self.mask = self.mask.copy()
            self.mask[: self.sizes[0]] = False
        if self.flaw == "shape" and self.t == 2:
            self.mask = self.mask[:-1]
        if self.flaw == "values":
            self.mask = self.mask * 0.5
        if self.flaw == "over" and self.t == 5:
            self.mask = np.zeros_like(self.mask)
        quiet = hasattr(self, "action_masks") or (self.flaw == "missing" and self.t == 1)
        return shown, {} if quiet or (self.flaw == "late" and self.t == 0) else {"action_mask": self.mask}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.answer()

    def step(self, action: Any) -> Any:
        self.t += 1
        obs, info = self.answer()
        return obs, 1.0, self.t == 5, False, info


def picky(*args: Any, **named: Any) -> Callable[[], Picky]:
    return lambda: Picky(*args, **named)


def zeros(world: World) -> Any:
    def zero(space: spaces.Space[Any]) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: zero(part) for key, part in space.items()}
        dtype = torch.float32 if isinstance(space, spaces.Box) else torch.int64
        return torch.zeros(world.n_envs, *(space.shape or ()), dtype=dtype)

    return zero(world.action_space)


@pytest.mark.parametrize("method", [False, True], ids=["info", "method"])
@pytest.mark.parametrize(("name", "workers"), [*((name, 0) for name in SPACES), ("multi-discrete", 2)])
def test_the_mask_is_the_one_of_the_observation_it_comes_with(name: str, method: bool, workers: int) -> None:
    """Also on the first observation, on the last of an episode and on that of a reset."""
    world = make(picky(name, method), n_envs=3, seed=1, workers=workers)
    obs, forbade = world.reset(), False
    for _ in range(13):
        assert isinstance(obs, Masked)
        assert obs.allowed.dtype == torch.bool
        assert obs.allowed.shape == (3, WIDTHS[name])
        assert torch.equal(obs.allowed.float(), obs.obs[:, :-1])
        forbade |= not bool(obs.allowed.all())
        obs = world.step(zeros(world)).obs
    assert forbade
    world.close()


@pytest.mark.parametrize("method", [False, True], ids=["info", "method"])
def test_seeds_pauses_and_exact_states(method: bool) -> None:
    def world(n_envs: int, seed: int) -> World:
        return make(picky("discrete", method), n_envs=n_envs, seed=seed)

    check_seeds(world, 20, True)
    check_active(world, 20, True)
    check_state(world, 20)


def test_workers_give_the_same_to_the_last_bit_and_continue_one_another() -> None:
    alone, shared = (make(picky("multi-binary"), n_envs=5, seed=7, workers=n) for n in (0, 2))
    assert same(alone.reset(), shared.reset())
    for _ in range(7):
        assert same(alone.step(zeros(alone)).obs, shared.step(zeros(shared)).obs)
    for source, target in ((alone, shared), (shared, alone)):
        shown = copy(target.load_state_dict(source.state_dict()))
        assert same(shown, source.step(zeros(source), torch.zeros(5, dtype=torch.bool)).obs)
        fresh = make(picky("multi-binary"), n_envs=5, seed=0)
        assert same(fresh.load_state_dict(source.state_dict()), shown)
        assert same(fresh.step(zeros(fresh)).obs, source.step(zeros(source)).obs)
        target.load_state_dict(source.state_dict())
    shared.close()


def test_an_episode_that_is_over_may_allow_nothing() -> None:
    """Where a game has ended there is no move; the row only resets."""
    world = make(picky(flaw="over"), n_envs=2)
    world.reset()
    for _ in range(5):
        obs = world.step(zeros(world)).obs
    assert world.ended.all()
    assert obs.allowed.all()
    assert not world.step(zeros(world)).obs.allowed.all()


@pytest.mark.parametrize(
    ("flaw", "name", "what"),
    [
        (
            "nothing",
            "discrete",
            "step 3 of its episode: the action mask forbids every action of Discrete(4, start=3)",
        ),
        (
            "nothing",
            "multi-discrete",
            "step 3 of its episode: the action mask forbids every value of choice 0 of Mu",
        ),
        (
            "shape",
            "discrete",
            "step 2 of its episode: the action mask has shape (3,), Discrete(4, start=3) needs (4",
        ),
        ("values", "discrete", "on reset, the action mask is [0.  0.5 0.5 0. ], not of bools or of 0 and 1"),
        ("missing", "discrete", "step 1 of its episode: info has no 'action_mask', on reset it had one"),
        ("late", "discrete", "step 1 of its episode: info has an 'action_mask', on reset it had none"),
    ],
)
def test_bad_masks_are_told_in_one_line(flaw: str, name: str, what: str) -> None:
    for workers in (0, 1) if flaw == "nothing" else (0,):
        world = make(picky(name, flaw=flaw), n_envs=1, seed=3, workers=workers)
        with pytest.raises(WorldError) as error:
            four_steps(world)
        world.close()
        text = str(error.value)
        assert what in text
        assert "Picky, environment 0" in text
        assert "\n" not in text


def four_steps(world: World) -> None:
    world.reset()
    for _ in range(4):
        world.step(zeros(world))


def test_masks_in_other_forms() -> None:
    """A list of bools, integers, and a tuple with one mask for each choice, as Gymnasium's `sample` takes."""

    class Forms(Picky):
        def answer(self) -> Any:
            obs, _ = super().answer()
            whole = np.array([1, 0, 1, 1, 0, 1])
            parts = (np.array([1, 0, 1], np.int8), np.array([1], np.int8), np.array([0, 1], np.int8))
            return obs, {"action_mask": (whole, whole.tolist(), parts)[self.t % 3]}

    world = make(lambda: Forms("multi-discrete"), n_envs=1)
    obs = world.reset()
    for _ in range(4):
        assert obs.allowed.tolist() == [[True, False, True, True, False, True]]
        obs = world.step(zeros(world)).obs


def test_masks_of_continuous_actions_mean_nothing() -> None:
    class Free(Picky):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = spaces.Box(-1.0, 1.0, (2,))

    assert isinstance(make(Free, n_envs=1).reset(), torch.Tensor)


def test_a_vector_environment_cannot_hand_masks_on() -> None:
    world = make(gymnasium.vector.SyncVectorEnv([picky()] * 2))
    with pytest.raises(WorldError, match="action masks need an id or a factory"):
        world.reset()


def test_the_width_of_a_mask() -> None:
    assert {name: sum(choices(space)) for name, space in SPACES.items()} == WIDTHS
    assert choices(spaces.MultiBinary((2, 2))) == (2, 2, 2, 2)
    assert choices(spaces.Tuple((SPACES["multi-discrete"], SPACES["product"]))) == (3, 1, 2, 2, 3)
