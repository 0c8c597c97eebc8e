"""What every world must do, whoever made it: `check_world(make)` raises AssertionError where one does not."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor

from pgrad.data.tree import Tree, leaves, map_tree
from pgrad.worlds.protocol import World
from tests.worlds.tools import Row, advance, copy, same, same_state, sampler, through_file

Make = Callable[[int, int], World]  # (n_envs, seed)

N_ENVS = 4


def check_world(
    make: Make,
    *,
    steps: int = 300,
    exact: bool = True,
    random_start: bool = True,
    random_steps: bool = False,
    pausable: bool = True,
) -> None:
    """Check all that `World` promises on `make(n_envs, seed)`.

    Episodes must end within `steps` random steps. `exact`: the state can be taken out and put back;
    `random_start`: observations depend on the seed; `random_steps`: so do transitions, and an episode that
    was paused goes on with other numbers; `pausable`: inactive environments can go on.
    """
    before = _global_generators()
    check_shapes_and_flags(make, steps)
    check_seeds(make, steps, random_start)
    check_reset_row_ignores_action(make, steps)
    check_active(make, steps, pausable)
    if pausable and not random_steps:
        check_pause(make, steps)
    if exact:
        check_state(make, steps)
    assert _global_generators() == before, "a global random generator was used"


# What is checked --------------------------------------------------------------------------------------------


def check_shapes_and_flags(make: Make, steps: int) -> None:
    """Shapes, dtypes, membership of the spaces, flags, reset rows, actions left as they were given."""
    world = make(N_ENVS, 1)
    assert isinstance(world, World), f"{world!r} does not have all that a World has"
    assert world.n_envs == N_ENVS
    assert world.name
    _assert_member(world.observation_space, world.reset())
    assert not world.ended.any(), "an episode was over right after reset"
    actions = sampler(world, 1)
    ends, resets = 0, 0
    for t in range(steps):
        action, ended = actions(), world.ended.clone()
        given = copy(action)
        step = world.step(action)
        assert same(action, given), "the world changed the actions it was given"
        _assert_member(world.observation_space, step.obs)
        for name, flag in (
            ("terminated", step.terminated),
            ("truncated", step.truncated),
            ("ended", world.ended),
        ):
            assert (flag.dtype, flag.shape) == (torch.bool, (N_ENVS,)), f"{name} is {flag}"
        assert (step.reward.dtype, step.reward.shape) == (torch.float32, (N_ENVS,)), step.reward
        assert step.reward.isfinite().all(), f"reward {step.reward} at step {t}"
        for part in (step.reward, step.terminated, step.truncated, world.ended, *leaves(step.obs)):
            assert part.device == world.device, f"{part.device}, not {world.device}"
        done = step.terminated | step.truncated
        assert not (step.terminated & step.truncated).any(), "terminated and truncated at once"
        assert torch.equal(done, world.ended), "`ended` is not `terminated or truncated` of the last step"
        assert not (done & ended).any(), "a reset row ended an episode"
        assert (step.reward[ended] == 0).all(), "a reset row has a reward"
        ends, resets = ends + int(done.sum()), resets + int(ended.sum())
    assert min(ends, resets) > 0, f"no episode ended and began again within {steps} steps: give more"
    _assert_member(world.observation_space, world.reset())
    assert not world.ended.any(), "an episode was over right after the second reset"
    world.close()


def check_seeds(make: Make, steps: int, random_start: bool) -> None:
    """The same seed gives the same data, bit for bit; other seeds and other environments give other data."""
    a, b, c = make(N_ENVS, 1), make(N_ENVS, 1), make(N_ENVS, 2)
    rows = []
    for world in (a, b, c):
        actions = sampler(world, 1, alike=True)
        first = copy(world.reset())
        rows.append((first, [advance(world, actions()) for _ in range(steps)]))
        world.close()
    assert same(rows[0], rows[1]), "the same seed and actions gave different data"
    if random_start:
        assert not same(rows[0], rows[2]), "two seeds gave the same data"
        columns = [
            map_tree(lambda x, i=i: x[i], (rows[0][0], *(row.obs for row in rows[0][1])))
            for i in range(N_ENVS)
        ]
        for i in range(1, N_ENVS):
            assert not same(columns[0], columns[i]), f"environments 0 and {i} gave the same data"


def check_reset_row_ignores_action(make: Make, steps: int) -> None:
    """Nothing depends on the action given where an episode is over."""
    a, b = make(N_ENVS, 1), make(N_ENVS, 1)
    assert same(a.reset(), b.reset())
    actions, others = sampler(a, 1), sampler(a, 2)
    for t in range(steps):
        action, ended = actions(), a.ended.clone()
        changed = map_tree(lambda x, y, ended=ended: _where(ended, y, x), action, others())
        ours, theirs = advance(a, action), advance(b, changed)
        assert same(ours[1:], theirs[1:]), f"step {t} depends on the action of an episode that was over"
    a.close()
    b.close()


def check_active(make: Make, steps: int, pausable: bool) -> None:
    """Inactive environments answer their last observation, reward 0, no flags, and keep `ended`."""
    a, b = make(N_ENVS, 1), make(N_ENVS, 1)
    last = copy(a.reset())
    b.reset()
    actions = sampler(a, 1)
    numbers, half = np.random.default_rng(3), steps // 2
    everyone = torch.ones(N_ENVS, dtype=torch.bool, device=a.device)
    for t in range(steps):
        action = actions()
        if t < half:
            ours, theirs = advance(a, action, everyone), advance(b, action)
            assert same(ours, theirs), "`active` all true is not the same as None"
        else:
            asleep = N_ENVS * (t - half) // (steps - half)  # for good, one after the other
            awake = numbers.random(N_ENVS) < 0.6 if pausable else np.arange(N_ENVS) >= asleep
            active = torch.from_numpy(awake).to(a.device)
            ended = a.ended.clone()
            ours = advance(a, action, active)
            still = ~active
            for before, after in zip(leaves(last), leaves(ours.obs), strict=True):
                assert torch.equal(before[still], after[still]), (
                    "an inactive environment shows another observation"
                )
            assert (ours.reward[still] == 0).all(), "an inactive environment has a reward"
            flags = ours.terminated | ours.truncated
            assert not flags[still].any(), "an inactive environment has a flag"
            assert torch.equal(ours.ended, torch.where(active, flags, ended)), (
                "`ended` is wrong where inactive"
            )
        last = ours.obs
    a.close()
    b.close()


def check_pause(make: Make, steps: int) -> None:
    """An episode that is paused and continued is the one that was not paused, to its end."""
    a, b = make(N_ENVS, 1), make(N_ENVS, 1)
    assert same(a.reset(), b.reset())
    actions, others = sampler(a, 1), sampler(a, 2)
    numbers = np.random.default_rng(4)
    whole = [advance(a, actions()) for _ in range(steps)]
    played = torch.zeros(N_ENVS, dtype=torch.int64)
    over = torch.zeros(N_ENVS, dtype=torch.bool)
    while not over.all() and bool((played < steps).all()):
        go = torch.from_numpy(numbers.random(N_ENVS) < 0.5)
        action = others()
        for i in range(N_ENVS):
            if go[i]:
                for into, source in zip(leaves(action), leaves(whole[played[i]].action), strict=True):
                    into[i] = source[i]
        row = advance(b, action, go.to(b.device))
        for i in range(N_ENVS):
            if go[i] and not over[i]:
                paused = map_tree(lambda x, i=i: x[i], tuple(row[1:]))
                straight = map_tree(lambda x, i=i: x[i], tuple(whole[played[i]][1:]))
                assert same(paused, straight), f"environment {i} moved while it was inactive"
                over[i] = bool(row.ended[i])
        played += go
    a.close()
    b.close()


def check_state(make: Make, steps: int) -> None:
    """A state, through a file, put into a world of another seed, goes on bit for bit."""
    a, b = make(N_ENVS, 1), make(N_ENVS, 77)
    actions = sampler(a, 1)
    first = copy(a.reset())
    rows: list[Row] = []
    saved = [(0, a.state_dict(), through_file(a.state_dict()), first, a.ended.clone())]
    middle = int(np.random.default_rng(5).integers(2, steps))
    ended, wanted = False, {middle}
    for t in range(1, 2 * steps):
        rows.append(advance(a, actions()))
        if (
            not ended and rows[-1].ended.any()
        ):  # at the end of an episode, at the reset after it, and one later
            ended, wanted = True, wanted | {t, t + 1, t + 2}
        if t in wanted:
            saved.append((t, a.state_dict(), through_file(a.state_dict()), rows[-1].obs, rows[-1].ended))
    for t, state, file, obs, over in saved:
        assert same_state(through_file(state), file), "a state changed after it was taken out"
        assert same(b.load_state_dict(file), obs), f"another observation after loading the state of step {t}"
        assert torch.equal(b.ended, over), f"another `ended` after loading the state of step {t}"
        assert same_state(through_file(b.state_dict()), file), (
            f"loading the state of step {t} did not restore it"
        )
        for row in rows[t : t + steps]:
            assert same(advance(b, row.action), row), f"continued from step {t}, the world went another way"
    t, _, file, obs, _ = saved[-1]
    assert same(a.load_state_dict(file), obs), "a world cannot go back to its own state"
    assert same(advance(a, rows[t].action), rows[t]), "a world that went back went another way"
    a.close()
    b.close()


def _assert_member(space: Space[Any], obs: Tree) -> None:
    match space:
        case spaces.Dict():
            assert list(obs) == list(space), f"keys {list(obs)}, not {list(space)}"
            for key, part in space.items():
                _assert_member(part, obs[key])
        case spaces.Tuple():
            assert isinstance(obs, tuple), obs
            for part, value in zip(space, obs, strict=True):
                _assert_member(part, value)
        case spaces.Box():
            assert obs.shape == (N_ENVS, *space.shape), f"observation {list(obs.shape)} for {space}"
            assert obs.dtype == (torch.uint8 if space.dtype == np.uint8 else torch.float32), obs.dtype
            values = obs.cpu().double().numpy()
            slack = 1e-6 * np.maximum(1.0, np.abs(values))
            inside = (values >= space.low - slack) & (values <= space.high + slack)
            assert inside.all(), f"observation {values[~inside]} outside {space}"
        case spaces.Discrete():
            assert (obs.dtype, obs.shape) == (torch.int64, (N_ENVS,)), f"observation {obs} for {space}"
            assert ((obs >= 0) & (obs < space.n)).all(), f"observation {obs} outside {space}"
        case spaces.MultiDiscrete():
            assert (obs.dtype, obs.shape) == (torch.int64, (N_ENVS, *space.shape)), f"{obs} for {space}"
            assert (obs >= 0).all(), obs
            assert (obs.cpu().numpy() < space.nvec).all(), obs
        case spaces.MultiBinary():
            assert (obs.dtype, obs.shape) == (torch.float32, (N_ENVS, *space.shape)), f"{obs} for {space}"
            assert ((obs == 0) | (obs == 1)).all(), obs
        case _:
            raise AssertionError(f"no check for {space}")


def _where(choose: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(choose.reshape(-1, *(1 for _ in a.shape[1:])), a, b)


def _global_generators() -> tuple[Any, ...]:
    """The states of the generators nobody may use."""
    numbers = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), numbers["key"].tolist(), numbers["pos"]
