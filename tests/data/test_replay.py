"""The ring against a list of rows: what is drawn, what follows what, what is saved, how much it weighs."""

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from pgrad.data import Masked, Replay, Trajectory, leaves
from pgrad.errors import UsageError
from pgrad.training.disk.checkpoint import load_checkpoint, save_checkpoint


def stream(B: int, T: int, first: int = 0, image: bool = False) -> Trajectory:
    """T rows that go on from row `first`: every number tells its row and its column."""
    row, column = torch.arange(first, first + T + 1).unsqueeze(1), torch.arange(B)
    tag = (100 * row + column).float()
    now = tag[:-1]
    obs: Any = {"x": torch.stack([tag, -tag], -1), "n": (100 * row + column).expand(T + 1, B)}
    if image:
        obs["image"] = tag.to(torch.uint8).view(T + 1, B, 1, 1, 1).expand(T + 1, B, 2, 2, 1)
    done = row[:-1].expand(T, B) % 5 == 4
    return Trajectory(
        Masked(obs, tag.unsqueeze(-1) % 2 == 0),
        (now.unsqueeze(-1), now.long()),
        logp=now + 0.25,
        reward=now + 0.5,
        terminated=done & (column % 2 == 0),
        done=done,
        mask=(row[:-1].expand(T, B) % 5 != 0).float(),
    )


def filled(replay: Replay, B: int, windows: list[int], **kinds: Any) -> int:
    """Add windows of these lengths, one after the other; returns the number of rows."""
    first = 0
    for T in windows:
        replay.add(stream(B, T, first, **kinds))
        first += T
    return first


