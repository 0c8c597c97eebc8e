"""Old data in training: how often it is used, what is told of it, stopping and continuing, probe worlds."""

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import pgrad as pg
import pgrad.run.conduct
from pgrad.algorithms.metrics import COLLAPSE, reuse_metrics
from pgrad.algorithms.off_policy_actor_critic import Weighting
from pgrad.algorithms.reinforce import Reuse
from pgrad.data import Batch, Recent, Replay, Trajectory
from pgrad.errors import TrainingError, UsageError
from pgrad.training.alarms import Alarms
from pgrad.worlds.tensors.probes import PROBES
from tests.algorithms.tools import Descent, Table, table, window
from tests.run.tools import differences, final_state, rows

WEIGHTINGS: tuple[Weighting, ...] = get_args(Weighting)
REUSES: tuple[Reuse, ...] = get_args(Reuse)
UNLIMITED: dict[str, Any] = {"rho_max": math.inf, "c_max": math.inf}


# ---------------------------------------------------------------- replay


class Tally(Descent):
    """Counts how often every decision is in a batch that is descended; observations are their numbers."""

    def __init__(self, agent: torch.nn.Module, algorithm: pg.OffPolicyActorCritic, n: int) -> None:
        super().__init__(agent, 0.0)
        self.replay = Replay(algorithm.buffer_size)
        self.generator = torch.Generator().manual_seed(0)
        self.uses = torch.zeros(n)

    def descend(self, loss: Any, batch: Batch, group: str | None = None) -> Any:
        if group == "actor":
            self.uses.index_add_(0, batch.obs.flatten(), batch.mask.float().flatten())
        return super().descend(loss, batch, group)


class Anywhere(Table):
    """A policy and a critic of any observation."""

    def policy(self, obs: Tensor) -> Any:
        return super().policy(obs % 4)

    def value(self, obs: Tensor) -> Tensor:
        return super().value(obs % 4)


def test_every_decision_is_used_four_times_and_more() -> None:
    """By default a decision is in five batches on average: fresh, and in four of those replayed."""
    algorithm = pg.OffPolicyActorCritic(n_steps=8, buffer_size=256)
    n_envs, updates = 4, 50
    per_update = n_envs * algorithm.n_steps
    agent = Anywhere(torch.zeros(4, 3), torch.zeros(4))
    learner = Tally(agent, algorithm, (updates + 1) * per_update)
    for i in range(updates):
        obs = torch.arange(9).unsqueeze(1) * n_envs + torch.arange(n_envs) + i * per_update
        never = torch.zeros(8, n_envs, dtype=torch.bool)
        traj = Trajectory(
            obs=obs,
            action=torch.zeros(8, n_envs, dtype=torch.int64),
            logp=torch.full((8, n_envs), 1 / 3).log(),
            reward=torch.ones(8, n_envs),
            terminated=never,
            done=never,
            mask=torch.ones(8, n_envs),
        )
        extra = algorithm.update(learner, traj)
        assert extra["train/uses_per_decision"] == 5.0
    uses = learner.uses[: updates * per_update]
    assert algorithm.replay_ratio + 1 == 5
    assert uses.mean() == 5.0
    assert uses.min() >= 1.0
    settled = uses[10 * per_update : 40 * per_update]  # seen by the replay from its filling to its leaving
    assert settled.mean() == pytest.approx(5.0, abs=0.15)


def test_replayed_windows_are_weighed_by_what_acted() -> None:
    """After a step of the policy, the ratio of a replayed window is π now over μ then, row by row."""
    algorithm = pg.OffPolicyActorCritic(n_steps=8, buffer_size=64, replay_ratio=1, **UNLIMITED)
    agent = table(0, dtype=torch.float32)
    learner = Tally(agent, algorithm, 4)
    learner.rate = 0.5
    before = agent.theta.detach().clone().log_softmax(1)
    algorithm.update(learner, window(agent, T=8, B=3))
    fresh, old = (batch for group, batch in learner.steps if group == "actor")
    assert fresh.weight is not None
    assert old.weight is not None
    torch.testing.assert_close(fresh.weight, torch.ones(8, 3))
    assert (old.weight - 1).abs().max() > 1e-3
    torch.testing.assert_close(old.logp, before[old.obs, old.action])


