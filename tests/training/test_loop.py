"""One iteration and the loop around it: counts, the order of things, what is frozen when, and unsound runs
that stop."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pgrad as pg
from pgrad.algorithms.protocol import Metrics
from pgrad.data import Steps, Trajectory, map_tree
from pgrad.models import Agent
from pgrad.stopping import Stop
from pgrad.training.loop import Training, run
from pgrad.training.reports import Averages, Every
from pgrad.training.stages import Stages
from pgrad.training.streams import Seeds
from tests.training.tools import training
from tests.worlds.fakes import TERMINATED, TRUNCATED, counting_factory


class Spy(pg.A2C):
    """A2C that keeps what it is given, and the agent's statistics at that time."""

    seen: list[tuple[Trajectory, dict[str, Tensor]]]

    def update(self, learner: Any, traj: Trajectory) -> Metrics:
        statistics = {
            name: x.clone()
            for name, x in learner.agent.state_dict().items()
            if "normalizer" in name or "scaler" in name
        }
        self.seen.append((map_tree(torch.clone, traj), statistics))
        return super().update(learner, traj)


def spied(world: Any, iterations: int, n_steps: int = 8, **kwargs: Any) -> tuple[Training, Spy]:
    spy = Spy(n_steps=n_steps, gamma=0.9)
    object.__setattr__(spy, "seen", [])
    made = training(spy, world, **kwargs)
    for _ in range(iterations):
        made.iterate()
    return made, spy


WORLD = counting_factory((3, 1, 5), (TERMINATED, TRUNCATED))


def test_timesteps_are_decisions_and_not_rows() -> None:
    """Neither reset rows nor padding count; iterations do."""
    made, spy = spied(WORLD, 5)
    rows = sum(traj.mask.numel() for traj, _ in spy.seen)
    assert made.timesteps == sum(int(traj.mask.sum()) for traj, _ in spy.seen) < rows
    assert made.iterations == 5
    whole = training(pg.Reinforce(n_episodes=3), WORLD)
    whole.iterate()
    assert whole.timesteps == sum(whole.collector.episodes.lengths)


def test_windows_of_reset_rows_only_are_passed_over() -> None:
    """Online, one environment, episodes of one step: every second window has no decision, no update and no
    count."""
    made = training(
        pg.ActorCritic(n_steps=1, n_critic_updates=1), counting_factory((1,), (TERMINATED,)), n_envs=1
    )
    metrics = [made.iterate() for _ in range(6)]
    assert [bool(x) for x in metrics] == [True, False] * 3
    assert (made.timesteps, made.iterations, made.learner.n_updates) == (3, 3, 6)


def test_observations_normalised_by_what_was_seen_before() -> None:
    """The statistics of an update are those of all earlier windows: frozen while acting and learning."""
    made, spy = spied(WORLD, 4)
    decisions: list[np.ndarray] = []
    for traj, statistics in spy.seen:
        count = statistics["normalizer.moments.count"]
        assert count == sum(len(x) for x in decisions)
        if decisions:
            data = np.concatenate(decisions).astype(np.float64)
            assert np.allclose(statistics["normalizer.moments.mean"], data.mean(0))
            assert np.allclose(statistics["normalizer.moments.m2"] / count, data.var(0), rtol=1e-6)
        else:
            assert torch.equal(statistics["normalizer.moments.scale"], torch.ones(4)), (
                "the first window is as it is"
            )
        decisions.append(traj.decisions[traj.mask > 0].numpy())
    assert made.agent.normalizer.moments.count == made.timesteps


def test_rewards_scaled_by_what_was_seen_so_far() -> None:
    """The window's own rewards included: against one loop per environment, across windows and episode
    ends."""
    made, spy = spied(WORLD, 4)
    _, raw_spy = spied(WORLD, 4, agent=pg.AgentSpec(net_arch=(4,)))
    running, returns = [0.0, 0.0], []
    ended: list[bool] = [False, False]
    for (traj, _), (plain, _) in zip(spy.seen, raw_spy.seen, strict=True):
        rewards = traj_rewards(plain, traj)
        for t in range(8):
            for i in range(2):
                if traj.mask[t, i]:
                    running[i] = rewards[t][i] + 0.9 * (0.0 if ended[i] else running[i])
                    returns.append(running[i])
                    ended[i] = bool(traj.done[t, i])
        std = math.sqrt(np.var(returns) + 1e-8)
        expected = torch.tensor(rewards) / std
        assert torch.allclose(traj.reward, expected.clamp(-10, 10), rtol=1e-4)
    assert made.collector.episodes.returns[0] > 30, "what is reported are raw returns"
    assert raw_spy.seen[0][0].reward.max() > 10


def traj_rewards(plain: Trajectory, traj: Trajectory) -> list[list[float]]:
    """1000·episode + 10·t + action, from what the observations say: other actions were taken than in
    `plain`."""
    after = traj.obs[1:]
    reward = (1000 * after[..., 1] + 10 * after[..., 2] + after[..., 3]) * traj.mask
    assert torch.equal(plain.mask, traj.mask)
    return reward.tolist()


def test_progress_and_seeds() -> None:
    made = training(pg.PPO(n_steps=8, batch_size=16, learning_rate_schedule="linear"))
    made.total_timesteps = 40
    rates = []
    while not made.finished:
        left = 1.0 - made.timesteps / 40
        rates.append((made.iterate()["train/learning_rate"], 3e-4 * left))
    assert [x for x, _ in rates] == pytest.approx([x for _, x in rates])
    assert made.iterations >= 3
    fields = [Seeds.spawn(s) for s in (0, 1)]
    everything = [
        getattr(f, name) for f in fields for name in ("world", "agent", "acting", "learning", "evaluation")
    ]
    assert len(set(everything)) == 10, "every stream is its own"
    assert Seeds.spawn(1) == fields[1]


