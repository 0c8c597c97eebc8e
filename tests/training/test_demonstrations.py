"""Recordings: what was done comes back to the last bit, damage is told, sequences are what they say."""

from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import pgrad as pg
from pgrad.data import Demonstrations, Masked, Trajectory, leaves, map_tree
from pgrad.data.sequence import Sequence
from pgrad.errors import CheckpointError, UsageError
from pgrad.models import AgentSpec, build_agent
from pgrad.training.demonstrator import Demonstrator, action_zeros
from pgrad.training.disk.demonstrations import FACTS, Recording, load_demonstrations, save_demonstrations
from pgrad.training.streams import generator
from tests.models.spaces import ACTIONS

LENGTHS = (3, 1, 5, 2)
T, B = max(LENGTHS), len(LENGTHS)


class Place:
    """The spaces of a world, of which nothing else is asked."""

    name = "place"
    observation_space = spaces.Dict({"n": spaces.Discrete(9), "x": spaces.Box(-9.0, 9.0, (2,))})
    action_space = spaces.Tuple((spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2, 2))))


def episodes(masked: bool = False) -> Trajectory:
    """Columns of LENGTHS decisions; each number tells its row and column."""
    place = torch.arange(T + 1).unsqueeze(1) + 100 * torch.arange(B)
    mask = (torch.arange(T).unsqueeze(1) < torch.tensor(LENGTHS)).float()
    done = torch.arange(T).unsqueeze(1) >= torch.tensor(LENGTHS) - 1
    obs: Any = {"n": place % 9, "x": torch.stack([place, -place], -1).float()}
    if masked:
        obs = Masked(obs, torch.stack([place % 2 == 0, place >= 0, place >= 0], -1))
    action = (place[:T] % 3, place[:T, :, None].expand(T, B, 4) / 1000.0)
    return Trajectory(obs, action, -place[:T] / 7.0, place[:T] * mask, done & (place[:T] % 2 > 0), done, mask)


def saved(path: Path, masked: bool = False) -> Recording:
    save_demonstrations(path, episodes(masked), {"world": "place"})
    return load_demonstrations(path)


@pytest.mark.parametrize("masked", [False, True])
def test_what_was_done_comes_back(masked: bool, tmp_path: Path) -> None:
    """Row by row: the decisions of each episode, then its last observation on a row of weight 0."""
    traj, recording = episodes(masked), saved(tmp_path / "d", masked)
    assert recording.lengths == LENGTHS
    assert recording.info["returns"] == [
        sum(row + 100 * k for row in range(n)) for k, n in enumerate(LENGTHS)
    ]
    obs = traj.obs.obs if masked else traj.obs
    rows = [(t, k) for k, n in enumerate(LENGTHS) for t in range(n + 1)]
    for r, (t, k) in enumerate(rows):
        for mine, theirs in zip(recording.obs, leaves(obs), strict=True):
            assert torch.equal(mine[r], theirs[t, k])
        if masked:
            assert recording.allowed is not None
            assert torch.equal(recording.allowed[r], traj.obs.allowed[t, k])
        decision = t < LENGTHS[k]
        assert recording.facts["mask"][r] == float(decision)
        assert bool(recording.facts["done"][r]) == (t >= LENGTHS[k] - 1)
        if decision:
            for mine, theirs in zip(recording.action, leaves(traj.action), strict=True):
                assert torch.equal(mine[r], theirs[t, k])
            assert all(recording.facts[name][r] == getattr(traj, name)[t, k] for name in FACTS)


def test_every_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "d"
    saved(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError) as error:
            load_demonstrations(path)
        assert "\n" not in str(error.value)
    for size in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            load_demonstrations(path)
    path.write_bytes(whole)
    assert load_demonstrations(path).lengths == LENGTHS


def test_files_that_are_there_or_not(tmp_path: Path) -> None:
    saved(tmp_path / "d")
    with pytest.raises(UsageError, match="exists already"):
        saved(tmp_path / "d")
    with pytest.raises(UsageError, match="there is no recording at"):
        load_demonstrations(tmp_path / "e")
    with pytest.raises(UsageError, match="cannot write"):
        saved(tmp_path / "d" / "below")
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def agent_for(place: Any, **spec: Any) -> Any:
    return build_agent(
        place.observation_space,
        place.action_space,
        AgentSpec(net_arch=(4,), **spec),
        gamma=1.0,
        critic="none",
        generator=generator(0),
    )


def demonstrator(recording: Recording, request: Demonstrations, seed: int = 0, **spec: Any) -> Demonstrator:
    place: Any = Place()
    return Demonstrator(request, recording, place, agent_for(place, **spec), generator(seed))


def places(x: Tensor) -> list[int]:
    return [int(n) for n in x.flatten()]