def test_the_critic_learns_from_replayed_windows_too() -> None:
    """Where the fresh window shows state 3 alone, V of state 0 moves, which the one before it showed."""
    algorithm = pg.OffPolicyActorCritic(n_steps=8, buffer_size=64)
    agent = table(0, dtype=torch.float32)
    learner = Tally(agent, algorithm, 4)
    learner.rate = 0.5
    moved = []
    for state in (0, 3):
        before = agent.critic.detach().clone()
        shown = window(agent, T=8, B=3)
        algorithm.update(learner, replace(shown, obs=torch.full_like(shown.obs, state)))
        moved.append((agent.critic.detach() != before).tolist())
    assert moved == [[True, False, False, False], [True, False, False, True]]


def test_only_fresh_data_must_be_of_the_policy_itself() -> None:
    """A stale fresh window stops the run; replayed ones, which are stale by nature, do not."""
    algorithm = pg.OffPolicyActorCritic(n_steps=16, learning_rate=0.05)
    run = pg.train(algorithm, "cartpole", total_timesteps=600, n_envs=4)
    assert run.history[-1]["train/kl_behaviour"] > 1e-3
    assert "train/max_log_ratio" not in run.history[-1]

    class Stale(pg.OffPolicyActorCritic):
        def update(self, learner: Any, traj: Trajectory) -> Any:
            return super().update(learner, replace(traj, logp=traj.logp - 0.01))

    with pytest.raises(TrainingError, match="the policy that is trained is not the policy that acted"):
        pg.train(Stale(n_steps=16), "cartpole", total_timesteps=600, n_envs=4)


@pytest.mark.parametrize("baseline", ["none", "value"])
@pytest.mark.parametrize("weighting", REUSES)
def test_old_episodes_beside_fresh_ones(weighting: Reuse, baseline: Any) -> None:
    """Credit of episodes of several policies side by side is that of each alone; the oldest are dropped."""
    agents = [table(seed) for seed in range(4)]
    trajs = [window(agent, T=n, B=2, seed=n) for agent, n in zip(agents, (5, 9, 3, 7), strict=True)]
    for traj in trajs:
        traj.done[-1] = True  # episodes are whole
    recent = Recent(2)
    for traj in trajs[:3]:
        recent.add(traj)
    joined = recent.beside(trajs[3])
    assert joined.reward.shape == (9, 6)
    assert joined.obs.shape == (10, 6)
    algorithm = pg.Reinforce(baseline=baseline, reuse=2, weighting=weighting)
    batch = algorithm.credit(agents[3], joined)
    for column, traj in enumerate((trajs[3], trajs[2], trajs[1])):
        alone, rows_ = algorithm.credit(agents[3], traj), slice(2 * column, 2 * column + 2)
        own = slice(0, len(traj.reward))
        for name in ("advantage", "weight", "mask", "logp"):
            torch.testing.assert_close(getattr(batch, name)[own, rows_], getattr(alone, name))
        assert not batch.mask[len(traj.reward) :, rows_].any()


def test_a_step_of_reinforce_averages_over_old_and_fresh() -> None:
    """(1/(N·(1 + k)))·Σ over both; the learned baseline is fitted to the fresh ones alone."""
    old, now = table(1), table(2)
    before, fresh = window(old, B=3, seed=4), window(now, B=3, seed=5)
    for traj in (before, fresh):
        traj.done[-1], traj.mask[:] = True, 1.0
    algorithm = pg.Reinforce(n_episodes=3, reuse=1, n_critic_updates=1)
    learner = Descent(now, 0.1)
    learner.recent = Recent(1)  # type: ignore[attr-defined]
    learner.recent.add(before)  # type: ignore[attr-defined]
    wanted = torch.zeros_like(now.theta)
    for traj in (before, fresh):
        batch = algorithm.credit(now, traj)
        logp = now.policy(traj.decisions).log_prob(traj.action)
        wanted += torch.autograd.grad((logp * batch.advantage).sum() / 6, now.theta)[0]
    start = now.theta.detach().clone()
    algorithm.update(learner, fresh)
    torch.testing.assert_close((now.theta.detach() - start) / 0.1, wanted)
    assert [(group, batch.mask.shape[1]) for group, batch in learner.steps] == [("actor", 6), ("critic", 3)]


