"""Returns and lengths of episodes against one loop per environment, however the rows are cut into windows."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from pgrad.data import Trajectory
from pgrad.training.episodes import EpisodeStatistics


def stream(seed: int, T: int, B: int) -> Trajectory:
    """T rows of B environments with reset rows; rewards are whole numbers, so that sums are exact."""
    draw = torch.Generator().manual_seed(seed)
    reward = torch.randint(-9, 9, (T, B), generator=draw).float()
    done, mask = torch.zeros(T, B, dtype=torch.bool), torch.ones(T, B)
    reset = torch.zeros(B, dtype=torch.bool)
    for t in range(T):
        over = torch.rand(B, generator=draw) < 0.3
        mask[t, reset], reward[t, reset] = 0.0, 0.0
        done[t] = over | reset
        reset = over & ~reset
    return Trajectory(torch.zeros(T + 1, B), reward, reward, reward, done & (mask > 0), done, mask)


def cut(traj: Trajectory, start: int, stop: int) -> Trajectory:
    rows = slice(start, stop)
    parts = [x[rows] for x in (traj.action, traj.logp, traj.reward, traj.terminated, traj.done, traj.mask)]
    return Trajectory(traj.obs[start : stop + 1], *parts)


def by_hand(traj: Trajectory) -> list[tuple[float, int]]:
    T, B = traj.reward.shape
    total, length = [0.0] * B, [0] * B
    out = []
    for t in range(T):
        for i in range(B):
            if traj.mask[t, i]:
                total[i], length[i] = total[i] + float(traj.reward[t, i]), length[i] + 1
            if traj.done[t, i]:
                if traj.mask[t, i]:
                    out.append((total[i], length[i]))
                total[i], length[i] = 0.0, 0
    return out


@given(st.integers(0, 10**6), st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 4))
def test_however_the_rows_are_cut(seed: int, windows: list[int], B: int) -> None:
    traj = stream(seed, sum(windows), B)
    statistics = EpisodeStatistics()
    start = 0
    for n in windows:
        statistics.update(cut(traj, start, start + n))
        start += n
    truth = by_hand(traj)
    assert list(zip(statistics.returns, statistics.lengths, strict=True)) == truth[-100:]
    assert statistics.finished == len(truth)


def test_rewards_of_the_trajectory_are_left_alone() -> None:
    traj = stream(0, 12, 3)
    before = traj.reward.clone()
    statistics = EpisodeStatistics()
    statistics.update(cut(traj, 0, 5))
    statistics.update(cut(traj, 5, 12))
    assert torch.equal(traj.reward, before)


def test_nothing_is_reported_before_an_episode_ended() -> None:
    assert EpisodeStatistics().metrics() == {}


def test_the_state_holds_unfinished_episodes() -> None:
    """Half, saved, put back, the other half: the whole."""
    traj = stream(3, 40, 4)
    whole, half, rest = EpisodeStatistics(), EpisodeStatistics(), EpisodeStatistics()
    whole.update(traj)
    half.update(cut(traj, 0, 17))
    rest.load_state_dict(half.state_dict())
    rest.update(cut(traj, 17, 40))
    assert whole.returns == rest.returns
    assert whole.lengths == rest.lengths
    assert whole.finished == rest.finished
    assert whole.metrics() == rest.metrics()
