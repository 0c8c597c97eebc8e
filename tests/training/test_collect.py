"""Trajectories against environments whose every number is known: borders, endings, reset rows, padding,
counts."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from pgrad.data import Episodes, Steps, Trajectory, join, leaves, map_tree, pad
from pgrad.data.sequence import without_memory
from pgrad.errors import TrainingError, UsageError, WorldError
from pgrad.math.distributions import Categorical, Gaussian
from pgrad.models import Agent, AgentSpec, build_agent
from pgrad.training import collect, endless
from pgrad.training.collect import Collector
from pgrad.worlds import World, make
from tests.worlds.fakes import BOTH, TERMINATED, TRUNCATED, StructuredEnv, counting_factory

LENGTHS, ENDINGS = (3, 1, 5, 2), (TERMINATED, TRUNCATED, BOTH)
N_ENVS = 3


def collector(world: World, seed: int = 0, agent: Any = None) -> Collector:
    generator = Generator().manual_seed(seed)
    made = build_agent(
        world.observation_space,
        world.action_space,
        agent or AgentSpec(net_arch=(4,)),
        gamma=0.9,
        critic="value",
        generator=generator,
    )
    return Collector(world, made, Generator().manual_seed(seed + 1))


def counting(
    lengths: Sequence[int] = LENGTHS,
    n_envs: int = N_ENVS,
    limit: int | None = None,
    shuffled: bool = False,
) -> Collector:
    return collector(make(counting_factory(lengths, ENDINGS, limit, shuffled), n_envs=n_envs, seed=1))


def copied(traj: Trajectory) -> Trajectory:
    return map_tree(torch.clone, traj)


def columns(windows: Sequence[Trajectory]) -> Iterator[list[dict[str, Any]]]:
    """All rows of each environment, one after another, with the observation that followed."""
    for i in range(windows[0].reward.shape[1]):
        rows = []
        for traj in windows:
            for t in range(len(traj.reward)):
                flat = {
                    key: getattr(traj, key)[t, i].item() for key in ("reward", "terminated", "done", "mask")
                }
                obs, after = traj.obs[t, i, 1:].tolist(), traj.obs[t + 1, i, 1:].tolist()
                rows.append(flat | {"obs": obs, "after": after, "action": traj.action[t, i].item()})
        yield rows


@pytest.mark.parametrize("window", [1, 2, 3, 7])
@pytest.mark.parametrize("limit", [None, 2])
def test_every_row_of_a_window(window: int, limit: int | None) -> None:
    """Row by row: the decision, its reward, how it ended, the true successor, and the row that only
    resets."""
    c = counting(limit=limit)
    windows = [copied(c.collect(Steps(window))) for _ in range(42 // window)]
    for before, after in pairwise(windows):
        assert torch.equal(before.obs[-1], after.obs[0]), "a window begins where the last one stopped"
    endings = set()
    for rows in columns(windows):
        episode = t = 0
        ended = False
        last_action = -1
        for row in rows:
            if ended:
                assert (row["mask"], row["done"], row["terminated"], row["reward"]) == (0.0, True, False, 0.0)
                episode, t, ended, last_action = episode + 1, 0, False, -1
                assert row["after"] == [episode, 0, -1]
                continue
            assert row["obs"] == [episode, t, last_action]
            t, last_action = t + 1, row["action"]
            length, ending = LENGTHS[episode % len(LENGTHS)], ENDINGS[episode % len(ENDINGS)]
            over = ending if t == length else TRUNCATED if t == limit else None
            assert row["reward"] == 1000 * episode + 10 * t + row["action"]
            assert row["terminated"] == (over in (TERMINATED, BOTH))
            assert row["done"] == (over is not None)
            assert row["mask"] == 1.0
            assert row["after"] == [episode, t, row["action"]], "the successor is the true one, at an end too"
            ended = over is not None
            endings.add((over, row["terminated"]))
        assert episode > 5
    assert (TRUNCATED, False) in endings


@pytest.mark.parametrize("window", [1, 4, 9])
def test_returns_and_lengths_are_the_truth(window: int) -> None:
    """In the order in which episodes ended, across the borders of windows; the last 100 make the means."""
    c = counting()
    windows = [copied(c.collect(Steps(window))) for _ in range(180 // window)]
    truth = []
    for i, rows in enumerate(columns(windows)):
        total, length = 0.0, 0
        for t, row in enumerate(rows):
            total, length = total + row["reward"], length + int(row["mask"])
            if row["done"] and row["mask"]:
                truth.append((t // window, t, i, total, length))
                total, length = 0.0, 0
    truth.sort()
    assert len(truth) > 110
    assert c.episodes.finished == len(truth)
    assert list(c.episodes.returns) == [x[3] for x in truth[-100:]]
    assert list(c.episodes.lengths) == [x[4] for x in truth[-100:]]
    metrics = c.episodes.metrics()
    assert metrics["rollout/ep_rew_mean"] == pytest.approx(np.mean([x[3] for x in truth[-100:]]))
    assert metrics["rollout/ep_len_mean"] == pytest.approx(np.mean([x[4] for x in truth[-100:]]))


@pytest.mark.parametrize("n_envs", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [1, 3, 7])
@pytest.mark.parametrize("shuffled", [False, True])
def test_whole_episodes(n: int, n_envs: int, shuffled: bool) -> None:
    """Each column is one episode from its first observation to its end, then padding; for any N and number
    of worlds."""
    c = counting(n_envs=n_envs, shuffled=shuffled)  # then episodes side by side differ in length
    for _ in range(3):
        traj = c.collect(Episodes(n))
        T, N = traj.reward.shape
        assert n == N
        lengths = traj.mask.sum(0)
        assert lengths.max() == T, "padded to the longest, no further"
        for i in range(N):
            k = int(lengths[i])
            episode = int(traj.obs[0, i, 1])
            assert k == LENGTHS[episode % len(LENGTHS)]
            ending = ENDINGS[episode % len(ENDINGS)]
            assert traj.mask[:, i].tolist() == [1.0] * k + [0.0] * (T - k)
            assert traj.done[:, i].tolist() == [False] * (k - 1) + [True] * (T - k + 1)
            assert traj.terminated[:, i].tolist() == [False] * (k - 1) + [ending != TRUNCATED] + [False] * (
                T - k
            )
            assert traj.obs[: k + 1, i, 1].tolist() == [episode] * (k + 1)
            assert traj.obs[: k + 1, i, 2].tolist() == list(range(k + 1))
            actions = traj.action[:k, i]
            assert traj.obs[: k + 1, i, 3].tolist() == [-1, *actions.tolist()]
            rewards = 1000 * episode + 10 * torch.arange(1, k + 1) + actions
            assert torch.equal(traj.reward[:k, i], rewards.float())
            assert not traj.reward[k:, i].any()


def test_whole_episodes_are_counted_once() -> None:
    c = counting()
    trajs = [copied(c.collect(Episodes(4))) for _ in range(5)]
    assert c.episodes.finished == 20
    assert list(c.episodes.returns) != []
    assert sorted(c.episodes.returns) == sorted(x for traj in trajs for x in traj.reward.sum(0).tolist())
    assert sorted(c.episodes.lengths) == sorted(int(x) for traj in trajs for x in traj.mask.sum(0).tolist())


def test_short_episodes_are_not_favoured() -> None:
    """Of two worlds with episodes of 1 and 9 steps each gives half of the columns, however fast it is."""
    envs = iter([counting_factory((1,), (TERMINATED,)), counting_factory((9,), (TERMINATED,))])
    c = collector(make(lambda: next(envs)(), n_envs=2, seed=0))
    assert sorted(c.collect(Episodes(6)).mask.sum(0).tolist()) == [1.0] * 3 + [9.0] * 3


def test_log_probabilities_are_those_of_the_stored_actions() -> None:
    c = collector(make("pendulum", n_envs=4, seed=0))
    for request in (Steps(6), Episodes(2)):
        traj = c.collect(request)
        with torch.no_grad():
            logp = c.agent.policy(traj.decisions).log_prob(traj.action)
        assert torch.allclose(logp, traj.logp, atol=1e-5)
        assert traj.logp.dtype == torch.float32


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_acting_clips_normalised_observations(memory: Any) -> None:
    """Hundreds of deviations from the mean count as ten, to what acts in the world as to what learns."""
    spec = AgentSpec(net_arch=(8,), activation="relu", normalize_obs=True, memory=memory, memory_size=4)
    c = collector(make("pendulum", n_envs=2, seed=0), agent=spec)
    assert c.agent.normalizer is not None
    c.agent.normalizer.update(1e-3 * torch.randn(50, 3, generator=Generator().manual_seed(0)), torch.ones(50))
    traj = c.collect(Steps(4))
    assert c.agent.normalizer.moments is not None
    plain = without_memory(traj.decisions)
    assert ((plain - c.agent.normalizer.moments.shift) * c.agent.normalizer.moments.scale).abs().max() > 100
    logp = c.agent.policy(traj.decisions).log_prob(traj.action)
    torch.testing.assert_close(traj.logp, logp, rtol=1e-4, atol=1e-4)


def test_actions_are_stored_as_sampled_and_clipped_for_the_world() -> None:
    """StructuredEnv shows the move that reached it: within the bounds, which the stored one left."""
    c = collector(make(StructuredEnv, n_envs=4, seed=0))
    traj = c.collect(Steps(30))
    stored, shown = traj.action["move"][0], traj.obs["pair"][1][1:]
    on = traj.mask > 0
    assert (stored[on] > 0.5).any()
    assert (stored[on] < -1.0).any()
    assert torch.equal(stored.clamp(-1.0, 0.5)[on], shown[on])
    assert traj.obs["image"].dtype == torch.uint8
    assert traj.obs["place"].dtype == torch.int64


def test_storage_is_reused_and_rows_are_copies() -> None:
    c = counting()
    first = c.collect(Steps(5))
    kept = copied(first)
    second = c.collect(Steps(5))
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(leaves(first), leaves(second), strict=True))
    assert not torch.equal(kept.obs, second.obs)
    assert len(c.collect(Steps(3)).reward) == 3, "and made anew for a window of another length"


@pytest.mark.parametrize("request_", [Steps(4), Episodes(4)])
def test_only_the_acting_generator_is_consumed(request_: Any) -> None:
    c = collector(make("cartpole", n_envs=3, seed=0))
    c.collect(request_)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    acting = c.generator.get_state()
    c.collect(request_)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert not torch.equal(acting, c.generator.get_state())


@pytest.mark.parametrize("requests", [(Steps(4), Steps(4)), (Episodes(4), Episodes(5)), (Steps(3), Steps(7))])
@pytest.mark.parametrize("world", ["cartpole", "CartPole-v1"])
def test_a_collector_goes_on_from_its_state(world: str, requests: tuple[Any, Any]) -> None:
    """Bit for bit, in mid-episode, in a new world with another agent generator."""
    one = collector(make(world, n_envs=3, seed=0))
    for _ in range(3):
        one.collect(requests[0])
    state = map_tree(lambda x: x.clone() if isinstance(x, Tensor) else x, one.state_dict())
    truth = copied(one.collect(requests[1]))
    other = collector(make(world, n_envs=3, seed=9), seed=0)
    other.generator.manual_seed(99)
    other.load_state_dict(state)
    again = other.collect(requests[1])
    for a, b in zip(leaves(truth), leaves(again), strict=True):
        assert torch.equal(a, b)
    assert one.episodes.state_dict()["returns"] == other.episodes.state_dict()["returns"]


class Broken(nn.Module):
    """A policy that turns into NaN after a few steps."""

    def __init__(self, discrete: bool) -> None:
        super().__init__()
        self.discrete, self.calls = discrete, 0
        self.weight = nn.Parameter(torch.ones(1))

    def policy(self, obs: Tensor) -> Any:
        self.calls += 1
        x = obs[..., :2] * (torch.nan if self.calls > 3 else 0.0)
        return Categorical(x) if self.discrete else Gaussian(x[..., :1], torch.zeros_like(x[..., :1]))

    def value(self, obs: Tensor) -> Tensor:
        return obs[..., 0]


@pytest.mark.parametrize("request_", [Steps(8), Episodes(2)])
@pytest.mark.parametrize("world", ["cartpole", "CartPole-v1", "pendulum", "Pendulum-v1"])
def test_a_policy_of_nan_is_the_policys_fault(world: str, request_: Any) -> None:
    c = collector(make(world, n_envs=2, seed=0), agent=Broken("art" in world.lower()))
    with pytest.raises(TrainingError, match=r"log-probability that is not finite \(NaN or infinite\)"):
        c.collect(request_)


def test_a_world_that_breaks_is_the_worlds_fault() -> None:
    class Breaks(gymnasium.Env[Any, Any]):
        observation_space, action_space = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            return np.zeros(2, np.float32), {}

        def step(self, action: Any) -> Any:
            return np.zeros(2, np.float32), float("nan"), False, False, {}

    for request in (Steps(2), Episodes(1)):
        with pytest.raises(WorldError, match="reward"):
            collector(make(Breaks, n_envs=2)).collect(request)


def test_episodes_without_an_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (collect, endless):
        monkeypatch.setattr(module, "LONG", 20)
    monkeypatch.setattr(endless, "LONGEST", 30)
    with (
        pytest.raises(UsageError, match="no end to an episode of CountingEnv in 30 steps: add a time limit"),
        pytest.warns(UserWarning, match="no episode of CountingEnv has ended after 20 steps") as told,
    ):
        counting(lengths=(1000,)).collect(Episodes(1))
    assert len(told) == 1
    assert counting(lengths=(3, 25), n_envs=1).collect(Episodes(2)).mask.sum(0).tolist() == [3.0, 25.0]


def test_padding_and_joining() -> None:
    """Padding repeats the last observation and weighs nothing; columns keep their order."""
    flags = torch.tensor([[False], [True]])
    numbers = torch.tensor([[1.0], [2.0]])
    obs = {"x": torch.tensor([[5], [6], [7]])}
    traj = Trajectory(obs, numbers, numbers, numbers, flags, flags, torch.ones(2, 1))
    padded = pad(traj, 4)
    assert padded.obs["x"][:, 0].tolist() == [5, 6, 7, 7, 7]
    assert padded.reward[:, 0].tolist() == [1, 2, 0, 0]
    assert padded.mask[:, 0].tolist() == [1, 1, 0, 0]
    assert padded.done[:, 0].tolist() == [False, True, True, True]
    assert padded.terminated[:, 0].tolist() == [False, True, False, False]
    assert pad(traj, 2) is traj
    both = join([padded, padded])
    assert both.obs["x"].shape == (5, 2)
    assert both.mask.tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]


def test_no_critic_is_asked_for() -> None:
    c = counting()
    assert isinstance(c.agent, Agent)
    c.agent.network.critic = None
    c.collect(Steps(2))
    c.collect(Episodes(2))