def test_what_reuse_reports() -> None:
    """Of old columns alone, if there are any; the ratio that must be 1 is of the fresh ones."""
    logp = torch.tensor([[-1.0, -1.0, -1.0]])
    facts = {"obs": logp, "action": logp, "advantage": logp, "mask": torch.ones(1, 3)}
    mu = torch.tensor([[-1.0, -1.0 - math.log(3.0), -1.0]])
    batch = Batch(logp=mu, weight=(logp - mu).exp(), logp_now=logp, **facts)
    metrics = reuse_metrics(batch, n_fresh=1)
    assert metrics["train/ess"] == pytest.approx(16.0 / 10.0 / 2.0)  # of weights 3 and 1
    assert metrics["train/max_ratio"] == pytest.approx(3.0)
    assert metrics["train/kl_behaviour"] == pytest.approx((2.0 - math.log(3.0)) / 2)
    assert metrics["train/max_log_ratio"] == 0.0
    assert metrics["train/ess_collapsed"] == 0.0
    near = reuse_metrics(replace(batch, logp_ref=mu - torch.tensor([[0.5, 9.0, 9.0]])), n_fresh=1)
    assert near["kl"] == pytest.approx(0.5)
    assert near["kl/k3"] == pytest.approx(math.exp(-0.5) - 1 + 0.5)
    assert reuse_metrics(batch, n_fresh=2)["train/max_log_ratio"] == pytest.approx(math.log(3.0))
    assert reuse_metrics(batch, n_fresh=3)["train/ess"] == pytest.approx(25.0 / 11.0 / 3.0)


# ---------------------------------------------------------------- what a person is told


def test_an_alarm_is_told_once() -> None:
    told: list[str] = []
    alarms = Alarms(told.append)
    for share in (0.0, 0.4, 0.5, 1.0):
        alarms.hear({"train/ess_collapsed": share, "train/ess": 0.01})
    alarms.hear({})
    assert len(told) == 1
    assert told[0].startswith(
        "warning: the importance weights have collapsed: replayed data are worth less than 10%"
    )
    assert "\n" not in told[0]


