"""Frame stacking: what Gymnasium's wrapper shows, for every world and space, exact in mid-episode."""

import copy
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation

from pgrad.data import Masked, leaves
from pgrad.errors import UsageError, WorldError
from pgrad.worlds import World, make
from pgrad.worlds.stacked import StackedWorld, stacked_space
from tests.models.spaces import OBSERVATIONS
from tests.run.test_spaces import Any2Any
from tests.worlds.conformance import check_world
from tests.worlds.fakes import counting_factory
from tests.worlds.test_masks import picky, zeros
from tests.worlds.tools import advance, same, sampler


def test_gymnasiums_wrapper_shows_the_same() -> None:
    """Over ends of episodes, in four environments at once."""
    mine = make("CartPole-v1", n_envs=4, seed=3, frame_stack=3)
    theirs = make(lambda: FrameStackObservation(gymnasium.make("CartPole-v1"), 3), n_envs=4, seed=3)
    assert mine.observation_space == theirs.observation_space
    assert torch.equal(mine.reset(), theirs.reset())
    actions, ended = sampler(mine, 0), 0
    for _ in range(80):
        action = actions()
        a, b = advance(mine, action), advance(theirs, action)
        assert all(same(x, y) for x, y in zip(a, b, strict=True))
        ended += int(a.ended.sum())
    assert ended > 4


@pytest.mark.parametrize("world", ["cartpole", "CartPole-v1"])
def test_a_stacked_world_is_a_world(world: str) -> None:
    check_world(lambda n, seed: make(world, n_envs=n, seed=seed, frame_stack=3))


def test_workers_hand_over_single_frames() -> None:
    alone, shared = (
        make(
            counting_factory((3, 1, 5), ("terminated", "truncated"), shuffled=True),
            n_envs=3,
            workers=n,
            frame_stack=2,
        )
        for n in (0, 2)
    )
    assert same(alone.reset(), shared.reset())
    actions = sampler(alone, 0)
    for _ in range(12):
        action = actions()
        assert all(same(x, y) for x, y in zip(advance(alone, action), advance(shared, action), strict=True))
    fresh = make(
        counting_factory((3, 1, 5), ("terminated", "truncated"), shuffled=True), n_envs=3, frame_stack=2
    )
    assert same(fresh.load_state_dict(shared.state_dict()), alone.load_state_dict(alone.state_dict()))
    shared.close()


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_every_space(name: str) -> None:
    """What is shown is of the declared space, and its frames are the last ones."""
    space = OBSERVATIONS[name]

    def make_one(k: int) -> World:
        factory = partial(lambda mine: Any2Any(copy.deepcopy(mine), spaces.Discrete(2)), space)
        return make(factory, n_envs=2, seed=1, frame_stack=k)

    plain, stacked = make_one(1), make_one(3)
    assert isinstance(stacked, StackedWorld)
    history = [[x.clone() for x in leaves(plain.reset())]]
    stacked.reset()
    for _ in range(3):
        action = torch.tensor([0, 1])
        history.append([x.clone() for x in leaves(plain.step(action).obs)])
        shown = stacked.step(action).obs
    for i, (x, leaf) in enumerate(zip(leaves(shown), _leaves(stacked.observation_space), strict=True)):
        assert x.shape[1:] == (leaf.shape or ())
        whole = torch.stack([row[i] for row in history[-3:]], 1)
        assert sorted(x[0].flatten().tolist()) == sorted(whole[0].flatten().tolist())
    assert _forms(stacked.observation_space) == _forms(stacked_space(space, 3))


def _leaves(space: Any) -> list[Any]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return [leaf for part in parts for leaf in _leaves(part)]
    return [space]


def _forms(space: Any) -> list[Any]:
    return [(type(x), x.shape, x.dtype) for x in _leaves(space)]


@pytest.mark.parametrize(
    ("shape", "stacked"), [((7, 5, 3), (7, 5, 6)), ((3, 7, 5), (6, 7, 5)), ((7, 5), (2, 7, 5))]
)
def test_pictures_stay_pictures(shape: tuple[int, ...], stacked: tuple[int, ...]) -> None:
    """Frames become channels, the older ones first, so that convolutions see them."""
    space = spaces.Box(0, 255, shape, np.uint8)
    assert stacked_space(space, 2) == spaces.Box(0, 255, stacked, np.uint8)

    class Film(gymnasium.Env[Any, Any]):
        observation_space, action_space = space, spaces.Discrete(2)

        def reset(self, **arguments: Any) -> Any:
            super().reset(**arguments)
            self.t = 1
            return np.full(shape, 1, np.uint8), {}

        def step(self, action: Any) -> Any:
            self.t += 1
            return np.full(shape, self.t, np.uint8), 0.0, False, False, {}

    world = make(Film, n_envs=1, frame_stack=2)
    assert (world.reset() == 1).all()
    world.step(torch.zeros(1, dtype=torch.int64))
    shown = world.step(torch.zeros(1, dtype=torch.int64)).obs[0]
    first, last = (shown[..., :3], shown[..., 3:]) if len(shape) == 3 and shape[2] == 3 else shown.chunk(2)
    assert (first == 2).all()
    assert (last == 3).all()


def test_the_mask_is_the_newest() -> None:
    world, plain = (make(picky(), n_envs=2, seed=4, frame_stack=k) for k in (2, 1))
    world.reset()
    plain.reset()
    for _ in range(9):
        obs, alone = world.step(zeros(world)).obs, plain.step(zeros(plain)).obs
        assert isinstance(obs, Masked)
        assert torch.equal(obs.allowed, alone.allowed)
        assert torch.equal(obs.obs[:, -1], alone.obs)
        assert obs.obs.shape == (2, 2, 5)


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(UsageError, match="frame_stack must be a whole number of at least 0, got -1"):
        make("cartpole", frame_stack=-1)
    with pytest.raises(UsageError, match="leave out n_envs, workers, kwargs and frame_stack"):
        make(gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")]), frame_stack=2)
    world = make("cartpole", frame_stack=2)
    with pytest.raises(UsageError, match="cartpole is a world already: leave out frame_stack"):
        make(world, frame_stack=2)
    other = make("cartpole", frame_stack=3)
    world.reset()
    with pytest.raises(WorldError, match="of another frame_stack"):
        other.load_state_dict(world.state_dict())