WINDOWS = ([4], [3, 3, 3], [1] * 7, [4, 1, 3, 2, 4, 4, 1, 1, 5], [6, 6, 6, 6])


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("B", [1, 3])
def test_transitions_are_the_last_rows_and_their_true_successors(B: int, windows: list[int]) -> None:
    """Before the ring is full, when it just is, and long after; every stored decision comes up."""
    replay = Replay(7 * B + B // 2)  # whole rows: 7
    total = filled(replay, B, windows)
    kept = range(max(0, total - 7), total)
    assert len(replay) == len(kept) * B
    drawn = replay.transitions(3000, Generator().manual_seed(0))
    row, column = drawn.obs.obs["n"] // 100, drawn.obs.obs["n"] % 100
    assert sorted(set(drawn.obs.obs["n"].tolist())) == [100 * r + c for r in kept for c in range(B)]
    tag = (100 * row + column).float()
    assert torch.equal(drawn.obs.obs["x"], torch.stack([tag, -tag], -1))
    assert torch.equal(drawn.obs.allowed[:, 0], tag % 2 == 0)
    assert torch.equal(drawn.next_obs.obs["n"], 100 * (row + 1) + column)
    assert torch.equal(drawn.next_obs.obs["x"][:, 0], tag + 100)
    assert torch.equal(drawn.action[0][:, 0], tag)
    assert torch.equal(drawn.action[1], tag.long())
    assert torch.equal(drawn.logp, tag + 0.25)
    assert torch.equal(drawn.reward, tag + 0.5)
    assert torch.equal(drawn.terminated, (row % 5 == 4) & (column % 2 == 0))
    assert torch.equal(drawn.mask, (row % 5 != 0).float())


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("length", [1, 3, 4])
def test_windows_are_runs_of_rows(windows: list[int], length: int) -> None:
    """Never across the place where the ring is cut; each of the possible starts comes up."""
    replay = Replay(7 * 2)
    total = filled(replay, 2, windows)
    first = max(0, total - 7)
    traj = replay.windows(500, length, Generator().manual_seed(0))
    number = traj.obs.obs["n"]
    assert number.shape == (length + 1, 500)
    assert torch.equal(number[1:] - number[:-1], torch.full((length, 500), 100))
    starts = set((number[0] // 100).tolist())
    assert starts == set(range(first, total - length + 1))
    assert torch.equal(traj.reward, number[:-1] + 0.5)
    assert torch.equal(traj.done, number[:-1] // 100 % 5 == 4)
    with pytest.raises(UsageError, match=r"windows of 8 rows were asked for, \d are stored"):
        replay.windows(1, 8, Generator())


def test_draws_are_uniform() -> None:
    replay = Replay(10)
    filled(replay, 2, [4, 4])
    drawn = replay.transitions(50_000, Generator().manual_seed(0)).obs.obs["n"]
    counts = torch.unique(drawn, return_counts=True)[1]
    assert len(counts) == 10
    assert (counts / 50_000 - 0.1).abs().max() < 0.006  # four and a half standard deviations


@pytest.mark.parametrize("windows", WINDOWS)
def test_saved_and_loaded_it_goes_on_bit_for_bit(windows: list[int], tmp_path: Any) -> None:
    """Through a file, partly filled and after wrap-around: the same draws from then on, the same state."""
    one, two = Replay(7 * 3), Replay(7 * 3)
    total = filled(one, 3, windows, image=True)
    folder = save_checkpoint(tmp_path, one.state_dict(), info={"timesteps": 1})
    two.load_state_dict(load_checkpoint(folder)[0])
    assert len(two) == len(one) > 0, "before anything is added too"
    again = two.state_dict()
    assert again["rows"] == one.state_dict()["rows"]
    for T in (2, 5, 1):
        for replay in (one, two):
            replay.add(stream(3, T, total, image=True))
        total += T
        draws = [replay.transitions(200, Generator().manual_seed(T)) for replay in (one, two)]
        for x, y in zip(*map(leaves, draws), strict=True):
            assert x.dtype == y.dtype
            assert torch.equal(x, y)
    states = one.state_dict(), two.state_dict()
    assert states[0].keys() == states[1].keys()
    for x, y in zip(states[0]["tensors"], states[1]["tensors"], strict=True):
        assert torch.equal(x, y)


def test_what_was_never_filled_is_not_saved() -> None:
    replay = Replay(1_000_000)
    filled(replay, 2, [4, 3])
    assert {len(x) for x in replay.state_dict()["tensors"]} == {8}


def size(tensors: list[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def test_a_million_transitions_of_halfcheetah_fit_into_300_mb() -> None:
    """17 numbers seen and 6 done, by eight environments: 106 bytes a decision, no observation twice."""
    B = 8
    traj = Trajectory(
        torch.zeros(2, B, 17),
        torch.zeros(1, B, 6),
        *(torch.zeros(1, B) for _ in range(2)),
        *(torch.zeros(1, B, dtype=torch.bool) for _ in range(2)),
        torch.zeros(1, B),
    )
    replay = Replay(1_000_000)
    replay.add(traj)
    stored = replay._storage
    assert stored is not None
    whole = size(list(leaves(stored)))
    assert replay.slots * B >= 1_000_000
    assert whole == 106 * (1_000_000 + B)
    assert whole < 300e6


def test_storage_stays_where_it_is_and_is_no_part_of_what_comes_in() -> None:
    """Allocated once; the window it came from may be overwritten, as a collector does."""
    replay = Replay(20)
    traj = stream(2, 3)
    replay.add(traj)
    places = [x.data_ptr() for x in leaves(replay._storage)]
    before = replay.transitions(50, Generator().manual_seed(0))
    for x in (traj.reward, traj.logp, traj.mask, traj.action[0], traj.obs.obs["x"]):
        x.zero_()
    after = replay.transitions(50, Generator().manual_seed(0))
    assert all(torch.equal(x, y) for x, y in zip(leaves(before), leaves(after), strict=True))
    for first in range(3, 60, 3):
        replay.add(stream(2, 3, first))
    assert places == [x.data_ptr() for x in leaves(replay._storage)]


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(UsageError, match="nothing has been stored in the replay yet"):
        Replay(10).transitions(1, Generator())
    with pytest.raises(UsageError, match="a replay of 3 decisions is less than two rows of 2 environments"):
        Replay(3).add(stream(2, 1))
    with pytest.raises(UsageError, match="a window of 6 steps does not fit into a replay of 5 rows"):
        Replay(10).add(stream(2, 6))
    assert len(Replay(10)) == 0