def test_a_run_whose_weights_collapse_says_so() -> None:
    """A large step away from all that is in the replay: one warning, and the metric."""
    algorithm = pg.OffPolicyActorCritic(weighting="trajectory", learning_rate=0.3, n_steps=32, ent_coef=0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = pg.train(algorithm, "cartpole", total_timesteps=1500, n_envs=4, log_every=1)
    assert sum("importance weights have collapsed" in str(one.message) for one in caught) == 1
    assert any(row["train/ess_collapsed"] == 1.0 and row["train/ess"] < COLLAPSE for row in run.history)


def test_a_sound_run_says_nothing_and_shows_its_numbers() -> None:
    run = pg.train(pg.OffPolicyActorCritic(), "cartpole", total_timesteps=2000, n_envs=4)
    row = run.history[-1]
    assert row["train/ess_collapsed"] == 0.0
    assert COLLAPSE < row["train/ess"] <= 1.0
    assert row["train/max_ratio"] >= 1.0
    assert 0.0 < row["train/truncated_share"] < 1.0
    assert row["train/n_updates"] == (1 + 4) * 2 * row["time/iterations"]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("algorithm", "options", "message"),
    [
        (
            pg.OffPolicyActorCritic,
            {"weighting": "retrace"},
            "weighting must be 'vtrace' or 'step' or 'prefix' or 'per-decision' or 'trajectory', got "
            "'retrace'",
        ),
        (pg.OffPolicyActorCritic, {"rho_max": 0.0}, "rho_max must be positive, got 0.0"),
        (pg.OffPolicyActorCritic, {"replay_ratio": -1}, "replay_ratio must be a whole number ≥ 0, got -1"),
        (pg.Reinforce, {"reuse": 0.5}, "reuse must be a whole number ≥ 0, got 0.5"),
        (
            pg.Reinforce,
            {"weighting": "vtrace"},
            "weighting must be 'trajectory' or 'per-decision', got 'vtrace'",
        ),
        (pg.Reinforce, {"reuse": 1, "reward_to_go": False}, "reuse with the weighting 'per-decision' needs"),
        (
            pg.Reinforce,
            {"reuse": 1, "normalize_advantage": True},
            "reuse does not go with normalize_advantage",
        ),
        (
            pg.Reinforce,
            {"reuse": 1, "baseline": "optimal"},
            "with reuse take 'none', 'mean', 'leave-one-out'",
        ),
    ],
)
def test_bad_input(algorithm: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        algorithm(**options)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{algorithm.__name__}: ")


def test_a_replay_without_room_is_told_before_anything_is_built() -> None:
    with pytest.raises(UsageError, match=r"buffer_size 100 .* n_steps · n_envs = 32 · 8 = 256"):
        pg.OffPolicyActorCritic(buffer_size=100).collects(8)
    pg.OffPolicyActorCritic(buffer_size=256).collects(8)


# ---------------------------------------------------------------- stop and continue


SMALL: dict[str, Any] = {"n_steps": 8, "buffer_size": 60, "learning_rate_schedule": "linear"}
STOPPED: dict[str, Any] = {
    **{weighting: pg.OffPolicyActorCritic(weighting=weighting, **SMALL) for weighting in WEIGHTINGS},
    **{f"reinforce, {w}": pg.Reinforce(n_episodes=3, reuse=2, weighting=w) for w in REUSES},
}
NORMALIZED = pg.AgentSpec(net_arch=(8,), normalize_obs=True)


@pytest.mark.parametrize(
    ("name", "world"), [*((name, "cartpole") for name in STOPPED), ("vtrace", "CartPole-v1")]
)
def test_a_run_that_stopped_ends_where_it_would_have(
    name: str, world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """train(2N) = train(N) + resume, bit for bit: with a replay that has wrapped around, and old episodes."""
    monkeypatch.setattr(pgrad.run.conduct, "learning_curve", lambda *args, **kwargs: None)
    total = 500 if name.startswith("reinforce") else 240
    setting: dict[str, Any] = {
        "total_timesteps": total,
        "n_envs": 2,
        "seed": 3,
        "agent": NORMALIZED,
        "log_every": 1,
    }
    pg.train(STOPPED[name], world, run_dir=tmp_path / "whole", **setting)
    half = pg.train(
        STOPPED[name],
        world,
        run_dir=tmp_path / "half",
        callback=lambda row: row["time/total_timesteps"] < total // 2,
        **setting,
    )
    assert total // 2 <= half.timesteps < total
    stopped = final_state(tmp_path / "half")["learner"]
    assert stopped["recent" if name.startswith("reinforce") else "replay"]["tensors"]
    pg.resume(tmp_path / "half")
    whole, both = final_state(tmp_path / "whole"), final_state(tmp_path / "half")
    assert differences(whole, both) == []
    assert differences(stopped, both["learner"]) != [], "the comparison can fail"
    assert rows(tmp_path / "whole") == rows(tmp_path / "half")


# ---------------------------------------------------------------- probe worlds


COMMON: dict[str, Any] = {"gamma": 0.5, "ent_coef": 0.0, "learning_rate_schedule": "linear"}
PROBED: dict[str, Any] = {
    w: pg.OffPolicyActorCritic(weighting=w, n_steps=4, buffer_size=512, learning_rate=0.05, **COMMON)
    for w in WEIGHTINGS
}
PROBED |= {
    f"reinforce, {w}": pg.Reinforce(
        weighting=w, reuse=1, n_episodes=32, n_critic_updates=4, learning_rate=0.03, **COMMON
    )
    for w in REUSES
}
MAIN = ("vtrace", "reinforce, per-decision")
HARDEST = ("probe-discount", "probe-both", "probe-both-continuous")


# Where actions make no difference a policy drifts, at this learning rate far from those replayed.
@pytest.mark.filterwarnings("ignore:warning. the importance weights have collapsed")
@pytest.mark.parametrize(
    ("name", "world"), [(name, world) for name in PROBED for world in (PROBES if name in MAIN else HARDEST)]
)
def test_the_exact_answer_is_found(name: str, world: str) -> None:
    probe = PROBES[world]
    solution = probe.solution(0.5)
    run = pg.train(
        PROBED[name],
        world,
        total_timesteps=3000 if probe.continuous and probe.action else 1500,
        n_envs=32,
        seed=1,
        agent=pg.AgentSpec(net_arch=(16,), log_std_init=-1.5),
    )
    with torch.no_grad():
        policy = run.agent.policy(solution.obs)
        if solution.action is not None and probe.continuous:
            assert policy.mode == pytest.approx(solution.action, abs=0.15)
        elif solution.action is not None:
            assert policy.log_prob(solution.action).exp().min() > 0.95
        assert run.agent.value(solution.obs) == pytest.approx(solution.value, abs=0.1)