def test_nothing_global_is_drawn_from() -> None:
    """Building, acting and learning leave torch's and numpy's global generators where they were."""
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for algorithm in (
        pg.PPO(n_steps=8, batch_size=8),
        pg.Reinforce(n_episodes=2),
        pg.A2C(),
        pg.ActorCritic(n_steps=4),
    ):
        made = training(algorithm)
        made.iterate()
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("frozen", ["actor", "critic"])
@pytest.mark.parametrize(
    "algorithm",
    [
        pg.A2C(),
        pg.PPO(n_steps=8, batch_size=8, n_epochs=2),
        pg.PPOKL(n_steps=8, batch_size=8, n_epochs=2),
        pg.ActorCritic(n_steps=8),
        pg.Reinforce(n_episodes=2),
    ],
)
def test_a_learning_rate_of_zero_freezes_one_network(algorithm: Any, frozen: str) -> None:
    """M-44, for every algorithm with a critic."""
    rates = {"learning_rate": 0.0 if frozen == "actor" else 0.01}
    rates["critic_learning_rate"] = 0.01 - rates["learning_rate"]
    made = training(replace(algorithm, **rates), agent=pg.AgentSpec(net_arch=(4,)))
    before = {name: p.detach().clone() for name, p in made.agent.named_parameters()}
    made.iterate()
    for name, p in made.agent.named_parameters():
        group = "critic" if "critic" in name.split(".") else "actor"
        assert torch.equal(p, before[name]) == (group == frozen), name


# ---------------------------------------------------------------- the loop


class Counted:
    """A training of which only the counts are real: 30 decisions an iteration."""

    def __init__(self, total: int) -> None:
        self.timesteps, self.iterations, self.total = 0, 0, total
        self.collector = self
        self.episodes = self
        self.averages = Averages()
        self.stages = Stages()
        self.learner, self.n_updates = self, 0
        self.untold: int | None = None

    def metrics(self) -> dict[str, float]:
        return {"rollout/ep_rew_mean": float(self.iterations)}

    def iterate(self, stop: Stop) -> dict[str, float]:
        self.timesteps, self.iterations = self.timesteps + 30, self.iterations + 1
        return {"train/loss": float(self.iterations)}

    @property
    def finished(self) -> bool:
        return self.timesteps >= self.total


def conducted(total: int, *, stop_at: int = 10**9, start: int = 0, **every: int) -> list[tuple[Any, ...]]:
    made = Counted(total)
    made.timesteps = start
    events: list[tuple[Any, ...]] = []
    settings = {"report_every": 0, "save_every": 0, "eval_every": 0} | every
    run(
        made,  # type: ignore[arg-type]
        report=lambda row: events.append(("report", made.timesteps, row["train/loss"], "eval" in row)),
        save=lambda: events.append(("save", made.timesteps)),
        evaluate=lambda: {"eval": 1.0},
        stopped=lambda: made.timesteps >= stop_at,
        **settings,
    )
    return events


def test_reports_saves_and_evaluations_come_at_their_steps() -> None:
    """After the update that passed a multiple; metrics are means since the last report; the end is reported
    once."""
    assert conducted(180, report_every=60) == [
        ("report", 60, 1.5, False),
        ("report", 120, 3.5, False),
        ("report", 180, 5.5, False),
    ]
    assert conducted(100, report_every=1000) == [("report", 120, 2.5, False)]
    assert conducted(120, report_every=1000, save_every=50) == [
        ("save", 60),
        ("report", 120, 2.5, False),
    ], "the last state is saved by the caller"
    assert conducted(120, report_every=1000, eval_every=40) == [
        ("report", 60, 1.5, True),
        ("report", 90, 3.0, True),
        ("report", 120, 4.0, True),
    ]


def test_stop_is_asked_before_every_update() -> None:
    assert conducted(300, report_every=30, stop_at=60) == [
        ("report", 30, 1.0, False),
        ("report", 60, 2.0, False),
    ]
    assert conducted(300, report_every=30, stop_at=0) == []
    assert conducted(30, start=30, report_every=30) == []


def test_every() -> None:
    every = Every(10)
    passed = [(b, a) for b, a in ((0, 9), (0, 10), (9, 11), (10, 19), (10, 35)) if every.passed(b, a)]
    assert passed == [(0, 10), (9, 11), (10, 35)]
    assert not Every(0).passed(0, 10**9)


def test_averages() -> None:
    averages = Averages()
    for row in ({"a": 1.0}, {"a": 3.0, "b": 5.0}, {}):
        averages.add(row)
    assert averages.take() == {"a": 2.0, "b": 5.0}
    assert averages.take() == {}


@pytest.mark.parametrize("request_", [Steps(8)])
def test_the_agent_learns_from_the_window_it_acted_in(request_: Steps) -> None:
    """Nothing is kept from one update to the next: the batch of an update holds exactly its own window."""
    made, spy = spied("cartpole", 3, n_steps=request_.n)
    for (before, _), (after, _) in zip(spy.seen, spy.seen[1:], strict=False):
        assert torch.equal(before.obs[-1], after.obs[0])
        assert not torch.equal(before.obs, after.obs)
    assert isinstance(made.agent, Agent)