def test_passes_bring_every_decision_once_and_none_that_is_held_out(tmp_path: Path) -> None:
    request = Demonstrations("d", 4, 1, 0.25)
    source = demonstrator(saved(tmp_path / "d"), request)
    held = {place // 100 for place in places(source.episodes.traj.decisions["x"][..., 0])}
    assert len(held) == 1
    kept = [t + 100 * k for k, n in enumerate(LENGTHS) if k not in held for t in range(n)]
    seen: list[int] = []
    orders = []
    for _ in range(len(kept)):  # whole passes: four batches of each
        traj = source.collect(request)
        assert traj.mask.shape == (1, 4)
        assert (traj.mask == 1.0).all()
        seen += places(traj.decisions["x"][..., 0])
        assert torch.equal(traj.obs["x"][1, :, 0] - traj.obs["x"][0, :, 0], torch.ones(4)), (
            "the true successor"
        )
    for first in range(0, len(seen), len(kept)):
        orders.append(seen[first : first + len(kept)])
        assert sorted(orders[-1]) == kept
    assert len({tuple(order) for order in orders}) > 1, "shuffled anew"
    assert (source.episodes.traj.mask == 1.0).all()


def test_sequences_for_an_agent_with_a_memory(tmp_path: Path) -> None:
    """Whole rows in their order; the memory begins empty at the first row and wherever an episode begins."""
    request = Demonstrations("d", 2, 5, 0.0)
    source = demonstrator(saved(tmp_path / "d"), request, memory="gru")
    traj = source.collect(request)
    seen = traj.obs
    assert isinstance(seen, Sequence)
    assert traj.mask.shape == (5, 2)
    assert seen.start[0].all()
    assert torch.equal(seen.start[1:], traj.mask == 0), "after the row that resets"
    assert all((x == 0.0).all() and len(x) == 6 for x in leaves(seen.state))
    whole = [(t + 100 * k, t < n) for k, n in enumerate(LENGTHS) for t in range(n + 1)]
    windows = {tuple(whole[first : first + 5]) for first in (0, 5, 10)}
    for column in range(2):
        x, weight = places(seen.obs["x"][:5, column, 0]), places(traj.mask[:, column])
        assert tuple(zip(x, map(bool, weight), strict=True)) in windows
    with pytest.raises(UsageError, match="an agent with a memory learns from sequences: set n_steps"):
        demonstrator(saved(tmp_path / "e"), Demonstrations("e", 4, 1, 0.0), memory="gru")


def test_the_state_continues_a_pass(tmp_path: Path) -> None:
    request, recording = Demonstrations("d", 3, 1, 0.0), saved(tmp_path / "d")
    first, second = demonstrator(recording, request, 5), demonstrator(recording, request, 5)
    for _ in range(5):
        first.collect(request)
    second.load_state_dict(first.state_dict())
    for _ in range(9):
        for mine, theirs in zip(leaves(first.collect(request)), leaves(second.collect(request)), strict=True):
            assert torch.equal(mine, theirs)
    other = load_demonstrations(tmp_path / "d")
    with pytest.raises(CheckpointError, match="d is not the recording that this run was started with"):
        demonstrator(other, request).load_state_dict(first.state_dict() | {"sha256": "another"})


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    recording, request = saved(tmp_path / "d", masked=True), Demonstrations("d", 4, 1, 0.0)
    cases = {
        "observation_space": (
            spaces.Box(-1, 1, (3,)),
            r"observations in d are int64 \[\], .*; those of place",
        ),
        "action_space": (spaces.Discrete(2), r"actions in d are int64 \[\], float32 \[4\]; those of place"),
    }
    for name, (space, what) in cases.items():
        place: Any = Place()
        setattr(place, name, space)
        with pytest.raises(UsageError, match=what):
            Demonstrator(request, recording, place, agent_for(place), generator(0))
    place = Place()
    place.action_space = spaces.Tuple((spaces.Discrete(4), spaces.Box(-1.0, 1.0, (2, 2))))
    with pytest.raises(UsageError, match="the action masks in d do not fit"):
        Demonstrator(request, recording, place, agent_for(place), generator(0))
    with pytest.raises(UsageError, match="d has no sequence of 20 rows"):
        demonstrator(recording, Demonstrations("d", 1, 20, 0.0))


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_have_the_form_that_policies_give_them(name: str) -> None:
    place: Any = Place()
    place.action_space = ACTIONS[name]
    agent = agent_for(place)
    obs = map_tree(lambda x: x[0, :1], episodes().obs)
    action = agent.policy(obs).sample(generator(0))
    forms = [[(x.shape, x.dtype) for x in leaves(tree)] for tree in (action, action_zeros(ACTIONS[name]))]
    assert forms[0] == forms[1]


def test_recordings_of_an_agent(tmp_path: Path) -> None:
    """The episodes that `evaluate` sees, with true returns and the agent's own choices, replayable."""
    for memory in ("none", "gru"):
        agent = AgentSpec(net_arch=(8,), memory=memory)  # type: ignore[arg-type]
        run = pg.train(pg.A2C(), "cartpole", total_timesteps=80, n_envs=2, agent=agent)
        recording = run.demonstrate(tmp_path / memory, episodes=3, n_envs=3)
        result = run.evaluate(3, n_envs=3)
        assert recording.info["returns"] == list(result.returns)
        assert recording.lengths == result.lengths
        assert [tuple(x.shape[1:]) for x in recording.obs] == [(4,)], "without the demonstrator's memory"
        if memory == "none":
            decisions = recording.facts["mask"] > 0
            policy = run.agent.policy(recording.obs[0][decisions])
            assert torch.equal(policy.mode, recording.action[0][decisions])
            torch.testing.assert_close(
                policy.log_prob(policy.mode), recording.facts["logp"][decisions], rtol=1e-5, atol=1e-6
            )
